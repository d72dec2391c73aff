"""A GET whose responses are cached: how they are found, and what they may depend on."""

import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NoReturn

from starlette.types import Scope

from service.cache.generations import Tags
from service.cache.response import CachedResponse
from service.cache.store import Cache
from service.db.batcher import Batcher, Waiter
from service.db.database import Database
from service.errors import NotFound, Problem
from service.web import compress
from service.web.codec import Header, Query, Reply
from service.web.conditional import not_modified
from service.web.principal import owner_of
from service.web.request import VIEWER, Request, Value

# X-Cache of a GET that may be cached: where its response came from.
HIT, MISS, BYPASS = ((b"x-cache", word) for word in (b"HIT", b"MISS", b"BYPASS"))

# Characters of a key. A longer query is unlikely to be asked for twice.
LONGEST = 2000
_FRESH = re.compile(rb"(?:^|[\s,])no-(?:cache|store)(?:[\s,=]|$)", re.IGNORECASE)

# What a response is kept under, and so all that it may depend on, beside the database: the
# viewer, the prefix of all paths, the query, the path; the path alone where the others are empty,
# since a tuple for each row takes more time and memory.
Key = tuple[str, str, bytes, str] | str


def key_of(scope: Scope) -> Key:
    """The key of a request.

    All of the query is in it, so a query that is refused is never answered from the cache.
    """
    return key(scope.get(VIEWER, ""), scope["root_path"], scope["query_string"], scope["path"])


def key(viewer: str, root: str, query: bytes, path: str) -> Key:
    """The key of a request with these parts."""
    return (viewer, root, query, path) if viewer or query or root else path


def asks_fresh(cache_control: bytes) -> bool:
    """Whether a request's Cache-Control says that no cache may answer it."""
    return _FRESH.search(cache_control) is not None


def name_of(key: Key) -> str:
    """The key in Redis. The path comes last, since only it may hold a line break."""
    viewer, root, query, path = ("", "", b"", key) if isinstance(key, str) else key
    return f"{viewer}\n{root}\n{query.decode('latin-1')}\n{path}"


class CachedRequest(Request):
    """A request as the handler of a cached GET sees it: with what is in the key, and no more.

    If a response depended on a header, clients that sent another value would get it too. So reading
    anything else raises RuntimeError. Preconditions, encodings, Cache-Control and the request's id
    are handled outside, see `cacheable`.
    """

    __slots__ = ("_request",)

    def __init__(self, request: Request) -> None:
        self._request = request
        self.state = request.state

    @property
    def has_query(self) -> bool:
        """As Request.has_query."""
        return bool(self._request.scope["query_string"])

    def row_id(self) -> int:
        """As Request.row_id."""
        return self._request.row_id()

    def query(self, query: Query[Value]) -> Value:
        """As Request.query."""
        return self._request.query(query)

    @property
    def principal(self) -> NoReturn:
        """Not in the key; `owner` is."""
        _not_in_key("the principal")

    @property
    def owner(self) -> int | None:
        """As Request.owner, if the operation is private; else None: everyone sees the same."""
        return owner_of(self._request.scope.get(VIEWER, ""))

    @property
    def root(self) -> str:
        """As Request.root."""
        return self._request.root

    @property
    def path(self) -> str:
        """As Request.path."""
        return self._request.path

    @property
    def url_path(self) -> str:
        """As Request.url_path."""
        return self._request.url_path

    @property
    def scope(self) -> Scope:  # type: ignore[override]  # a slot there; here it is made when read
        """What of the scope is in the key."""
        whole = self._request.scope
        return _KeyScope({name: whole[name] for name in _IN_KEY if name in whole}, method="GET")

    @property
    def receive(self) -> NoReturn:  # type: ignore[override]  # as `id`
        """Not in the key."""
        _not_in_key("the body")

    @property
    def id(self) -> str:  # type: ignore[override]  # a slot there; here reading it is an error
        """Not in the key."""
        _not_in_key("the request's id")

    def header(self, name: bytes) -> NoReturn:
        """Not in the key."""
        _not_in_key(f"the header {name.decode('latin-1')!r}")


# The items of a scope that are in the key, or the same for every request of a process.
_IN_KEY = ("type", "path", "query_string", "root_path", "path_params", "state", VIEWER)


class _KeyScope(dict[str, Any]):
    def __missing__(self, name: str) -> NoReturn:
        _not_in_key(f"scope[{name!r}]")


