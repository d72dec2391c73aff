"""Start an embedded store again when it has ended by itself: after a full disk, or a kill."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from service.embedded.children import Child
from service.logs import logger

# Seconds before a store is started again. The backends of a killed postmaster need a moment to end.
# The pause doubles with each start that fails: a full disk stays full until an operator acts.
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0
# A store that ran longer than this begins a new count of failures.
STEADY_SECONDS = 10.0


class WatchedStore:
    """A store that runs.

    Args:
        name: for the log.
        child: its process.
        launch: starts it again, without waiting until it is ready.
    """

    def __init__(self, name: str, child: Child, launch: Callable[[], Child]) -> None:
        self.name = name
        self.child = child
        self.launch = launch
        self.pause = FIRST_PAUSE
        self.started = time.monotonic()
        self.due: float | None = None  # when it is started again, by time.monotonic()

    def look(self) -> None:
        """Plan a new start if it has ended."""
        if self.due is not None or self.child.process.poll() is None:
            return
        now = time.monotonic()
        if now - self.started > STEADY_SECONDS:
            self.pause = FIRST_PAUSE
        fields = {"why": _why(self.child), "log": str(self.child.log), "pause": self.pause}
        logger.error("%s has ended, and is started again", self.name, extra={"fields": fields})
        self.due = now + self.pause
        self.pause = min(2 * self.pause, LONGEST_PAUSE)

    def start_if_due(self) -> None:
        """Start it if its pause is over."""
        now = time.monotonic()
        if self.due is not None and now >= self.due:
            self.due, self.started = None, now
            self.child = self.launch()


class Watch:
    """The embedded stores while requests are served.

    Without PostgreSQL requests get 503, and the pool connects when it is back. Without Redis the
    service is slower.
    """

    def __init__(self) -> None:
        self.stores: list[WatchedStore] = []

    def add(self, name: str, child: Child, launch: Callable[[], Child]) -> None:
        """Watch a store, see WatchedStore."""
        self.stores.append(WatchedStore(name, child, launch))

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Within the block, start a store again whenever it ends.

        Enter it in the main thread. The kernel reports the end of a child by SIGCHLD, and the end
        of a pause by SIGALRM: that needs no thread, which a fork of a worker could break.
        """
        if not self.stores:
            yield
            return
        owner = os.getpid()

        def look(_number: int = 0, _frame: FrameType | None = None) -> None:
            if os.getpid() == owner:  # a forked worker has the handler, and is not their parent
                self._look()

        before = {
            number: signal.signal(number, look) for number in (signal.SIGCHLD, signal.SIGALRM)
        }
        try:
            look()  # one may have ended before
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in before.items():
                signal.signal(number, handler)

    def _look(self) -> None:
        for store in self.stores:
            store.start_if_due()
            store.look()
        pauses = [store.due for store in self.stores if store.due is not None]
        if pauses:
            signal.setitimer(signal.ITIMER_REAL, max(0.001, min(pauses) - time.monotonic()))


def _why(child: Child) -> str:
    why, code = child.complaint(), child.process.returncode
    return f"by {signal.Signals(-code).name}" if code < 0 else why
