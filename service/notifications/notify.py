"""Tell a user something, in the transaction of what caused it."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from service.cache.generations import TableTags, Tags
from service.db.writable import WritableDatabase
from service.jobs.context import JobContext
from service.jobs.queue import enqueue
from service.notifications import statements
from service.notifications.delivery import Delivery, deliver
from service.notifications.structs import Notification
from service.settings import Settings

NOTHING: Mapping[str, Any] = MappingProxyType({})

tags = TableTags(statements.table.name, "user_id", "unread")


async def notify(
    db: WritableDatabase,
    settings: Settings,
    *,
    user_id: int | None,
    kind: str,
    message: str,
    data: Mapping[str, Any] = NOTHING,
    source: str | None = None,
) -> Notification | None:
    """Make a notification in the transaction of `db`, and return it.

    With SERVICE_NOTIFY_URL it is also posted there, by a job in the same transaction.

    Args:
        db: of a write, whose cache tags are `told` of what this returns.
        settings: of the application.
        user_id: the recipient; None for a notification without a recipient.
        kind: what it is about, such as `welcome`; clients show it by its kind.
        message: in plain text.
        data: what belongs to the kind, as a JSON object.
        source: what caused it, such as `job 17`. A second notification with the same source is not
            made: a job that runs twice tells once.

    Returns:
        None if there is one with this source already.

    Raises:
        Conflict: there is no such user.
    """
    text = msgspec.json.encode(dict(data)).decode()
    async with db.transaction() as one:
        made = await statements.add.get(one, user_id, kind, message, text, source)
        if made is not None and settings.notify_url is not None:
            await enqueue(one, deliver, Delivery(made.id))
    return made


async def notify_and_finish(
    context: JobContext,
    *,
    user_id: int | None,
    kind: str,
    message: str,
    data: Mapping[str, Any] = NOTHING,
) -> None:
    """Make a notification and mark the job as done, in one transaction; see `notify`."""

    async def write(db: WritableDatabase) -> Notification | None:
        async with db.transaction() as one:
            made = await notify(
                one,
                context.settings,
                user_id=user_id,
                kind=kind,
                message=message,
                data=data,
                source=f"job {context.id}",
            )
            await context.finish(one)
        return made

    await context.writer.run(write, told)


def told(made: Notification | None) -> Tags:
    """Return the cache tags of the responses that a new notification changes."""
    return () if made is None else tags.written(made)
