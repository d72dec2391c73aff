"""A client of server-sent events on a socket of its own, for tests and the fault run."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

SECONDS = 30.0


class Event(NamedTuple):
    """One event; `data` is None for one that only moves the position."""

    id: int
    kind: str
    data: Any


class Stream:
    """The events of one response."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.status = 0
        self.headers: dict[str, str] = {}
        self._text = b""

    async def begin(self, target: str, headers: Mapping[str, str]) -> None:
        lines = [f"GET {target} HTTP/1.1", "Host: test", "Accept: text/event-stream"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.writer.write("\r\n".join([*lines, "", ""]).encode())
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        self.status = int(head[0].split()[1])
        self.headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)

    async def next(self, seconds: float = SECONDS) -> Event | None:
        """The next event; None at the end of the response."""
        async with asyncio.timeout(seconds):
            while b"\n\n" not in self._text:
                try:
                    size = int(await self.reader.readuntil(b"\r\n"), 16)
                    chunk = await self.reader.readexactly(size + 2)
                except (asyncio.IncompleteReadError, ConnectionError):
                    return None
                if not size:
                    return None
                self._text += chunk[:-2]
        one, _, self._text = self._text.partition(b"\n\n")
        fields = dict(line.split(": ", 1) for line in one.decode().split("\n"))
        data = json.loads(fields["data"]) if "data" in fields else None
        return Event(int(fields["id"]), fields.get("event", ""), data)

    async def change(self) -> Event:
        """The next event with data."""
        while (event := await self.next()) is not None:
            if event.data is not None:
                return event
        raise AssertionError("the stream has ended")

    async def end(self) -> None:
        """Read until the response ends."""
        while await self.next() is not None:
            pass

    def close(self) -> None:
        self.writer.transport.abort()


@asynccontextmanager
async def stream(url: str, target: str, **headers: str) -> AsyncIterator[Stream]:
    """Open a stream; `_` in the name of a header is `-`."""
    where = urlsplit(url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port, limit=1 << 20)
    one = Stream(reader, writer)
    try:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        await one.begin(target, given)
        yield one
    finally:
        one.close()
