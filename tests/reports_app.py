"""An application with jobs of its own, for test_jobs_surface.py."""

from collections.abc import Awaitable

from msgspec import Struct, structs

from service.app import create_app
from service.asgi import MIGRATIONS
from service.db.writable import WritableDatabase
from service.items import items
from service.items.structs import NewItem
from service.jobs.context import JobContext
from service.jobs.job import Created, Job, JobFailedError
from service.jobs.queue import enqueue
from service.keys import api_keys, keys
from service.settings import Settings
from service.users import users
from service.web.body import Body
from service.web.codec import Reply
from service.web.endpoint import Operation
from service.web.request import Request


class Report(Struct):
    title: str


async def write_report(context: JobContext, report: Report) -> dict[str, str]:
    """Make an item with the title, and say so in the result."""
    await context.progress(1, 2)
    values = structs.astuple(NewItem(name=report.title))
    await context.writer.run(lambda db: items.add.run(db, values), items.tags.written)
    await context.progress(2, 2)
    return {"title": report.title, "created_at": "a text, no time"}


async def burn(_: JobContext, report: Report) -> None:
    """Fail for good."""
    raise JobFailedError(f"{report.title}\nis burnt \x1b[31m", {"title": report.title})


async def greet(_: JobContext, user: Created) -> int:
    """Return the id of a new user."""
    return user.id


reports, fires = Job("report", Report, write_report), Job("fire", Report, burn)
welcome = Job("welcome", Created, greet, new_rows_of="users")
body = Body(Report)


async def order(request: Request) -> Reply:
    """Queue a job of the user that sends the request."""
    report = await request.body(body)
    principal = request.principal
    user_id = None if principal is None else principal.user_id

    job = fires if report.title == "fire" else reports

    def write(db: WritableDatabase) -> Awaitable[int]:
        return enqueue(db, job, report, user_id=user_id)

    job_id = await request.write(write, lambda _: ())
    return Reply(status=202, headers=((b"location", b"/jobs/%d" % job_id),))


app = create_app(
    Settings.load(),
    resources=[items, users, keys],
    routes=[Operation("POST", "/reports", order, "Order a report", request=Report, status=202)],
    jobs=[reports, fires, welcome],
    auth=api_keys,
    migrations=MIGRATIONS,
)
