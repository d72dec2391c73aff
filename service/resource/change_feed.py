"""The feed of the changes of a resource: GET /items/changes."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, defstruct

from service.changes.change import ChangeForm
from service.changes.event_stream import EndedStream, EventStream, poll
from service.changes.feed import Feed
from service.changes.matching import Equal, Matcher, Test, at_least, at_most, holding
from service.changes.subscriber import Subscriber
from service.db.statement import RefusedError
from service.errors import FieldError, Gone, Invalid, TimedOut, Unavailable
from service.resource import shapes
from service.resource.rows import described
from service.web.codec import Header, Query, Reply
from service.web.endpoint import Operation
from service.web.principal import Access
from service.web.request import Request

if TYPE_CHECKING:
    from service.resource.declaration import Resource

EVENTS = b"text/event-stream"
Kind = Annotated[Literal["created", "updated", "deleted"], Meta(title="ChangeKind")]
_TOLD = "The position after which the changes begin; by default now"
Position = Annotated[int, Meta(ge=0, le=2**63 - 1, description=_TOLD)]
Wait = Annotated[int, Meta(ge=0, le=60, description="Seconds to wait for a change, in JSON")]
Most = Annotated[int, Meta(ge=1, le=1000, description="Changes in a response in JSON, at most")]
_POSITION = re.compile(rb"[0-9]{1,19}")
_WEIGHT = re.compile(rb";[ \t]*q=([0-9.]{1,5})[ \t]*$")
# The client chooses the form, and a proxy must not keep the events until there are many.
VARY: Header = (b"vary", b"accept")
UNBUFFERED: Header = (b"x-accel-buffering", b"no")


def changes(of: "Resource[Any]") -> Operation:
    """GET /items/changes."""
    filters = shapes.filter_fields(of.fields, of.filters, q=bool(of.search))
    query_type = _query(of, filters)
    asked: Query[Any] = Query(query_type)
    form, name, private = form_of(of), of.name, of.rules.private
    needs: Access = "admin" if of.admin_only & {"list", "changes"} else "read"

    async def handler(request: Request) -> Reply:
        feed: Feed = request.state["feed"]
        query = request.query(asked)
        after = _after(request, query.after)
        matcher = await _matcher(of, feed, query, request.owner if private else None)
        feed.check_room()
        events = wants_events(request.header(b"accept"))
        try:
            start = await feed.begin(after)
        except (Unavailable, TimedOut):
            if not events:
                raise
            return _reply(EndedStream())
        subscriber = Subscriber(feed, form, matcher, start)

        async def check_key() -> float:
            guard = request.state["guard"]
            return await guard.check_again(request.scope, needs) if guard else float("inf")

        if events:
            return _reply(EventStream(request, subscriber, check_key))
        wait = 0 if after is None and not query.wait else query.wait
        found, position = await poll(request, subscriber, check_key, wait, query.limit)
        data = b",".join([one.data for one in found])
        return Reply(b'{"changes":[%b],"position":%d}' % (data, position), headers=(VARY,))

    many = of.words.many
    return of.operation(
        "GET",
        "/changes",
        described(
            handler,
            f"follow_{name}",
            f"Every committed change of {many} that match the filters, exactly once and in commit"
            " order, including changes by other programs.\n\nWith `Accept: text/event-stream` the"
            " response is a stream of server-sent events:"
            " each event has the position as its `id`, the kind as its `event`, and the change as"
            " its `data`. A client that connects again with `Last-Event-ID` misses nothing and"
            " gets nothing twice.\n\nOtherwise the response is JSON: the changes after `after`, at"
            " most `limit`. If there are none, it waits for one, at most `wait` seconds. Continue"
            " with its `position`. Without `after` the changes begin now.",
        ),
        f"Follow the changes of {many}",
        query=query_type,
        response=_changes(of),
        media=("text/event-stream",),
        errors=(Gone,),
        private=private,
    )


def _reply(events: EventStream | EndedStream) -> Reply:
    return Reply(
        chunks=events,
        content_type=EVENTS,
        headers=(VARY, UNBUFFERED),
        cache_control=b"private, no-cache, no-store",
    )


def form_of(of: "Resource[Any]") -> ChangeForm:
    """Return how the log of changes has the rows of a resource."""
    names = {one: str(of.table.c[one].name) for one in of.row.__struct_fields__}
    return ChangeForm(
        of.name,
        of.table.name,
        of.words.one,
        of.row,
        version=of.version,
        defaults={one.name: one.default for one in of.fields.values() if not one.required},
        columns={column: field for field, column in names.items() if field != column},
    )


def wants_events(accept: bytes | None) -> bool:
    """Whether a client prefers events to JSON, by its Accept header."""
    weights: dict[bytes, float] = {}
    for part in (accept or b"").lower().split(b","):
        found = _WEIGHT.search(part)
        try:
            weight = 1.0 if found is None else float(found[1])
        except ValueError:
            weight = 0.0
        weights[part.partition(b";")[0].strip()] = weight
    events = weights.get(EVENTS, 0.0)
    return events > 0 and events >= weights.get(b"application/json", 0.0)


def _after(request: Request, given: int | UnsetType) -> int | None:
    """The position from which a client goes on.

    Last-Event-ID wins: a browser sends it when it connects again, with the URL of the first time.
    """
    last = request.header(b"last-event-id")
    if not last:
        return None if given is UNSET else given
    if not _POSITION.fullmatch(last) or int(last) >= 2**63:
        field = FieldError("Last-Event-ID", "is not a position")
        raise Invalid("Last-Event-ID must be the `id` of an event", field)
    return int(last)


async def _matcher(of: "Resource[Any]", feed: Feed, query: Any, owner: int | None) -> Matcher:
    """The filters of a query, and the owner to whose rows the client is limited."""
    equal: list[Equal] = []
    tests: dict[Any, Test] = {}
    if owner is not None and of.rules.field is not None:
        equal.append(Equal(of.rules.field, owner))
    few: list[Equal] = []
    for name in of.filter_names:
        value = getattr(query, name)
        if value is UNSET:
            continue
        if name == "q":
            tests[name, value] = holding(of.search, value, await feed.lower_case())
        elif name in of.fields:
            alike = few if shapes.few_values(of.fields[name]) else equal
            alike.append(Equal(name, value))
        elif name.startswith("min_"):
            tests[name, value] = at_least(name[4:], value)
        else:
            tests[name, value] = at_most(name[4:], value)
    return Matcher(of.name, [*equal, *few], tests)


def _query(of: "Resource[Any]", filters: Sequence[Any]) -> type[Struct]:
    """Return the Struct of the parameters.

    Raises:
        RefusedError: a filter has the name of another parameter.
    """
    own: list[Any] = [
        ("after", Position | UnsetType, UNSET),
        ("wait", Wait, 0),
        ("limit", Most, 100),
    ]
    if taken := {one[0] for one in own} & {one[0] for one in filters}:
        raise RefusedError(
            f"{of.name}: changes=True needs the parameter {min(taken)!r}: give the field of that"
            " filter another name"
        )
    doc = "The parameters of the feed of changes, with the filters of the list."
    return _struct(f"{of.words.One}ChangesQuery", [*own, *filters], doc)


def _changes(of: "Resource[Any]") -> type[Struct]:
    """Return the Struct of a response in JSON."""
    words = of.words
    version: list[Any] = [] if of.version is None else [("version", int)]
    fields = [("position", int), ("kind", Kind), ("id", int), *version, (words.one, of.row)]
    doc = f"A change of {words.a}; of a deleted one, the {words.one} as it was."
    one = _struct(f"{words.One}Event", fields, doc)
    both: list[Any] = [("changes", list.__class_getitem__(one)), ("position", int)]
    return _struct(f"{words.One}Changes", both, "Changes, and the position to go on from.")


def _struct(name: str, fields: Sequence[Any], doc: str) -> type[Struct]:
    return defstruct(name, fields, namespace={"__doc__": doc}, module=__name__, frozen=True)
