"""What a running job may use."""

from typing import Protocol

from service.cache.writer import Writer
from service.changes.feed import Feed
from service.db.database import Database
from service.db.statement import Runner
from service.outgoing import Outgoing
from service.settings import Settings


class JobContext(Protocol):
    """One attempt of a job.

    Attributes:
        id: of the job.
        attempt: 1 for the first.
        claim: the number that the job has as long as no other worker takes it.
        user_id: who caused it; None if no user.
        settings: of the application.
        db: for reads.
        writer: the one way to write.
        outgoing: posts to others.
        feed: reads the changes of rows.
    """

    id: int
    attempt: int
    claim: int
    user_id: int | None
    settings: Settings
    db: Database
    writer: Writer
    outgoing: Outgoing
    feed: Feed

    async def progress(self, done: int, total: int | None = None) -> None:
        """Store how far it is; at most once a second, other calls only remember the figures.

        Raises:
            JobTaken: another worker has taken the job.
        """
        ...

    async def finish(self, db: Runner, result: object = None) -> None:
        """Mark the job as done in the transaction of `db`, so that its effect happens once.

        Raises:
            JobTaken: another worker has taken the job; roll back.
        """
        ...
