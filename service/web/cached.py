"""A GET whose responses are cached: how they are found, and what they may depend on."""

import re
from collections.abc import Callable
from time import perf_counter
from typing import Any, NoReturn

from starlette.types import Message, Scope

from service.cache.cache import Cache
from service.cache.entry import CachedResponse, EncodedBody, Entry
from service.cache.generations import Tags
from service.cache.local import CachedBodies
from service.cache.off import NoCache
from service.errors import NotFound, Problem
from service.logs import logger
from service.web import compress
from service.web.codec import JSON, PRIVATE, Reply
from service.web.conditional import not_modified
from service.web.request import (
    PRINCIPAL,
    SEND_PREBUILT,
    VISIBLE,
    Handler,
    Request,
    new_id,
)

# X-Cache of a GET that may be cached: where its response came from.
HIT, MISS, BYPASS = ((b"x-cache", word) for word in (b"HIT", b"MISS", b"BYPASS"))

# Characters of a key. A longer query is unlikely to be asked for twice.
LONGEST = 2000
_CONDITIONS = frozenset({b"cache-control", b"if-match", b"if-none-match"})
_FRESH = re.compile(rb"(?:^|[\s,])no-(?:cache|store)(?:[\s,=]|$)", re.IGNORECASE)

access = logger.getChild("access")

# What a response is kept under, and so all that it may depend on, beside the database: the
# principal, the prefix of all paths, the query, the path.
Key = tuple[str, str, bytes, str]


def key_of(scope: Scope) -> Key:
    """The key of a request.

    All of the query is in it, so a query that is refused is never answered from the cache.
    """
    return (scope.get(PRINCIPAL, ""), scope["root_path"], scope["query_string"], scope["path"])


def name_of(key: Key) -> str:
    """The key in Redis. The path comes last, since only it may hold a line break."""
    principal, root, query, path = key
    return f"{principal}\n{root}\n{query.decode('latin-1')}\n{path}"


class CachedRequest(Request):
    """What the handler of a cached GET sees of a request: what is in the key, and no more.

    A response that depended on a header, say, would be shown to clients that sent another one.
    Reading anything else is an error of the handler, and raises at once. Preconditions, ranges of
    encodings and Cache-Control are handled outside, see `cacheable`.
    """

    __slots__ = ()

    def __init__(self, request: Request) -> None:
        scope = request.scope
        self.state = request.state
        self.receive = self._receive
        self.scope = _KeyScope(
            type="http",
            method="GET",
            path=scope["path"],
            query_string=scope["query_string"],
            root_path=scope["root_path"],
            path_params=scope.get("path_params", {}),
            state=request.state,
        )
        self.scope[PRINCIPAL] = request.principal
        self._query = (None, None)
        self._headers = {}

    @property
    def id(self) -> str:  # type: ignore[override]  # a slot there; here reading it is an error
        """Not in the key."""
        _not_in_key("the request's id")

    def header(self, name: bytes) -> NoReturn:
        """Not in the key."""
        _not_in_key(f"the header {name.decode('latin-1')!r}")

    async def _receive(self) -> Message:
        _not_in_key("the body")


class _KeyScope(dict[str, Any]):
    def __missing__(self, name: str) -> NoReturn:
        _not_in_key(f"scope[{name!r}]")


def _not_in_key(what: str) -> NoReturn:
    raise RuntimeError(
        f"a cached operation can't read {what}: it is not part of the cache key. Read it in an"
        " operation without cache_tags, or make it a query parameter"
    )


