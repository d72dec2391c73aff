"""The job of a new user: a notification that welcomes them."""

from service.jobs.context import JobContext
from service.jobs.job import Created, Job
from service.notifications.notify import notify_and_finish
from service.users import users


async def _welcome(context: JobContext, created: Created) -> None:
    """Welcome the user; one who no longer exists needs no welcome."""
    user = await users.by_id.get(context.db, created.id)
    if user is not None:
        message = f"Welcome, {user.username}"
        await notify_and_finish(context, user_id=user.id, kind="welcome", message=message)


welcome = Job("welcome", Created, _welcome, new_rows_of=users.name)
