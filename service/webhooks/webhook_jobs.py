"""The jobs of webhooks: one posts changes without an end, one posts again what was not delivered.

As a job has a lease, one worker at a time posts for a webhook, and another goes on when it dies.
"""

from typing import Any

from msgspec import Struct, structs

from service.changes import log
from service.errors import Gone
from service.jobs.context import JobContext
from service.jobs.job import Job, JobRetryError, JobTaken
from service.logs import logger
from service.outgoing import DeliveryError
from service.timing import timing
from service.webhooks import statements
from service.webhooks.delivery_window import Pending
from service.webhooks.sender import REFUSALS, EndedError, Sender
from service.webhooks.statements import DeadLetter, Webhook

# Bytes of the bodies of one read; the last one may have more.
READ_BYTES = 1_048_576
# Failures that are read at once to be posted again, and how many of them in a row end an attempt,
# unless the receiver has refused them.
PAGE, AWAY = 100, 3


class WebhookId(Struct, frozen=True):
    """The argument of the job that posts changes: the id of the webhook."""

    id: int


class Again(Struct, frozen=True):
    """What is to be posted again: a failure, those of a webhook, or all."""

    id: int | None = None
    webhook_id: int | None = None


class PostedAgain(Struct, frozen=True):
    """The result of `post_again`."""

    posted: int
    refused: int


class WebhookEdges:
    """What the Sender of a webhook does, with the log, the receiver and the database.

    Args:
        context: of the job.
        webhook: for which it posts.
    """

    def __init__(self, context: JobContext, webhook: Webhook) -> None:
        self._context = context
        self._webhook = webhook
        self._saved = webhook.position
        self._error: str | None = ""  # not known
        self._paused = False

    async def read(self, after: int, limit: int) -> tuple[list[Pending], int]:
        """See Edges.read; changes that are lost are stored as a failure."""
        feed = self._context.feed
        try:
            changes, position = await feed.read(self._webhook.resource, after, limit)
        except Gone:
            return [], await self._lost(after)
        return [
            Pending(one.position, one.row.id, self._body(one.data)) for one in changes
        ], position

    async def wait(self, after: int, seconds: float) -> None:
        """See Edges.wait."""
        await self._context.feed.wait(after, seconds)

    async def post(self, pending: Pending) -> None:
        """See Edges.post."""
        webhook = self._webhook
        await _post(self._context, webhook.id, webhook.url, pending.position, pending.body)

    def tell(self, error: str | None) -> None:
        """See Edges.tell."""
        if error is not None and not self._paused:
            fields = {**self._fields, "error": error}
            logger.warning("a webhook is paused: nothing gets through", extra={"fields": fields})
        elif error is None and self._paused:
            logger.info("a webhook gets through again", extra={"fields": self._fields})
        self._paused = error is not None

    async def save(self, position: int, error: str | None) -> None:
        """See Edges.save; without a change, it only reads."""
        context = self._context
        mine = {"id": self._webhook.id, "job_id": context.id, "claim": context.claim}
        if (position, error) == (self._saved, self._error):
            found = await statements.check.one(context.db, **mine)
        else:
            found = await context.writer.run(
                lambda db: statements.save.one(db, position=position, error=error, **mine),
                lambda _: (),
            )
        if found is None:
            raise EndedError
        self._saved, self._error = position, error

    async def give_up(self, pending: Pending, error: str) -> None:
        """See Edges.give_up."""
        await self._store(pending.position, pending.body.decode(), None, pending.failures, error)
        logger.error(
            "a change was not delivered: `swiftlet webhooks failed` shows it",
            extra={"fields": {**self._fields, "position": pending.position, "error": error}},
        )

    async def _lost(self, after: int) -> int:
        horizon = await log.horizon(self._context.db)
        error = f"the changes after {after} up to {horizon} were kept too short to be delivered"
        await self._store(after + 1, None, horizon, 0, error)
        fields = {**self._fields, "after": after, "up_to": horizon}
        logger.error("changes were not delivered: they are not kept", extra={"fields": fields})
        return horizon

    async def _store(
        self, position: int, body: str | None, lost_to: int | None, attempts: int, error: str
    ) -> None:
        await self._context.writer.run(
            lambda db: statements.give_up.one(
                db,
                webhook_id=self._webhook.id,
                position=position,
                body=body,
                lost_to=lost_to,
                attempts=attempts,
                error=error,
            ),
            lambda _: (),
        )

    @property
    def _fields(self) -> dict[str, object]:
        return {"webhook": self._webhook.id, "resource": self._webhook.resource}

    def _body(self, change: bytes) -> bytes:
        return b'{"webhook_id":%d,%b' % (self._webhook.id, change[1:])


async def post_changes(context: JobContext, argument: WebhookId) -> None:
    """Post the changes of a webhook until it is removed."""
    spent = timing.get()
    if spent is not None:
        spent.span = None  # the job has no end: its statements and posts belong to no trace
    webhook = await statements.find.one(context.db, id=argument.id)
    if webhook is None:
        return
    if webhook.resource not in context.feed.topics:
        raise JobRetryError(f"this application has no changes of {webhook.resource}")
    try:
        await Sender(WebhookEdges(context, webhook), webhook.position).run()
    except EndedError:
        if await statements.find.one(context.db, id=argument.id) is not None:
            raise JobTaken("another worker posts for it") from None


async def post_again(context: JobContext, argument: Again) -> PostedAgain:
    """Post again what was not delivered; what the receiver refuses remains."""
    posted = refused = after = away = 0
    while letters := await _next(context, argument, after):
        for letter in letters:
            error = await _posted(context, letter)
            if error is None:
                posted, away = posted + 1, 0
            elif error.status in REFUSALS:
                refused, away = refused + 1, 0
            else:
                away += 1
                if away == AWAY:
                    raise JobRetryError(str(error), error.retry_after)
            after = letter.id
            await context.progress(posted)
    if away:
        raise JobRetryError("the last one was not delivered")
    return PostedAgain(posted, refused)


async def _next(context: JobContext, argument: Again, after: int) -> list[DeadLetter]:
    given = structs.asdict(argument)
    records = await statements.retry.records(context.db, after=after, limit=PAGE, **given)
    return [DeadLetter(*record) for record in records]


async def _posted(context: JobContext, letter: DeadLetter) -> DeliveryError | None:
    try:
        await _post(context, letter.webhook_id, letter.url, letter.position, letter.body.encode())
    except DeliveryError as error:
        values = {"id": letter.id, "error": str(error)}
        await context.writer.run(lambda db: statements.failed_again.one(db, **values), lambda _: ())
        return error
    await context.writer.run(
        lambda db: statements.forget.one(db, id=letter.id, webhook_id=None), lambda _: ()
    )
    return None


async def _post(context: JobContext, webhook_id: int, url: str, position: int, body: bytes) -> None:
    """Post a change; its id is the same in each attempt."""
    name = f"webhook-{webhook_id}-{position}"
    await context.outgoing.post(url, body, delivery_id=name, target="webhook")


posting = Job("webhook", WebhookId, post_changes, concurrency=100, attempts=None, seconds=None)
posting_again = Job("webhook-retry", Again, post_again, concurrency=2, attempts=10, seconds=None)
JOBS: tuple[Job[Any], ...] = (posting, posting_again)
