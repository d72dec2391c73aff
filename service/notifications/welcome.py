"""The job of a new user: a notification that welcomes them."""

from service.jobs.context import JobContext
from service.jobs.job import Created, Job
from service.users import users


async def _welcome(context: JobContext, user: Created) -> None:
    raise NotImplementedError


welcome = Job("welcome", Created, _welcome, new_rows_of=users.name)
