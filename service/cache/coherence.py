"""What others have written: the lines on which a worker hears of it, and for how long it may not.

Two lines. Redis carries what the service's own workers write. PostgreSQL carries (by NOTIFY, from
the triggers of sql/migrations) what anybody else writes, psql and migrations among them; and the
words of a worker that can't reach Redis. While a line stands each beat proves that all that was
said before it has been heard. Without a beat the in-process tier ends by itself, even when this
process was stopped and knows nothing of it: no flag has to be set in time.

Each beat also looks for writers that are heard on neither line, see writers.py.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import datetime
from time import monotonic
from typing import Any

import asyncpg

from service.cache.client import TROUBLE, listener
from service.cache.generations import EVERYTHING, TAG_COUNT, Generations, Tags
from service.cache.shared import AGAIN_SECONDS, Shared
from service.cache.writers import PRESENCE, Writers
from service.db.names import CHANNEL, LISTENER, SILENT
from service.logs import logger

# A line is asked whether it stands this often; what is in the tier holds so long after it did.
BEAT_SECONDS, HOLDS_SECONDS = 0.5, 1.75
ANSWER_SECONDS = 1.0
# Said by who begins to listen: look for unheard writers at once, it may have brought some.
JOINED = "joined"
# Before such a look: until then it has been heard on Redis, if that is the same.
JOINING_SECONDS = 0.05
# More of them are said as "everything": a NOTIFY takes less than 8,000 bytes.
MANY = 1000

IDENTITY = """
SELECT (SELECT system_identifier FROM pg_control_system()) || '-' || oid
FROM pg_database WHERE datname = current_database()
"""
UNDER_WAY = """
SELECT EXISTS (
    SELECT FROM pg_stat_activity
    WHERE application_name LIKE $2 AND application_name <> $3
        AND state = 'active' AND query_start < $1
)
"""
AWAY = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)


class Coherence:
    """The lines of one worker.

    Args:
        url: the database.
        epochs: what is moved by what is heard.
        clear: called when something may have been missed.
        writers: those of the database, see writers.py.
    """

    def __init__(
        self,
        url: str,
        generations: Generations,
        clear: Callable[[], None],
        writers: Writers,
    ) -> None:
        self.url = url
        self.generations = generations
        self.clear = clear
        self.writers = writers
        self.shared: Shared | None = None
        # Until when all that was said has surely been heard, by time.monotonic().
        self.valid_until = 0.0
        self._database = self._redis = 0.0
        self._connection: Any = None
        self._pending: dict[int, None] = {}
        self._saying: asyncio.Task[None] | None = None
        self._speaking = asyncio.Lock()
        self._known = asyncio.Event()  # the database's name
        self.stands = asyncio.Event()  # both lines, for the first time
        self._joined = asyncio.Event()

    def lines(self) -> list[Coroutine[None, None, None]]:
        """What keeps each line up until it is cancelled."""
        lines = [self._keep(self._hear_database)]
        if self.shared is not None:
            lines.append(self._keep(self._hear_redis))
        return lines

    def on_message(self, tags: Tags, *, forget: bool) -> None:
        """Somebody else has written; `forget` says that Redis has not been told."""
        self.generations.move(tags)
        if EVERYTHING in tags:
            self.clear()
        if forget and self.shared is not None:
            self.shared.on_message(tags)

    async def publish(self, tags: Tags) -> None:
        """Tell the other workers by PostgreSQL; what can't be said now is said when it is back."""
        self._pending.update(dict.fromkeys(tags))
        self._begin_to_say()
        if self._saying is not None:
            await asyncio.wait([self._saying])

    async def clock(self) -> datetime | None:
        """PostgreSQL's; None while it is away."""
        found: datetime | None = await self._ask("SELECT now()")
        return found

    async def ended(self, since: datetime) -> bool:
        """Whether every statement of the service has ended that began before."""
        return await self._ask(UNDER_WAY, since, f"{SILENT}%", LISTENER) is False

    async def _ask(self, sql: str, *args: object) -> Any:
        """The answer, one question at a time; None while the line is down."""
        try:
            async with self._speaking:
                return self._connection and await self._connection.fetchval(sql, *args)
        except AWAY:
            return None

    def _begin_to_say(self) -> None:
        if self._saying is None and self._pending and self._connection is not None:
            self._saying = asyncio.create_task(self._say())

    async def _say(self) -> None:
        try:
            while self._pending:
                tags, self._pending = self._pending, {}
                said = tuple(tags) if len(tags) < MANY else (EVERYTHING,)
                words = f"moved:{','.join(map(str, said))}"
                if await self._ask("SELECT true FROM pg_notify($1, $2)", CHANNEL, words) is None:
                    self._pending = tags | self._pending
                    return
        finally:
            self._saying = None

    def _beat(self) -> None:
        redis = self._redis if self.shared is not None else self._database
        self.valid_until = min(self._database, redis) + HOLDS_SECONDS
        if self._database and redis:
            self.stands.set()

    async def _keep(self, hear: Callable[[], Any]) -> None:
        while True:
            try:
                await hear()
            except (*AWAY, *TROUBLE):
                pass
            except Exception:  # noqa: BLE001 - a line that nobody keeps up would be down for ever
                logger.exception("a line of the cache failed")
            await asyncio.sleep(AGAIN_SECONDS)

    async def _hear_database(self) -> None:
        connection = await asyncpg.connect(
            self.url,
            timeout=ANSWER_SECONDS,
            command_timeout=ANSWER_SECONDS,
            server_settings={"application_name": LISTENER},
        )
        try:
            await connection.add_listener(CHANNEL, self._notified)
            name = await connection.fetchval(IDENTITY)
            if self.shared is not None:
                if self.shared.name not in ("", name):
                    self.shared.fail(ConnectionError("another database"))
                self.shared.name = name
            self._known.set()
            self.on_message((EVERYTHING,), forget=True)
            self._connection = connection
            self._begin_to_say()
            async with self._speaking:
                await connection.fetchval("SELECT pg_notify($1, $2)", CHANNEL, JOINED)
            await self._beat_of_database(connection)
        finally:
            self._connection = None
            connection.terminate()

    async def _beat_of_database(self, connection: asyncpg.Connection) -> None:
        """Ask again and again; whatever was notified before an answer has been heard by then."""
        at_once = True
        while True:
            asked, unheard = monotonic(), self.writers.unheard
            redis_stands = self.shared is None or asked - self._redis < HOLDS_SECONDS
            async with self._speaking:
                if redis_stands:
                    all_heard = await self.writers.look(connection, at_once=at_once)
                else:  # nothing holds, so who writes is no matter
                    await connection.fetchval("SELECT 1")
            if not redis_stands:
                self._database = 0.0  # not before a look
            elif not all_heard:
                self._database = self.valid_until = 0.0
                if self.shared is not None:
                    self.shared.pause()
            else:
                if unheard:  # what they wrote last was not heard
                    self.on_message((EVERYTHING,), forget=True)
                self._database = asked
                self._beat()
            at_once = not redis_stands
            with suppress(TimeoutError):
                async with asyncio.timeout(BEAT_SECONDS):
                    await self._joined.wait()
                self._joined.clear()
                at_once = True
                await asyncio.sleep(JOINING_SECONDS)

    def _notified(self, _connection: object, pid: int, _channel: str, payload: object) -> None:
        words = str(payload)
        if words == JOINED:
            if self._connection is None or pid != self._connection.get_server_pid():
                self._database = self.valid_until = 0.0
                self._joined.set()
            return
        tags = _tags(words.removeprefix("moved:")) if words.startswith("moved:") else None
        self.on_message(tags or (EVERYTHING,), forget=True)

    async def _hear_redis(self) -> None:
        await self._known.wait()
        shared = self.shared
        assert shared is not None  # noqa: S101 - `run` has looked
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                hearing = await listener(shared.client)
        except Exception as error:
            shared.fail(error)
            raise
        channel = shared.channel
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await hearing.subscribe(channel, PRESENCE + shared.channel)
                message = None
                while message is None or message["type"] != "subscribe":
                    message = await hearing.get_message(timeout=ANSWER_SECONDS)
            self.on_message((EVERYTHING,), forget=False)
            while shared.channel == channel:
                # At the beginning, after it was too slow once, and after a pause.
                if not shared.up and not self.writers.unheard:
                    await shared.begin()
                async with asyncio.timeout(2 * ANSWER_SECONDS):
                    await self._beat_of_redis(hearing, shared)
        except Exception as error:
            shared.fail(error)
            raise
        finally:
            await hearing.aclose()

    async def _beat_of_redis(self, hearing: Any, shared: Shared) -> None:
        """Ask, hear until it answers, then hear until the next beat."""
        asked = monotonic()
        await self._tell_presence(shared)
        await hearing.ping()
        answered = False
        while (left := asked + (BEAT_SECONDS if answered else ANSWER_SECONDS) - monotonic()) > 0:
            message = await hearing.get_message(timeout=left)
            if message is None:
                continue
            if message["type"] == "pong":
                answered = True
                self._redis = asked
                if self._database:
                    self._beat()
                else:
                    self._joined.set()  # look now
            elif message["type"] == "message":
                sender, _, words = message["data"].decode(errors="replace").partition(":")
                if sender == shared.sender:
                    continue
                if message["channel"].decode() == PRESENCE + shared.channel:
                    if self.writers.told(sender, words):
                        await self._tell_presence(shared)
                else:
                    self.on_message(_tags(words) or (EVERYTHING,), forget=False)
        if not answered:
            raise TimeoutError("no answer on the line")

    async def _tell_presence(self, shared: Shared) -> None:
        with suppress(*TROUBLE):  # too slow once: the next beat says it again
            presence = f"{shared.sender}:{self.writers.presence()}"
            await shared.client.publish(PRESENCE + shared.channel, presence)


def _tags(words: str) -> Tags | None:
    """None for what is none: a stranger's words."""
    try:
        tags = tuple(int(word) for word in words.split(","))
    except ValueError:
        logger.warning("strange words on the line")
        return None
    return tags if all(0 <= tag < TAG_COUNT for tag in tags) else None
