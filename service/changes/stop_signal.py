"""Learn at once that the process is to stop: a server waits for its responses before it says so."""

import asyncio
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, *([signal.SIGHUP] if sys.platform != "win32" else ()))


@contextmanager
def at_stop(stop: Callable[[], object]) -> Iterator[None]:
    """Call `stop` in the event loop at a stop signal, beside the handler of the server.

    It works with every server. One whose handlers are those of the event loop, as granian's, hears
    of the signal by a file that Python writes to, so it does not matter which handler there is.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before = {one: signal.getsignal(one) for one in SIGNALS}

    def handler(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(stop)
        previous = before[signal.Signals(number)]
        if callable(previous):
            previous(number, frame)

    # A signal that is ignored, or would end the process, stays as it is.
    own = {one for one, previous in before.items() if callable(previous)}
    for one in own:
        signal.signal(one, handler)
        if sys.platform != "win32":  # as the event loop had set it
            signal.siginterrupt(one, False)
    try:
        yield
    finally:
        for one in own:
            if signal.getsignal(one) is handler:
                signal.signal(one, before[one])
