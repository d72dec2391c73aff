"""The changes of a webhook that have been read and are not yet delivered, each row's in order."""

import heapq
from collections import deque

# Changes and bytes that a webhook holds in memory; and changes that may be finished behind one that
# is not, which are sent again if the worker dies.
CHANGES, BYTES, AHEAD = 1_000, 8 * 1_048_576, 10_000


class Pending:
    """A change that is to be delivered.

    Args:
        position: of the change.
        row: id of the changed row.
        body: what is posted.

    Attributes:
        failures: how often its delivery has failed.
        refused: how often the receiver has refused it for good.
        alone: how often it has failed while others were delivered.
        seen: how many changes the webhook had delivered at the last failure; None before one.
    """

    __slots__ = ("alone", "body", "failures", "finished", "position", "refused", "row", "seen")

    def __init__(self, position: int, row: int, body: bytes) -> None:
        self.position = position
        self.row = row
        self.body = body
        self.failures = self.refused = self.alone = 0
        self.seen: int | None = None
        self.finished = False


class Window:
    """Says which change may be sent next: the oldest unfinished one of each row.

    Args:
        position: where to begin.

    Attributes:
        position: it and all before it are finished.
        read_to: it and all before it have been read.
    """

    def __init__(self, position: int) -> None:
        self.position = self.read_to = position
        self._order: deque[Pending] = deque()
        self._rows: dict[int, deque[Pending]] = {}
        # Those that may be sent, by when. One that has failed comes after those that have not, so
        # that another one is tried first when nothing gets through.
        self._due: list[tuple[float, int, Pending]] = []
        self._unfinished = self._bytes = 0

    @property
    def full(self) -> bool:
        """Whether nothing more should be read."""
        return self._unfinished >= CHANGES or self._bytes >= BYTES or len(self._order) >= AHEAD

    @property
    def empty(self) -> bool:
        """Whether everything that was read is finished."""
        return not self._unfinished

    def add(self, pending: Pending) -> None:
        """Add a change; its position must be greater than all before."""
        self._order.append(pending)
        self._unfinished += 1
        self._bytes += len(pending.body)
        waiting = self._rows.get(pending.row)
        if waiting is None:
            self._rows[pending.row] = deque((pending,))
            self.again(pending, 0.0)
        else:
            waiting.append(pending)

    def reached(self, position: int) -> None:
        """Remember up to where the changes have been read."""
        self.read_to = max(self.read_to, position)
        self._advance()

    def take(self, now: float) -> Pending | None:
        """Take the change that may be sent next; `finish` or `again` must follow."""
        if self._due and self._due[0][0] <= now:
            return heapq.heappop(self._due)[2]
        return None

    def due(self) -> float | None:
        """When the next change may be sent; None if there is none that is not being sent."""
        return self._due[0][0] if self._due else None

    def again(self, pending: Pending, due: float) -> None:
        """Let a change that was taken be sent again at this time."""
        heapq.heappush(self._due, (due, pending.position, pending))

    def finish(self, pending: Pending) -> None:
        """Mark a change that was taken as finished; the next one of its row may be sent."""
        pending.finished = True
        self._unfinished -= 1
        self._bytes -= len(pending.body)
        pending.body = b""
        waiting = self._rows[pending.row]
        waiting.popleft()
        if waiting:
            self.again(waiting[0], 0.0)
        else:
            del self._rows[pending.row]
        self._advance()

    def _advance(self) -> None:
        order = self._order
        while order and order[0].finished:
            order.popleft()
        self.position = order[0].position - 1 if order else self.read_to
