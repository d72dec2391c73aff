"""How a worker learns what others write, and until when it may rely on that.

It listens on two connections. Over Redis come the writes of the service's own workers. Over
PostgreSQL come the writes of all other programs, psql and migrations among them (NOTIFY by the
triggers of sql/migrations), and the writes of workers that can't reach Redis.

A heartbeat asks each server and waits for the answer; every message sent before the answer has
been received by then. Without heartbeats the in-process tier becomes invalid by time alone, also
in a process that was stopped for a while: no flag has to be set in time.

Each heartbeat also looks for writers that announce themselves on neither connection, see
silent_writers.py.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import datetime
from time import monotonic
from typing import Any

import asyncpg

from service.cache.client import is_lost
from service.cache.generations import EVERYTHING, Generations, Tags, message, parse
from service.cache.multiplexed import Multiplexed
from service.cache.shared import RETRY_SECONDS, Shared
from service.cache.silent_writers import PRESENCE, SilentWriters
from service.db.names import CHANNEL, LISTENER, SILENT
from service.logs import logger

# Between two heartbeats; and how long after one the in-process tier is valid. docs/caching.md
# promises 2 s: a quarter second is left for a late timer.
HEARTBEAT_SECONDS, VALID_SECONDS = 0.5, 1.75
ANSWER_SECONDS = 1.0
# The payloads of NOTIFY are JOINED, INVALIDATE with tags, or anything else, as the
# names of tables that the triggers send: that invalidates everything.
INVALIDATE = "invalidate:"
# A worker sends it when it begins to listen: the others look for silent writers at once.
JOINED = "joined"
PRESENCE_BYTES = PRESENCE.encode()
# Before that look: the worker's announcement over Redis needs a moment.
JOINING_SECONDS = 0.05
# From so many tags on everything is invalidated: a NOTIFY takes less than 8,000 bytes.
MAX_TAGS = 1000

NOTIFY = "SELECT true FROM pg_notify($1, $2)"
IDENTITY = """
SELECT (SELECT system_identifier FROM pg_control_system()) || '-' || oid
FROM pg_database WHERE datname = current_database()
"""
RUNNING_SINCE = """
SELECT EXISTS (
    SELECT FROM pg_stat_activity
    WHERE application_name LIKE $2 AND application_name <> $3
        AND state = 'active' AND query_start < $1
)
"""
DATABASE_ERRORS = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)


class Coherence:
    """The two connections of one worker.

    Args:
        url: the database.
        generations: advanced by every message.
        clear: called when messages may have been missed.
        writers: those of the database, see silent_writers.py.
    """

    def __init__(
        self,
        url: str,
        generations: Generations,
        clear: Callable[[], None],
        writers: SilentWriters,
    ) -> None:
        self.url = url
        self.generations = generations
        self.clear = clear
        self.writers = writers
        self.shared: Shared | None = None
        # Until when the in-process tier is valid, by time.monotonic().
        self.valid_until = 0.0
        # When the last answered heartbeat was sent; 0.0 when it does not count.
        self._database = self._redis = 0.0
        self._connection: Any = None
        self._hearing: Multiplexed | None = None
        self._pending: dict[int, None] = {}
        self._sending: asyncio.Task[None] | None = None
        self._querying = asyncio.Lock()
        self._named = asyncio.Event()  # the database's name is known
        self.connected = asyncio.Event()  # both, for the first time
        self._joined = asyncio.Event()

    def connections(self) -> list[Coroutine[None, None, None]]:
        """What keeps each connection until it is cancelled."""
        connections = [self._reconnect(self._listen_to_database)]
        if self.shared is not None:
            connections.append(self._reconnect(self._listen_to_redis))
        return connections

    def on_message(self, tags: Tags, *, in_redis: bool) -> None:
        """Another process has written; `in_redis` says that Redis must be invalidated too."""
        self.generations.advance(tags)
        if EVERYTHING in tags:
            self.clear()
        if in_redis and self.shared is not None:
            self.shared.on_message(tags)

    async def publish(self, tags: Tags) -> None:
        """Send tags to the other workers over PostgreSQL, now or when it is back."""
        self._pending.update(dict.fromkeys(tags))
        self._start_sending()
        if self._sending is not None:
            await asyncio.wait([self._sending])

    async def clock(self) -> datetime | None:
        """PostgreSQL's time; None while it is away."""
        found: datetime | None = await self._fetch("SELECT now()")
        return found

    async def ended(self, since: datetime) -> bool:
        """Whether every statement of the service that began before has ended."""
        return await self._fetch(RUNNING_SINCE, since, f"{SILENT}%", LISTENER) is False

    async def _fetch(self, sql: str, *args: object) -> Any:
        """One value; None without a connection. One query at a time."""
        try:
            async with self._querying:
                return self._connection and await self._connection.fetchval(sql, *args)
        except DATABASE_ERRORS:
            return None

    def _start_sending(self) -> None:
        if self._sending is None and self._pending and self._connection is not None:
            self._sending = asyncio.create_task(self._send())

    async def _send(self) -> None:
        try:
            while self._pending:
                pending, self._pending = self._pending, {}
                tags = tuple(pending) if len(pending) < MAX_TAGS else (EVERYTHING,)
                payload = INVALIDATE + message(tags)
                if await self._fetch(NOTIFY, CHANNEL, payload) is None:
                    self._pending = pending | self._pending
                    return
        finally:
            self._sending = None

    def _extend(self) -> None:
        redis = self._redis if self.shared is not None else self._database
        self.valid_until = min(self._database, redis) + VALID_SECONDS
        if self._database and redis:
            self.connected.set()

    async def _reconnect(self, listen: Callable[[], Any]) -> None:
        while True:
            try:
                await listen()
            except DATABASE_ERRORS:
                pass
            except Exception as error:  # noqa: BLE001 - without a retry it never comes back
                if not is_lost(error):
                    logger.exception("a connection of the cache failed")
            await asyncio.sleep(RETRY_SECONDS)

    async def _listen_to_database(self) -> None:
        connection = await asyncpg.connect(
            self.url,
            timeout=ANSWER_SECONDS,
            command_timeout=ANSWER_SECONDS,
            server_settings={"application_name": LISTENER},
        )
        try:
            await connection.add_listener(CHANNEL, self._on_notify)
            name = await connection.fetchval(IDENTITY)
            if self.shared is not None:
                if self.shared.name not in ("", name):
                    self.shared.fail(ConnectionError("another database"))
                self.shared.name = name
            self._named.set()
            self.on_message((EVERYTHING,), in_redis=True)
            self._connection = connection
            self._start_sending()
            async with self._querying:
                await connection.fetchval(NOTIFY, CHANNEL, JOINED)
            await self._database_heartbeats(connection)
        finally:
            self._connection = None
            connection.terminate()

    async def _database_heartbeats(self, connection: asyncpg.Connection) -> None:
        """Query until the connection fails; what was notified before an answer has come by then."""
        at_once = True
        while True:
            asked, silent = monotonic(), self.writers.found
            redis_up = self.shared is None or asked - self._redis < VALID_SECONDS
            async with self._querying:
                if redis_up:
                    all_announced = await self.writers.look(connection, at_once=at_once)
                else:  # the tier is invalid anyway
                    await connection.fetchval("SELECT 1")
            if not redis_up:
                self._database = 0.0  # until the next look
            elif not all_announced:
                self._database = self.valid_until = 0.0
                if self.shared is not None:
                    self.shared.pause()
            else:
                if silent:  # their last writes were not announced
                    self.on_message((EVERYTHING,), in_redis=True)
                self._database = asked
                self._extend()
            at_once = not redis_up
            with suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    await self._joined.wait()
                self._joined.clear()
                at_once = True
                await asyncio.sleep(JOINING_SECONDS)

    def _on_notify(self, _connection: object, pid: int, _channel: str, payload: object) -> None:
        text = str(payload)
        if text == JOINED:
            if self._connection is None or pid != self._connection.get_server_pid():
                self._database = self.valid_until = 0.0
                self._joined.set()
            return
        ours = text.startswith(INVALIDATE)
        tags = parse(text.removeprefix(INVALIDATE)) if ours else (EVERYTHING,)
        self.on_message(tags, in_redis=True)

    async def _listen_to_redis(self) -> None:
        await self._named.wait()
        shared = self.shared
        assert shared is not None  # noqa: S101 - `connections` has checked it
        channel = shared.channel
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                channels = (channel, PRESENCE + channel)
                self._hearing = await shared.connect(self._on_redis_message, channels)
            self.on_message((EVERYTHING,), in_redis=False)
            while shared.channel == channel:
                # At the start, after a command took too long, and after a pause.
                if not shared.up and not self.writers.found:
                    await shared.begin()
                await self._redis_heartbeat(self._hearing)
        except Exception as error:
            shared.fail(error)
            raise
        finally:
            self._hearing = None
            shared.disconnect()

    async def _redis_heartbeat(self, hearing: Multiplexed) -> None:
        """Announce this worker, wait for the answer, and then until the next heartbeat."""
        asked = monotonic()
        self._publish_presence()
        await hearing.call(("PING",))
        self._redis = asked
        if self._database:
            self._extend()
        else:
            self._joined.set()  # look now
        await hearing.sleep(asked + HEARTBEAT_SECONDS - monotonic())

    def _on_redis_message(self, channel: bytes, message: bytes) -> None:
        shared = self.shared
        assert shared is not None  # noqa: S101 - its channels are subscribed
        sender, _, text = message.decode(errors="replace").partition(":")
        if sender == shared.sender:
            return
        if channel.startswith(PRESENCE_BYTES):
            if self.writers.on_presence(sender, text):
                self._publish_presence()
        else:
            self.on_message(parse(text), in_redis=False)

    def _publish_presence(self) -> None:
        """Announce this worker; the next heartbeat does it again."""
        if self.shared is not None and self._hearing is not None:
            presence = f"{self.shared.sender}:{self.writers.presence()}"
            command = ("PUBLISH", PRESENCE + self.shared.channel, presence)
            self._hearing.send([command], lambda _: None)
