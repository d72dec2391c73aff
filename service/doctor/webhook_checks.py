"""Webhooks: whether they get through, and whether changes were given up."""

from service.db.webhook_tables import webhooks as table
from service.doctor.check import Check, Finding, ok, skip, warn
from service.doctor.subject import Subject

# A webhook saves its position every 30 s at least, so an older change is late.
LATE_SECONDS = 120
# No figure counts further.
COUNTED = 10_000
BEHIND = """
SELECT w.id, w.error, extract(epoch FROM now() - first.committed_at)::int
FROM webhooks w LEFT JOIN LATERAL (
    SELECT committed_at FROM change_positions
    WHERE position > w.position / 1024 ORDER BY position LIMIT 1
) AS first ON true
ORDER BY first.committed_at, w.id
"""
FAILURES = f"""
SELECT count(*), max(lost_to) IS NOT NULL FROM (
    SELECT lost_to FROM webhook_failures LIMIT {COUNTED}) AS f
"""  # noqa: S608 - a number of ours


async def webhooks(subject: Subject) -> Finding:
    """Warn if a webhook is behind by two minutes, or if changes were given up."""
    if table not in subject.app.tables:
        return skip("no resource of this application has changes")
    if not subject.migrated:
        return skip("the database is not migrated")
    found = await subject.connection().fetch(BEHIND)
    late = [one for one in found if (one[2] or 0) > LATE_SECONDS]
    if late:
        first, error, seconds = late[0]
        why = error or "nothing was posted"
        return warn(
            f"webhooks that are behind: {len(late)}, webhook {first} by {seconds} s ({why})",
            "see the receiver, `swiftlet webhooks list` and `swiftlet jobs list --kind webhook`",
        )
    number, lost = await subject.row(FAILURES)
    if number:
        kept = ", and some were kept too short: raise SERVICE_CHANGES_KEPT" if lost else ""
        return warn(
            f"changes that were given up: {number}",
            "`swiftlet webhooks failed` says why, `swiftlet webhooks retry --all` posts them"
            f" again{kept}",
        )
    return ok(f"{len(found)} webhooks, none is behind" if found else "there are none")


CHECKS = (Check("webhooks", webhooks, "database"),)
