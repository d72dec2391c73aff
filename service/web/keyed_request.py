"""A request with an Idempotency-Key, as its handler sees it."""

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from starlette.types import Message

from service.cache.generations import Tags
from service.cache.writer import WriteTransaction
from service.db.database import Database
from service.db.idempotency import Answer, Keeper, keep_one
from service.db.writable import WritableDatabase
from service.errors import Conflict, Invalid
from service.http1.extensions import FULL_BODY
from service.web.codec import Header, Reply
from service.web.request import Request
from service.web.upload import Upload

Done = TypeVar("Done")

REPLAYED = (b"idempotency-replayed", b"true")


class KeyedRequest(Request):
    """A request with an Idempotency-Key, as its handler sees it.

    Its writes share one transaction, which also stores the answer. It is committed after the
    handler has returned, and rolled back if that raises an error. Reads after the first write run
    in the transaction too.
    """

    __slots__ = (
        "_complete",
        "_data",
        "_hash",
        "_keeper_made",
        "_name",
        "_replay",
        "_source",
        "_writes",
        "tried",
    )

    def __init__(
        self, request: Request, name: tuple[str, str], data: bytes | None, *, replay: bool
    ) -> None:
        self.scope = {**request.scope, "extensions": _without(request, FULL_BODY)}
        self.state = request.state
        self._query, self.headers, self.id = (None, None), request.headers, request.id
        self._source = request.receive
        self.receive = self._receive
        self._name, self._replay = name, replay
        self._writes: WriteTransaction | None = None
        self._keeper_made = False
        # Whether a write was tried, so that a look-up may find an answer that was not there before.
        self.tried = False
        self._data = data
        self._complete = False
        line = (self.scope["method"], self.path, "?")
        self._hash = hashlib.sha256(" ".join(line).encode("utf-8", "surrogateescape"))
        self._hash.update(self.scope["query_string"] + b"\n" + (data or b""))

    @property
    def db(self) -> Database:
        """Where statements run."""
        writes = self._writes
        if writes is not None and writes.transaction.begun:
            return writes.transaction
        return self.state["db"]

    def keeper(self, reply: Callable[[Any], Reply]) -> Keeper | None:
        """See Request."""
        if self._writes is not None:
            return None
        self._keeper_made = True
        return Keeper(*self._name, lambda done: self._answer(reply(done)))

    async def write(
        self, write: Callable[[WritableDatabase], Awaitable[Done]], tags: Callable[[Done], Tags]
    ) -> Done:
        """Run a write in the transaction of the request; see Request.write."""
        self.tried = True
        if self._keeper_made:  # it stores the answer in a transaction of its own
            return await self.state["writer"].run(write, tags)
        if self._writes is None:
            self._writes = WriteTransaction(self.state["writer"], self.state["db"])
        return await self._writes.run(write, tags)

    async def read(self) -> bytes:
        """See Request."""
        return await super().read() if self._data is None else self._data

    async def answer(self, handler: Callable[[Request], Awaitable[Reply]]) -> Reply:
        """Run the handler, and store its answer if that is 2xx.

        Raises:
            KeyTaken, KeyLocked: another request with the key was first; nothing was written.
            Problem: what the handler raised; nothing was written, unless it is OutcomeUnknown.
        """
        try:
            reply = await handler(self)
            if self._keeper_made:
                return reply
            if 200 <= reply.status < 300:
                await self._read_rest()
                answer = self._answer(reply)
                await self.write(lambda db: keep_one(db, answer), lambda _: ())
            if self._writes is not None:
                await self._writes.commit()
        finally:
            if self._writes is not None:
                await self._writes.close()
        return reply

    async def show(self, answer: Answer) -> Reply:
        """Return the stored answer.

        Raises:
            Invalid: it is the answer to another request.
            Conflict: it is not shown again.
        """
        await self._read_rest()
        if answer.fingerprint != self._hash.digest():
            raise Invalid(
                "this Idempotency-Key was used for another request: use a new key for each request"
            )
        content_type, cache_control, *headers = _headers(answer.headers)
        if answer.body is None:
            places = [pair for pair in headers if pair[0] == b"location"]
            where = "".join(f": see {value.decode('latin-1')}" for _, value in places)
            raise Conflict(
                f"the request was done, and its answer is not shown again{where}",
                headers=tuple(places),
            )
        return Reply(
            answer.body,
            answer.status,
            (*headers, REPLAYED),
            content_type=content_type[1],
            cache_control=cache_control[1],
        )

    def _answer(self, reply: Reply) -> Answer:
        headers = (
            (b"content-type", reply.content_type),
            (b"cache-control", reply.cache_control),
            *reply.headers,
        )
        shown = self._replay and reply.chunks is None
        return Answer(
            *self._name,
            fingerprint=self._hash.digest(),
            status=reply.status,
            headers=b"\r\n".join(b"%b: %b" % pair for pair in headers),
            body=reply.body if shown else None,
        )

    async def _receive(self) -> Message:
        if self._data is not None and not self._complete:
            self._complete = True
            return {"type": "http.request", "body": self._data, "more_body": False}
        message = await self._source()
        if message["type"] == "http.request" and self._data is None:
            self._hash.update(message.get("body", b""))
            self._complete = not message.get("more_body", False)
        return message

    async def _read_rest(self) -> None:
        """Read what is left of a streamed body: the fingerprint is of the whole."""
        if self._data is not None or self._complete:
            return
        async with Upload(self, self.state["settings"].import_limit) as body:
            await body.run(_discard(body))


def _without(request: Request, extension: str) -> dict[str, Any]:
    extensions: dict[str, Any] = request.scope.get("extensions") or {}
    return {name: value for name, value in extensions.items() if name != extension}


def _headers(lines: bytes) -> list[Header]:
    pairs = (line.partition(b": ") for line in lines.split(b"\r\n"))
    return [(name, value) for name, _, value in pairs]


async def _discard(body: Upload) -> None:
    async for _ in body.parts():
        pass
