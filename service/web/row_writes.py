"""Writes of single rows without a task: the group commit sends the responses."""

from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter
from time import perf_counter
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from service.cache.generations import Tags
from service.db.batcher import Waiter
from service.db.writable import WritableDatabase
from service.errors import NotFound, Problem
from service.http1.extensions import SEND_PREBUILT
from service.http1.request_cycle import RequestCycle
from service.web.added_headers import AddedHeaders
from service.web.api_keys import KEY_HEADERS
from service.web.body import Body
from service.web.codec import JSON
from service.web.direct_get import access
from service.web.direct_waiter import DirectWaiter, Send, encoded
from service.web.guard import Rule
from service.web.row_reads import DIGITS

if TYPE_CHECKING:
    from service.web.endpoint import Endpoint

# With one of these headers the handler answers.
_UNUSUAL = frozenset(
    {
        b"content-encoding",
        b"expect",
        b"idempotency-key",
        b"if-match",
        b"if-none-match",
        b"traceparent",
    }
)


class RowWrites:
    """Writes of rows of a table, each of one row.

    Args:
        body: decodes what the client sends.
        plan: returns the key and the arguments of a Waiter, from the decoded body and the id in the
            path; None if the handler must answer.
        submit: lets a Waiter wait for the batch. The answer is the row, or a tuple with it.
        tags: what a write invalidates, from the row after it and the decoded body.
        version: name of the field with the version; None without one.
        path: of the collection, for the Location of a new row; None for a row that exists.
    """

    def __init__(
        self,
        body: Body[Any],
        plan: Callable[[Any, int], tuple[Any, Any] | None],
        submit: Callable[[WritableDatabase, Waiter], None],
        tags: Callable[[Any, Any], Tags],
        version: str | None,
        path: str | None = None,
    ) -> None:
        self.body = body
        self.plan = plan
        self.submit = submit
        self.tags = tags
        self.version_of = None if version is None else attrgetter(version)
        self.path = None if path is None else path.encode()


class DirectWrite:
    """How an operation answers its requests without a task; as direct_get.DirectGet."""

    def __init__(self, endpoint: "Endpoint", rule: Rule, writes: RowWrites) -> None:
        self.endpoint = endpoint
        self.rule = rule
        self.writes = writes

    def begin(  # noqa: C901, PLR0912 - as DirectGet.begin
        self, cycle: RequestCycle, _: str, row_id: str, added: AddedHeaders | None
    ) -> bool:
        """Let a request wait for the commit of its row; return False to leave it to a task.

        So invalid bodies, and requests with preconditions or an Idempotency-Key.
        """
        started = perf_counter()
        head, writes, connection = cycle.head, self.writes, cycle.connection
        state = connection.app_state
        if head.query or not _UNUSUAL.isdisjoint(head.names) or access.isEnabledFor(20):
            return False
        if state["tracer"] is not None or not state["db"].batching or connection.blocked:
            return False
        number = 0
        if writes.path is None:
            if not row_id.isdecimal() or len(row_id) > DIGITS:
                return False
            number = int(row_id)
            if not number:
                return False
        given_id = key = content_type = None
        for pair in head.headers:
            name = pair[0]
            if name == b"content-type":
                if content_type is not None:
                    return False
                content_type = pair[1]
            elif name == b"x-request-id":  # two of them are not an id
                given_id = pair[1].strip(b" \t") if given_id is None else b""
            elif name in KEY_HEADERS:
                if key is not None:
                    return False
                key = pair
        if content_type != JSON or cycle.size > state["settings"].body_limit:
            return False
        value = writes.body.quick(b"".join(cycle.parts))
        planned = None if value is None else writes.plan(value, number)
        if planned is None:
            return False
        ready, lines, guard, metrics = cycle.ready, b"", state["guard"], state["metrics"]
        if added is not None:
            scope = cycle.scope()
            added.prepare(scope)
            ready = scope["extensions"][SEND_PREBUILT]
        if guard is not None:
            admission = guard.decide(cycle.scope, self.rule, started, key)
            if admission is None:
                return False
            admission.mark(cycle.scope())
            if admission.principal is not None and admission.principal.owner is not None:
                return False  # it may write its own rows only
            lines = admission.lines
        waiter = RowWrite(self, cycle, ready, value, started)
        waiter.key, waiter.args = planned
        waiter.given_id, waiter.lines = given_id, lines
        try:
            writes.submit(state["writer"].database, waiter)
        except Problem:  # the task raises it again
            return False
        if metrics is not None:
            metrics.in_flight += 1
        return True


class RowWrite(DirectWaiter):
    """A request that waits for the commit of its row.

    `value` is its decoded body.
    """

    __slots__ = ("direct", "value")

    def __init__(
        self, direct: DirectWrite, cycle: RequestCycle, send: Send, value: Struct, started: float
    ) -> None:
        super().__init__(cycle, direct.endpoint, send, started)
        self.direct = direct
        self.value = value

    def answer(self, done: Any) -> None:
        """As `together`."""
        self.together([(self, done)])

    @staticmethod
    def together(answers: Sequence[tuple["RowWrite", Any]]) -> None:
        """Invalidate what the rows change, then send each; or send that there is none."""
        writer = answers[0][0].cycle.connection.app_state["writer"]
        changed: set[int] = set()
        written = []
        for waiter, done in answers:
            row = done[0] if isinstance(done, tuple) else done
            if row is None:
                waiter.late(NotFound("there is no such row"))
                continue
            try:
                changed.update(waiter.direct.writes.tags(row, waiter.value))
                written.append((waiter, row))
            except Exception as error:  # noqa: BLE001 - it is logged and answered as any other
                waiter.refuse(error)
        if written:
            writer.written(tuple(changed), partial(_show_all, written, perf_counter()))

    def refuse(self, problem: BaseException) -> None:
        """Send the error; the outcome of the write may be unknown."""
        self.cycle.connection.app_state["writer"].failed(problem)
        self.late(problem)

    def show_row(self, row: Struct, answered: float) -> None:
        """Send the row; see `show`."""
        writes, status, location = self.direct.writes, 200, None
        began = perf_counter()
        try:
            body, _, headers = encoded(row, writes.version_of)
            if writes.path is not None:
                status = 201
                location = b"%b/%d" % (writes.path, row.id)  # type: ignore[attr-defined]  # each row has one
            self.show(body, headers, status, answered, began, location)
        except Exception as error:  # noqa: BLE001 - it is logged and answered as any other
            self.late(error)


def _show_all(written: Sequence[tuple[RowWrite, Struct]], answered: float) -> None:
    for waiter, row in written:
        waiter.show_row(row, answered)
