"""The job at the end of an import in the background: it tells the user who sent the file."""

from msgspec import structs

from service.jobs.context import JobContext
from service.jobs.job import Job
from service.notifications.notify import notify_and_finish
from service.resource.import_job import ImportEnded
from service.users import users

KIND = "import_ended"


async def _tell(context: JobContext, ended: ImportEnded) -> None:
    """Tell the user; one who no longer exists need not know."""
    if ended.user_id is not None and await users.by_id.get(context.db, ended.user_id) is None:
        return
    await notify_and_finish(
        context,
        user_id=ended.user_id,
        kind="import",
        message=message(ended),
        data=structs.asdict(ended),
    )


def message(ended: ImportEnded) -> str:
    """Return what a notification says about an import."""
    if ended.state == "failed":
        return f"Import of {ended.resource} failed: {ended.error or 'no reason is known'}"
    counts = f"{ended.created} created, {ended.updated} updated, {ended.unchanged} unchanged"
    wrong = f", {ended.failed} skipped" if ended.failed else ""
    return f"Import of {ended.resource} finished: {counts}{wrong}"


import_ended = Job(KIND, ImportEnded, _tell)
