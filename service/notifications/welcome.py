"""The job of a new user: a notification that welcomes them."""

from service.jobs.context import JobContext
from service.jobs.job import Created, Job


async def _welcome(context: JobContext, user: Created) -> None:
    raise NotImplementedError


welcome = Job("welcome", Created, _welcome)
