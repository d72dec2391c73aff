"""Idempotency-Key: a POST that is sent again gets the answer to the first one."""

import asyncio
import random
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress

from service.cache.writer import Writer
from service.db.idempotency import (
    REMOVE,
    REMOVED_AT_ONCE,
    Answer,
    KeyLocked,
    KeyTaken,
    find,
)
from service.errors import Conflict, Malformed, OutcomeUnknown, Problem, TimedOut
from service.web.codec import Reply
from service.web.keyed_request import KeyedRequest
from service.web.openapi_texts import LONGEST
from service.web.request import Request

Handler = Callable[[Request], Awaitable[Reply]]

HEADER = b"idempotency-key"
# Seconds between two removals of expired keys, in each worker.
REMOVAL_SECONDS = 600.0

_KEY = re.compile(rb"[!-~]{1,%d}" % LONGEST)
# A string of RFC 8941, 3.3.3.
_STRING = re.compile(rb'"((?:[ !#-\[\]-~]|\\["\\])*)"')
_ESCAPED = re.compile(rb"\\(.)")


def once_per_key(handler: Handler, *, streams: bool, replay: bool) -> Handler:
    """Return a handler that runs `handler` once for each Idempotency-Key of a principal.

    A request without the header is passed on as it is.

    Args:
        handler: of a POST.
        streams: whether it reads the body as a stream, which may be large.
        replay: whether the stored answer may be shown again.
    """

    def choose(request: Request) -> Awaitable[Reply]:
        value = request.header(HEADER)
        if value is None:
            return handler(request)
        return _once(request, handler, value, streams=streams, replay=replay)

    return choose


def key_of(value: bytes) -> str:
    """Return the key in a header; a quoted string counts as its content.

    Raises:
        Malformed: it is not 1 to 255 visible ASCII characters.
    """
    key = value
    if value[:1] == b'"':
        string = _STRING.fullmatch(value)
        key = b"" if string is None else _ESCAPED.sub(rb"\1", string[1])
    if not _KEY.fullmatch(key):
        raise Malformed(
            f"Idempotency-Key must be 1 to {LONGEST} visible ASCII characters, given once"
        )
    return key.decode("ascii")


async def remove_expired_keys(writer: Writer) -> None:
    """Remove expired keys now and then, without an end; a database that is away is asked later."""
    while True:
        await asyncio.sleep(REMOVAL_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311 - spreads workers
        with suppress(Problem):
            await remove_all_expired(writer)


async def remove_all_expired(writer: Writer) -> int:
    """Remove expired keys until there are none; return how many there were.

    Fewer at once if that takes longer than a statement may: 1,000 answers to a bulk POST have a
    gigabyte.

    Raises:
        Problem: the database is not available.
    """
    at_once, removed = REMOVED_AT_ONCE, 0
    while True:
        try:
            some = await remove_some_keys(writer, at_once)
        except TimedOut:
            if at_once == 1:
                raise
            at_once //= 10
            continue
        removed += some
        if some < at_once:
            return removed


async def remove_some_keys(writer: Writer, at_once: int = REMOVED_AT_ONCE) -> int:
    """Remove up to `at_once` expired keys; return how many there were."""
    return await writer.run(lambda db: REMOVE.only(db, at_once), lambda _: ())


async def _once(
    request: Request, handler: Handler, value: bytes, *, streams: bool, replay: bool
) -> Reply:
    principal = request.principal
    name = ("" if principal is None else str(principal.user_id), key_of(value))
    data = None if streams else await request.read()
    running = request.state["running_keys"]
    if name in running:
        if streams:
            await request.drain(more=request.header(b"expect") is None)
        raise _still_running()
    running.add(name)
    try:
        keyed = KeyedRequest(request, name, data, replay=replay)
        found = await find(request.db, *name)
        if found is not None:
            return await keyed.show(found)
        try:
            return await keyed.answer(handler)
        except Problem as problem:
            found = await _found_now(keyed, name)
            if found is None:
                raise _refusal(problem) from problem
        return await keyed.show(found)
    finally:
        running.discard(name)


async def _found_now(keyed: KeyedRequest, name: tuple[str, str]) -> Answer | None:
    """Return what another request with the key has stored, or this one if its outcome is unknown.

    So a repeated request is never told that a value is taken, by the row that it made itself.
    """
    if not keyed.tried:
        return None
    try:
        return await find(keyed.state["db"], *name)
    except Problem:
        return None


def _refusal(problem: Problem) -> Problem:
    if isinstance(problem, KeyTaken | KeyLocked):
        return _still_running()
    if isinstance(problem, OutcomeUnknown):
        return OutcomeUnknown(
            "the connection was lost: outcome unknown; send the request again with the same"
            " Idempotency-Key, which is safe"
        )
    return problem


def _still_running() -> Conflict:
    return Conflict(
        "the first request with this Idempotency-Key still runs: try again in a second",
        headers=((b"retry-after", b"1"),),
    )
