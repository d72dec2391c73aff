"""Whether the database takes writes, and has the schema that the statements need.

Requests find out that it does not. Only a new connection can show that it does again: the settings
of a database or a role are read when a connection opens, and after a failover the same address
leads to another server.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, NamedTuple

from service.db.condition import Condition
from service.db.statement import Statement
from service.errors import NOT_MIGRATED, READ_ONLY

# Seconds between two new connections to a database that is not fit; at least half of it.
LOOK_SECONDS = 0.5


class Fitness(NamedTuple):
    """What a new connection shows.

    Attributes:
        read_only: whether the database takes no writes.
        outdated: what the schema lacks; None if it lacks nothing, or if that was not checked.
        checked: whether the connection has prepared the statements, which checks the schema.
    """

    read_only: bool
    outdated: BaseException | None
    checked: bool


class FitnessWatch:
    """The fitness of the database: logged once, and checked in the background until it is fit.

    Args:
        prepared: the statements that must be possible.
        look: opens a new connection, prepares statements on it, and closes it.
        retire: replaces the connections held: they were opened while the database was not fit.
        spawn: runs a coroutine in the background.
    """

    def __init__(
        self,
        prepared: Sequence[Statement[Any]],
        *,
        look: Callable[[], Awaitable[Fitness]],
        retire: Callable[[], None],
        spawn: Callable[[Coroutine[None, None, None]], None],
    ) -> None:
        self.read_only = Condition(READ_ONLY, "the database takes writes again")
        self.outdated = Condition(NOT_MIGRATED, "the database is migrated")
        self._prepared = prepared
        self._look = look
        self._retire = retire
        self._spawn = spawn
        self._unprepared: Statement[Any] | None = None  # the last one that failed while `outdated`
        self._proven = False  # a connection has prepared all of them
        self._looking = False
        self._closed = False

    def close(self) -> None:
        """Begin no more checks; the pool cancels a running one."""
        self._closed = True

    @property
    def statements(self) -> Sequence[Statement[Any]]:
        """The statements that a new connection must be able to prepare."""
        return self._prepared if self._unprepared is None else (*self._prepared, self._unprepared)

    @property
    def unproven(self) -> Sequence[Statement[Any]]:
        """The statements that a new connection of the pool prepares: none if the schema is known.

        Then each is prepared at its first use: it needs one round trip more, once per connection.
        """
        return () if self._proven and not self.outdated.active else self.statements

    def found_read_only(self, error: BaseException) -> None:
        """A write was refused: no other is tried until a new connection takes writes."""
        self.read_only.begin(error)
        self._begin_to_look()

    def found_outdated(self, error: BaseException, statement: Statement[Any] | None) -> None:
        """The schema lacks a table or column that the statement needs."""
        self._unprepared = statement or self._unprepared
        self.outdated.begin(error)
        self._begin_to_look()

    def note(self, fitness: Fitness) -> None:
        """Take note of what a new connection shows."""
        fit_again = False
        if fitness.read_only:
            self.read_only.begin()
        else:
            fit_again = self.read_only.end()
        if fitness.outdated is not None:
            self.outdated.begin(fitness.outdated)
        elif fitness.checked or not self.statements:
            self._proven = True
            if self.outdated.end():
                self._unprepared = None
                fit_again = True
        if fit_again:
            self._retire()
        self._begin_to_look()

    def _begin_to_look(self) -> None:
        if self._looking or self._closed:
            return
        if self.read_only.active or self.outdated.active:
            self._looking = True
            self._spawn(self._look_until_fit())

    async def _look_until_fit(self) -> None:
        try:
            while self.read_only.active or self.outdated.active:
                await asyncio.sleep(LOOK_SECONDS * random.uniform(0.5, 1))  # noqa: S311 - spreads looks
                try:
                    fitness = await self._look()
                except Exception:  # noqa: BLE001, S112 - the database is away, and the pool logs that
                    continue
                self.note(fitness)
        finally:
            self._looking = False
