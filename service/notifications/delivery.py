"""The job that posts a notification to SERVICE_NOTIFY_URL."""

from msgspec import Struct

from service.jobs.context import JobContext
from service.jobs.job import Job, JobFailedError, JobRetryError
from service.notifications import statements
from service.outgoing import DeliveryError
from service.web.times import encode_each

# With the pauses of JobLoop, 5 minutes on average after the first hour: about a day.
ATTEMPTS = 300
# The longest pause after a worker that has no URL, such as one with the settings from before.
NO_URL_SECONDS = 60.0


class Delivery(Struct, frozen=True):
    """The argument: the id of the notification."""

    id: int


async def _deliver(context: JobContext, delivery: Delivery) -> None:
    """Post the notification; one that no longer exists was of a user that was deleted."""
    url = context.settings.notify_url
    if url is None:
        raise JobRetryError("SERVICE_NOTIFY_URL is not set", NO_URL_SECONDS)
    found = await statements.posted.get(context.db, delivery.id)
    if found is None:
        return
    (body,) = encode_each([found])
    try:
        await context.outgoing.post(
            url, body, delivery_id=f"notification-{found.id}", target="notification"
        )
    except DeliveryError as error:
        if error.permanent:
            raise JobFailedError(str(error)) from None
        raise JobRetryError(str(error), error.retry_after) from None


deliver = Job("notify", Delivery, _deliver, concurrency=8, attempts=ATTEMPTS, seconds=30.0)
