"""Notice that the embedded PostgreSQL has ended by itself: a full disk, or a signal by hand."""

import errno
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from service.embedded.children import Child
from service.embedded.programs import EmbeddedError

NO_SPACE = os.strerror(errno.ENOSPC)


class Watch:
    """The embedded PostgreSQL while requests are served; without it, they can only be refused.

    `child` is its process; None if there is no embedded PostgreSQL.
    """

    def __init__(self) -> None:
        self.child: Child | None = None
        self._ended = False

    @contextmanager
    def installed(self, stop: Callable[[], None]) -> Iterator[None]:
        """Call `stop` in the main thread when PostgreSQL ends.

        The kernel reports the end of a child by SIGCHLD: that needs no thread, which a fork of a
        worker could break.

        Raises:
            EmbeddedError: at the end of the block: it has ended, and why.
        """
        owner, child = os.getpid(), self.child
        if child is None:
            yield
            return

        def look(_number: int = 0, _frame: FrameType | None = None) -> None:
            # A forked worker has this handler too, and it is not the parent of PostgreSQL.
            if os.getpid() == owner and not self._ended and child.process.poll() is not None:
                self._ended = True
                stop()

        before = signal.signal(signal.SIGCHLD, look)
        try:
            look()  # it may have ended before
            yield
        finally:
            signal.signal(signal.SIGCHLD, before)
            if self._ended:
                raise EmbeddedError(self._why(child))

    def _why(self, child: Child) -> str:
        why, code = child.complaint(), child.process.returncode
        if NO_SPACE in why:
            return f"PostgreSQL ended: {why}, and start again"
        if code < 0:
            why = f"by {signal.Signals(-code).name}"
        return f"PostgreSQL ended: {why} (see {child.log}): start again"