def send_hit(scope: Scope, started: float) -> bool:
    """Send a hit in the short way, and return whether that was possible.

    Only for the plain case, a GET without conditions, and only where the server offers to send
    what is ready: a third of the CPU of the long way, which answers the same.
    """
    ready = scope["extensions"].get(SEND_PREBUILT) if "extensions" in scope else None
    cache = scope["state"]["cache"]
    if ready is None or not cache.on or scope["method"] != "GET" or access.isEnabledFor(20):
        return False
    entry = cache.entry(key_of(scope), renews=False)
    if entry is None or entry.answer.missing is not None:
        return False
    request_id = None
    for name, value in scope["headers"]:
        if name in _CONDITIONS:
            return False
        if name == b"x-request-id":  # two are no id
            request_id = value.strip(b" \t") if request_id is None else b""
    form: Entry | EncodedBody = entry
    body, encoding = entry.answer.body, None
    if len(body) >= compress.LEAST:
        encoding = compress.negotiate(scope["headers"])
        if encoding is not None:
            if entry.variants is None or encoding not in entry.variants:
                return False  # the long way makes it, and keeps it
            variant = entry.variants[encoding]
            form, body = variant, variant.body
    if request_id is None or not VISIBLE.fullmatch(request_id):
        request_id = new_id().encode()
    lines = form.lines
    if lines is None:
        lines = form.lines = _lines(entry.answer, body, encoding)
    took = perf_counter() - started
    sent: bool = ready(lines % (request_id, took, took * 1000), body)
    return sent


def _lines(answer: CachedResponse, body: bytes, encoding: bytes | None) -> bytes:
    """The header lines of a hit; open are the request's id, and the time it took in s and ms."""
    headers = answer.headers
    if len(answer.body) >= compress.LEAST and compress.is_compressible(JSON, headers):
        headers = compress.add_vary(headers, encoding)
    pairs = [
        *headers,
        HIT,
        (b"cache-control", PRIVATE),
        (b"content-type", JSON),
        (b"content-length", b"%d" % len(body)),
    ]
    if encoding is not None:
        pairs.append((b"content-encoding", encoding))
    head = b"\r\n".join(b": ".join(pair) for pair in pairs).replace(b"%", b"%%")
    return (
        b"x-request-id: %b\r\nx-process-time: %.6f\r\n"
        b'server-timing: db;dur=0.000;desc="0 statements", total;dur=%.3f\r\n' + head
    )


def cacheable(
    load: Handler,
    cache_tags: Callable[[Request], Tags],
    share: Callable[[Request], bool] | None,
) -> Handler:
    """The handler of a GET behind the cache, and behind its preconditions.

    Args:
        load: makes the response, from a CachedRequest.
        cache_tags: what the response depends on.
        share: whether it is worth a question to Redis.
    """

    async def handler(request: Request) -> Reply:
        cache = request.state["cache"]
        control = request.header(b"cache-control")
        fresh = control is not None and _FRESH.search(control)
        key = key_of(request.scope)
        name = name_of(key)
        asked = CachedRequest(request)
        if isinstance(cache, NoCache) or fresh or len(name) > LONGEST:
            answer, came = await read(asked), BYPASS
        else:
            entry = cache.entry(key)
            if entry is not None:
                answer, came = entry.answer, HIT
            else:
                shared = share is not None and share(asked)
                answer, found = await cache.get_or_load(
                    key, name, cache_tags(asked), lambda: read(asked), share=shared
                )
                came = HIT if found else MISS
        if answer.missing is not None:
            raise NotFound(answer.missing, headers=(came,))
        headers = (*answer.headers, came)
        kept = None
        if isinstance(cache, Cache) and len(answer.body) >= compress.LEAST:
            kept = CachedBodies(cache.local, key, answer)
        if answer.version is not None:
            try:
                if not_modified(request, answer.version):
                    return Reply(answer.body, 304, headers)
            except Problem as problem:
                problem.headers = (*problem.headers, came)
                raise
        return Reply(answer.body, headers=headers, kept=kept)

    async def read(request: CachedRequest) -> CachedResponse:
        try:
            reply = await load(request)
        except NotFound as problem:
            return CachedResponse(b"", (), missing=problem.detail)
        return CachedResponse(reply.body, reply.headers, reply.version)

    return handler
