"""One connection on which a worker hears, and sends, everything that is announced by NOTIFY."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import asyncpg

from service.db.access import CONNECTING
from service.db.names import HEARER
from service.logs import logger

Callback = Callable[[], None]
# Between two attempts to connect; and how often the connection is tried, so that a peer that is
# gone without a word is noticed.
RETRY_SECONDS, CHECK_SECONDS, ANSWER_SECONDS = 1.0, 10.0, 5.0
# Notifications of a channel within this time are one. So a busy worker sends at most 40 a second,
# which costs it 1 % of its time.
GAP_SECONDS = 0.025
TELL = "SELECT count(pg_notify(channel, '')) FROM unnest($1::text[]) AS channel"
FAILURES = (*CONNECTING, asyncpg.PostgresError, asyncpg.InternalClientError, TimeoutError)


class Listener:
    """Calls a function for each notification of a channel, and after each new connection.

    Notifications may be lost while there is no connection, so a callback only says that there may
    be something to read.

    Args:
        url: the database.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._callbacks: dict[str, list[Callback]] = {}
        self._task: asyncio.Task[None] | None = None
        self._established = False
        self._told: set[str] = set()
        self._wake = asyncio.Event()

    def tell(self, channel: str) -> None:
        """Notify all workers soon; for what was written and committed.

        A NOTIFY in the transaction would cost more: it makes all commits of the server wait for
        each other, also while they write to disk.
        """
        self._told.add(channel)
        self._wake.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def listen(self, channel: str, callback: Callback) -> None:
        """Call `callback` from now on, and after each new connection; the first call connects."""
        self._callbacks.setdefault(channel, []).append(callback)
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        self._wake.set()

    async def close(self) -> None:
        """Stop to listen."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        while True:
            try:
                await self._connected()
            except FAILURES:
                pass
            except Exception:  # noqa: BLE001 - without a retry it never comes back
                logger.exception("the connection that listens failed")
            await asyncio.sleep(0 if self._established else RETRY_SECONDS)
            self._established = False

    async def _connected(self) -> None:
        connection = await asyncpg.connect(
            self.url,
            timeout=ANSWER_SECONDS,
            command_timeout=ANSWER_SECONDS,
            server_settings={"application_name": HEARER},
        )
        connection.add_termination_listener(lambda _: self._wake.set())
        heard: set[str] = set()
        try:
            while not connection.is_closed():
                self._wake.clear()
                for channel in self._callbacks.keys() - heard:
                    await connection.add_listener(channel, self._on_notify)
                    heard.add(channel)
                    self._on_notify(None, 0, channel, None)
                await self._tell(connection)
                self._established = True
                await asyncio.sleep(GAP_SECONDS)
                with suppress(TimeoutError):
                    async with asyncio.timeout(CHECK_SECONDS):
                        await self._wake.wait()
        finally:
            connection.terminate()

    async def _tell(self, connection: asyncpg.Connection) -> None:
        told, self._told = self._told, set()
        try:
            await connection.fetchval(TELL, list(told))
        except BaseException:
            self._told |= told
            raise

    def _on_notify(self, _connection: object, _pid: int, channel: str, _payload: object) -> None:
        for callback in self._callbacks.get(channel, ()):
            callback()
