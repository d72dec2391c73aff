"""Lists by page and by cursor: find the rows, build the response and its Link header."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from operator import attrgetter
from typing import Annotated, Any, Generic, Literal, Protocol, TypeVar, get_args, get_type_hints
from urllib.parse import parse_qsl, urlencode

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, structs

from service.db.adaptive import Total
from service.db.batch import single_flight
from service.db.keyset import Listing
from service.errors import FieldError, Invalid
from service.slices import next_slice
from service.web.codec import Header, Reply, encode
from service.web.request import Request
from service.web.times import encode_rows

Row = TypeVar("Row", bound=Struct)

# Characters of a string; a page with a longer one is encoded row by row.
LONG = 10_000
# An offset of so many rows takes 0.9 ms of CPU; a Redis hit takes 0.1 ms, a miss twice that.
FAR = 10_000

Count = Annotated[int, Meta(examples=[1])]

# Encodes what a cursor is bound to; types of an application, such as prices, as their text.
_binding = msgspec.msgpack.Encoder(enc_hook=str).encode


class Page(Struct, Generic[Row], frozen=True):
    """A page by number; `total` and `pages` are null with `total=none`."""

    items: list[Row]
    total: Count | None
    page: Count
    per_page: Annotated[int, Meta(examples=[10])]
    pages: Count | None
    next_cursor: str | None


class CursorPage(Struct, Generic[Row], frozen=True):
    """A page by cursor; `total` only on request, `next_cursor` null at the end."""

    items: list[Row]
    next_cursor: str | None
    total: int | UnsetType = UNSET


class ListQuery(Protocol):
    """The parameters of every list, besides its filters."""

    @property
    def page(self) -> int | UnsetType: ...
    @property
    def per_page(self) -> int: ...
    @property
    def sort(self) -> str: ...
    @property
    def total(self) -> Literal["exact", "estimated", "none"] | UnsetType: ...
    @property
    def cursor(self) -> str | UnsetType: ...


async def find(
    request: Request, listing: Listing[Row], query: ListQuery, *, limited: bool = True
) -> Page[Row] | CursorPage[Row]:
    """Return the requested page, with one statement. Concurrent equal requests share it.

    `limited` says whether a private list is limited to the rows of Request.owner; say False if the
    filters do that.

    Raises:
        Invalid: `cursor` together with `page`, or a cursor of another list.
    """
    by_cursor = isinstance(query.cursor, str)
    number = query.page if isinstance(query.page, int) else 1
    total: Total = ("none" if by_cursor else "exact") if query.total is UNSET else query.total
    owner = request.owner if limited and listing.own is not None else None
    chosen, values = listing.choose(query, owner)
    binding = _binding((listing.name, query.sort, chosen, values))
    values["limit"] = query.per_page + 1  # one more tells whether there is more
    if isinstance(query.cursor, str):
        if query.page is not UNSET:
            both = "page and cursor exclude each other"
            raise Invalid(both, FieldError("cursor", both))
        statement = listing.after(query.sort, chosen, total, start=not query.cursor)
        if query.cursor:
            kind = _kind(listing, query.sort)
            *key, values["last_id"] = request.state["cursors"].read(query.cursor, kind, binding)
            values["last_key"] = key[0] if key else None
    else:
        values["offset"] = offset = (number - 1) * query.per_page
        statement = listing.page(query.sort, chosen, total, first=not offset)

    def page(records: list[Any]) -> Page[Row] | CursorPage[Row]:
        counted: int | None = records[0]["total"] if total != "none" else None
        if records and records[0]["id"] is None:  # no rows: one record with the total only
            records = []
        shown = records[: query.per_page]
        rows = [statement.row(*record[: statement.width]) for record in shown]
        following = None
        if len(records) > len(shown):
            last = shown[-1]
            key = [] if _by_id(query.sort) else [last["sort_key"]]
            following = request.state["cursors"].write((*key, last["id"]), binding)
        if by_cursor:
            return CursorPage(rows, following, UNSET if counted is None else counted)
        if counted is not None and records:  # an estimate may be less than the rows of this page
            counted = max(counted, offset + len(records))
        pages = None if counted is None else -(-counted // query.per_page)
        return Page(rows, counted, number, query.per_page, pages, following)

    return await single_flight(request.db, statement, values, page, binding)


def share(query: ListQuery, counted: Iterable[str]) -> bool:
    """Return whether PostgreSQL must read many rows for a list: to count them, or to skip them.

    `counted` names the filters that need a count. Other lists cost less than a request to Redis;
    `python -m bench trials list-cost` measures it.
    """
    far = isinstance(query.page, int) and query.page * query.per_page >= FAR
    return far or any(getattr(query, name) is not UNSET for name in counted)


async def show(request: Request, found: Page[Row] | CursorPage[Row]) -> Reply:
    """Return the page as JSON, with a Link header to its neighbours."""
    if isinstance(found, Page):
        links = _neighbours(found)
    else:
        links = {"next": {"cursor": found.next_cursor}} if found.next_cursor else {}
    return Reply(await _body(found), headers=_link(request, links))


# The last encoded page and its JSON: requests that share a page come directly after each other.
_encoded: tuple[object, bytes] = (None, b"")


async def _body(found: Page[Row] | CursorPage[Row]) -> bytes:
    global _encoded  # noqa: PLW0603 - one place for all requests is its point
    page, body = _encoded
    if page is found:
        return body
    if is_long(found.items):
        return await _encode_long(found)
    body = encode_rows(found, found.items)
    _encoded = (found, body)
    return body


def is_long(rows: Sequence[Any]) -> bool:
    """Return whether a row has a long string: 2 us for ten rows; a generator takes 4 us.

    A row that is encoded already counts as a string.
    """
    if not rows:
        return False
    if isinstance(rows[0], msgspec.Raw):
        return any(len(row) > LONG for row in rows)
    row_type: type[Struct] = type(rows[0])
    texts = _texts(row_type)
    for row in rows:
        for text in texts(row):
            if text is not None and len(text) > LONG:
                return True
    return False


@cache
def _texts(row: type[Struct]) -> Callable[[Any], Iterable[str | None]]:
    """Return a getter of the strings of a row."""
    hints = get_type_hints(row)
    names = [name for name, kind in hints.items() if str in (kind, *get_args(kind))]
    if not names:
        return lambda _: ()
    return attrgetter(names[0], *names)  # the first twice, so that the result is a tuple


async def _encode_long(found: Page[Row] | CursorPage[Row]) -> bytes:
    """Encode a page row by row: a hundred rows may have a hundred megabytes."""
    parts = []
    for row in found.items:
        await next_slice()
        parts.append(encode_rows(row, (row,)))
    frame = encode(structs.replace(found, items=[]))
    begin, end = frame.split(b"[]", 1)
    between = [b","] * (2 * len(parts) - 1)
    between[::2] = parts
    # In a thread: a long join releases the GIL while it copies.
    return await asyncio.to_thread(b"".join, [begin, b"[", *between, b"]", end])


def _by_id(sort: str) -> bool:
    return sort.lstrip("-") == "id"


def _kind(listing: Listing[Any], sort: str) -> Any:
    """Return the type of a cursor's values: sort key and id, or the id alone if it is the key."""
    if _by_id(sort):
        return tuple[int]
    key: Any = listing.orders[sort].key.type.python_type
    return tuple[key, int]


def _neighbours(found: Page[Any]) -> dict[str, dict[str, object]]:
    links: dict[str, dict[str, object]] = {"first": {"page": 1}}
    if found.page > 1:
        links["prev"] = {"page": min(found.page - 1, found.pages or found.page)}
    if found.next_cursor:
        links["next"] = {"page": found.page + 1}
    if found.pages:
        links["last"] = {"page": found.pages}
    return links


def _link(request: Request, links: dict[str, dict[str, object]]) -> tuple[Header, ...]:
    """Return a Link header (RFC 8288), with relative URLs, so the Host header has no effect."""
    if not links:
        return ()
    kept = ""
    if query := request.scope["query_string"]:
        given = parse_qsl(query.decode(), keep_blank_values=True)
        kept = urlencode([pair for pair in given if pair[0] not in {"page", "cursor"}])
    start = f"<{request.url_path}?{kept}{'&' if kept else ''}"
    # Numbers and cursors need no percent-encoding.
    value = ", ".join(
        [
            f'{start}{name}={place}>; rel="{rel}"'
            for rel, where in links.items()
            for name, place in where.items()
        ]
    )
    return ((b"link", value.encode("ascii")),)
