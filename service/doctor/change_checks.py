"""The log of changes: whether each change is logged, and whether the log is trimmed and read."""

from datetime import timedelta

from service.db.change_log import logged
from service.doctor.check import Check, Finding, fail, ok, skip, warn
from service.doctor.subject import Subject

# A worker looks at most once in 90 s for what to trim.
LATE = timedelta(minutes=10)
# Commits don't take so long.
HELD = timedelta(seconds=10)

DISABLED = """
SELECT quote_ident(c.relname) FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
WHERE t.tgenabled IN ('D', 'R') AND (t.tgrelid = 'change_log'::regclass
    OR t.tgrelid = ANY (SELECT to_regclass(quote_ident(name)) FROM unnest($1::text[]) AS name)
        AND t.tgname LIKE '%\\_log\\_%')
GROUP BY 1 ORDER BY 1
"""
OLDEST = """
SELECT now() - committed_at,
    (SELECT count(*) FROM change_positions WHERE committed_at < now() - $1::interval)
FROM change_positions
WHERE position > coalesce((SELECT max(position) / 1024 FROM change_horizon), 0)
ORDER BY position LIMIT 1
"""
# Who has drawn a position and has not ended: readers wait for it.
HOLDER = """
SELECT l.pid, now() - a.xact_start
FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'advisory' AND l.classid = 'change_log'::regclass AND l.objid = 0
    AND l.objsubid = 2 AND now() - a.state_change > $1::interval
ORDER BY a.xact_start LIMIT 1
"""


async def changes(subject: Subject) -> Finding:
    """Fail if a trigger of the log of changes is off; warn if the log is not trimmed or not read.

    A transaction that has run `SET CONSTRAINTS ALL IMMEDIATE` holds up all readers until it ends.
    """
    tables = [one.name for one in logged(subject.app.tables)]
    if not tables:
        return skip("this application logs no changes")
    if not subject.migrated:
        return skip("the database is not migrated")
    connection, kept = subject.connection(), subject.settings.changes_age
    if found := [name for (name,) in await connection.fetch(DISABLED, tables)]:
        return fail(
            f"changes are lost: a trigger of {', '.join(found)} is off",
            f"ALTER TABLE {found[0]} ENABLE TRIGGER USER",
        )
    if held := await connection.fetchrow(HOLDER, HELD):
        return warn(
            f"process {held[0]} holds up the readers of changes: its transaction has run {held[1]}",
            f"end it, or SELECT pg_terminate_backend({held[0]})",
        )
    oldest = await connection.fetchrow(OLDEST, kept + LATE)
    if oldest is not None and oldest[0] > kept + LATE:
        return warn(
            f"the oldest change is {oldest[0]} old: {oldest[1]} entries should have been removed",
            "see the log of the workers: each removes old changes once a minute",
        )
    return ok(f"changes of {', '.join(tables)} are logged, and kept for {kept}")


CHECKS = (Check("changes", changes, "database"),)
