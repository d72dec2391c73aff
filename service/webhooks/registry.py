"""What an operator does with webhooks: add, list and remove them, and post again what failed."""

from urllib.parse import urlsplit

from service.changes import log
from service.db.database import Database
from service.db.writable import WritableDatabase
from service.jobs.queue import enqueue
from service.webhooks import statements
from service.webhooks.statements import Behind, Failure, ShownWebhook
from service.webhooks.webhook_jobs import Again, WebhookId, posting, posting_again


async def add(db: WritableDatabase, url: str, resource: str) -> int:
    """Add a webhook for the changes from now on, and return its id.

    Raises:
        Problem: see errors.from_database; nothing was added.
    """
    # Read first: a change that is committed after it is posted.
    position = await log.newest(db.database)
    async with db.transaction() as one:
        found = await statements.add.one(one, url=url, resource=resource, position=position)
        assert found is not None  # noqa: S101 - an INSERT returns its row
        await enqueue(one, posting, WebhookId(found))
    return found


async def remove(db: WritableDatabase, webhook_id: int) -> bool:
    """Remove a webhook with its failures; the job notices it within seconds.

    Returns:
        Whether there was one.
    """
    return await statements.remove.one(db, id=webhook_id) is not None


async def every(db: Database, tables: dict[str, str]) -> list[tuple[ShownWebhook, Behind | None]]:
    """Return the webhooks, and how far behind each is.

    Args:
        db: the database.
        tables: the name of the table of each resource; those of other applications are missing.
    """
    shown = []
    for record in await statements.list_.records(db):
        webhook = ShownWebhook(*record)
        table, behind = tables.get(webhook.resource), None
        if table is not None:
            behind = await statements.behind.one(db, position=webhook.position, table=table)
        shown.append((webhook, behind))
    return shown


async def failed(db: Database, webhook_id: int | None, limit: int) -> list[Failure]:
    """Return the oldest changes that were not delivered: of a webhook, or of all."""
    records = await statements.failed.records(db, webhook_id=webhook_id, limit=limit)
    return [Failure(*record) for record in records]


async def retry(db: WritableDatabase, what: Again) -> int:
    """Queue a job that posts failures again, and return its id."""
    return await enqueue(db, posting_again, what)


async def forget(db: WritableDatabase, what: Again) -> int:
    """Remove failures for good, and return how many there were."""
    return len(await statements.forget.records(db, id=what.id, webhook_id=what.webhook_id))


def shown_url(url: str) -> str:
    """Return the URL without its password and query, which may have secrets."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
