"""The built-in resources, with a job after each import in the background that a test can see."""

from service.app import create_app
from service.asgi import MIGRATIONS
from service.items import items
from service.jobs.context import JobContext
from service.jobs.job import Job
from service.keys import api_keys, keys
from service.resource.import_job import ImportEnded
from service.settings import Settings
from service.users import users


async def note(_: JobContext, ended: ImportEnded) -> ImportEnded:
    """Store the argument as the result."""
    return ended


after = Job("after", ImportEnded, note)
app = create_app(
    Settings.load(),
    resources=(items, users, keys),
    migrations=MIGRATIONS,
    auth=api_keys,
    after_import=after,
)