def _not_in_key(what: str) -> NoReturn:
    raise RuntimeError(
        f"a cached operation can't read {what}: it is not part of the cache key. Read it in an"
        " operation without cache_tags, or make it a query parameter"
    )


class Loads:
    """Makes the responses of a cached operation; concurrent equal requests share one.

    A request never joins a load that has begun, so it sees all writes before it.

    Args:
        name: of the operation, for metrics.
        load: makes the response, from a CachedRequest.
    """

    def __init__(self, name: str, load: Callable[[Request], Awaitable[Reply]]) -> None:
        self.name = name
        self.load = load

    async def get(self, request: Request) -> CachedResponse:
        """The response to a request, as it would be kept."""
        db = request.db
        if not db.batching:
            return await self._run_one(db, request)
        made: CachedResponse = await self._batcher(db, key_of(request.scope)).run(db, None, request)
        return made

    def submit(self, db: Database, key: Key, waiter: Waiter) -> None:
        """Let a waiter take a CachedResponse; it has a method `request`. See Batcher.submit."""
        self._batcher(db, key).submit(db, waiter)

    def _batcher(self, db: Database, key: Key) -> Batcher:
        place = (self, key)
        found: Batcher | None = db.batchers.get(place)
        if found is None:
            found = db.batchers[place] = Batcher(
                self.name,
                self._run_one,
                self._run_batch,
                ordered=False,
                max_batch=db.queue_limit,
                in_flight=1,
                unqueued=1,
                when_idle=lambda db: db.batchers.pop(place, None),
            )
        return found

    async def _run_one(self, _: Database, request: Request) -> CachedResponse:
        try:
            reply = await self.load(CachedRequest(request))
        except NotFound as problem:
            return CachedResponse(b"", missing=problem.detail)
        return CachedResponse(reply.body, tuple(reply.headers), reply.version)

    async def _run_batch(self, db: Database, batch: list[Waiter]) -> None:
        try:
            first: Any = batch[0]
            made = await self._run_one(db, first.args or first.request())
        except Problem as problem:
            for waiter in batch:
                waiter.refuse(problem)
            return
        for waiter in batch:
            waiter.answer(made)


def cacheable(
    loads: Loads,
    cache_tags: Callable[[Request], Tags],
    share: Callable[[Request], bool] | None,
) -> Callable[[Request], Awaitable[Reply]]:
    """The handler of a GET behind the cache, and behind its preconditions.

    Args:
        loads: makes the responses.
        cache_tags: what the response depends on.
        share: whether to look in Redis too.
    """

    async def handler(request: Request) -> Reply:
        cache = request.state["cache"]
        control = request.header(b"cache-control")
        fresh = control is not None and asks_fresh(control)
        if not isinstance(cache, Cache) or fresh:
            return reply_to(request, await loads.get(request), BYPASS)
        key = key_of(request.scope)
        response = cache.find(key)
        if response is not None:
            cache.local.hits += 1
            return reply_to(request, response, HIT, cache)
        asked, name = CachedRequest(request), name_of(key)
        if len(name) > LONGEST:
            return reply_to(request, await loads.get(request), BYPASS)
        shared = share is not None and share(asked)
        response, found = await cache.get_or_load(
            key, name, cache_tags(asked), lambda: loads.get(request), share=shared
        )
        return reply_to(request, response, HIT if found else MISS, cache)

    return handler


def reply_to(
    request: Request, response: CachedResponse, came: Header, cache: Cache | None = None
) -> Reply:
    """The response as this request gets it, under its preconditions.

    Args:
        request: has the preconditions.
        response: what was found or made.
        came: its X-Cache.
        cache: where its encoded bodies are kept.

    Raises:
        NotFound: the response is a 404.
        Stale: If-Match does not name its version.
    """
    if response.missing is not None:
        raise NotFound(response.missing, headers=(came,))
    headers = (*response.headers, came)
    if response.version is not None:
        try:
            if not_modified(request, response.version):
                return Reply(response.body, 304, headers)
        except Problem as problem:
            problem.headers = (*problem.headers, came)
            raise
    if cache is None or len(response.body) < compress.LEAST:
        return Reply(response.body, headers=headers)
    keep = partial(cache.local.keep_encoded, response)
    return Reply(response.body, headers=headers, encoded=response.encoded, keep=keep)
