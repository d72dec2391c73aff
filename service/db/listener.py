"""One connection on which a worker listens, for everything that is announced by NOTIFY."""

import asyncio
from collections.abc import Callable

import asyncpg

from service.db.access import CONNECTING
from service.db.names import HEARER
from service.logs import logger

Callback = Callable[[], None]
# Between two attempts to connect; and how often the connection is tried, so that a peer that is
# gone without a word is noticed.
RETRY_SECONDS, CHECK_SECONDS, ANSWER_SECONDS = 1.0, 10.0, 5.0
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
        self._connection: asyncpg.Connection | None = None

    async def listen(self, channel: str, callback: Callback) -> None:
        """Call `callback` from now on; the first call connects."""
        self._callbacks.setdefault(channel, []).append(callback)
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        elif self._connection is not None:
            self._connection.terminate()  # it connects again, and listens to this one too

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
            await asyncio.sleep(RETRY_SECONDS if self._connection is None else 0)
            self._connection = None

    async def _connected(self) -> None:
        connection = await asyncpg.connect(
            self.url,
            timeout=ANSWER_SECONDS,
            command_timeout=ANSWER_SECONDS,
            server_settings={"application_name": HEARER},
        )
        try:
            for channel in list(self._callbacks):
                await connection.add_listener(channel, self._on_notify)
            self._connection = connection
            for callbacks in self._callbacks.values():
                for callback in callbacks:
                    callback()
            while not connection.is_closed():
                await connection.fetchval("SELECT 1")
                await asyncio.sleep(CHECK_SECONDS)
        finally:
            connection.terminate()

    def _on_notify(self, _connection: object, _pid: int, channel: str, _payload: object) -> None:
        for callback in self._callbacks.get(channel, ()):
            callback()
