"""Heavy work in slices, so that others wait for one slice at most and never for all of it.

A request of a thousand rows takes 6 ms of the event loop. A read that arrives during this time
needs several iterations of the loop: to take its bytes, to ask the database, to answer. So there
are iterations without a slice between two slices, and all heavy requests share one queue.
"""

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TypeVar
from weakref import WeakKeyDictionary

Item = TypeVar("Item")

# Rows in a slice that decodes them, 0.2 ms; and in one that does little with each, 0.1 ms.
SLICE_ROWS, MANY_ROWS = 50, 250
# Iterations of the event loop without a slice before each slice.
FREE_ITERATIONS = 3


class _Queue:
    """The tasks of one event loop that wait to go on with a slice, first come first served."""

    def __init__(self) -> None:
        self.waiting: deque[asyncio.Future[None]] = deque()
        self.free = 0

    def join(self, loop: asyncio.AbstractEventLoop) -> asyncio.Future[None]:
        future = loop.create_future()
        if not self.waiting:
            self.free = FREE_ITERATIONS
            loop.call_soon(self._iteration, loop)
        self.waiting.append(future)
        return future

    def _iteration(self, loop: asyncio.AbstractEventLoop) -> None:
        self.free -= 1
        if self.free <= 0:
            while self.waiting:
                future = self.waiting.popleft()
                if not future.done():  # else its task was cancelled
                    future.set_result(None)
                    break
            self.free = FREE_ITERATIONS
        if self.waiting:
            loop.call_soon(self._iteration, loop)


_queues: WeakKeyDictionary[asyncio.AbstractEventLoop, _Queue] = WeakKeyDictionary()


def sliced(rows: Sequence[Item], size: int = SLICE_ROWS) -> Iterator[Sequence[Item]]:
    """The rows in slices of this size."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


async def next_slice() -> None:
    """Wait to go on with heavy work: others run first, and one slice runs at a time.

    Call it before each slice of at most SLICE_ROWS rows, or of as much work as they are.
    """
    loop = asyncio.get_running_loop()
    queue = _queues.get(loop)
    if queue is None:
        queue = _queues[loop] = _Queue()
    await queue.join(loop)
