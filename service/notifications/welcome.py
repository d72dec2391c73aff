"""The job of a new user: a notification that welcomes them."""

from service.db.writable import WritableDatabase
from service.jobs.context import JobContext
from service.jobs.job import Created, Job
from service.notifications.notify import notify, told
from service.notifications.structs import Notification
from service.users import users


async def _welcome(context: JobContext, created: Created) -> None:
    """Welcome the user; one who no longer exists needs no welcome."""
    user = await users.by_id.get(context.db, created.id)
    if user is None:
        return

    async def write(db: WritableDatabase) -> Notification | None:
        async with db.transaction() as one:
            made = await notify(
                one,
                context.settings,
                user_id=user.id,
                kind="welcome",
                message=f"Welcome, {user.username}",
                source=f"job {context.id}",
            )
            await context.finish(one)
        return made

    await context.writer.run(write, told)


welcome = Job("welcome", Created, _welcome, new_rows_of=users.name)
