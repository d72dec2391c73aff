"""Stop signals, and worker processes: fork, supervise, replace.

A worker is a fork of the process that has imported and compiled everything. So its start takes
only as long as its connections to the stores, and workers share most of their memory.
"""

import contextlib
import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import Self

from service.logs import logger
from service.server.sockets import Listener

# Stop signals. SIGHUP is sent when the terminal is closed; Windows does not have it.
STOPS = (signal.SIGTERM, signal.SIGINT, *([signal.SIGHUP] if sys.platform != "win32" else ()))
# Seconds for running requests to finish at the stop.
DRAIN_SECONDS = 20
# Further seconds for a worker to close its connections.
CLOSE_SECONDS = 10
# If no worker has ever started, this number of failed starts in a row ends the service.
TRIES = 3
# Maximum pause before a worker is replaced; it doubles with each worker that ends.
LONGEST_PAUSE = 10.0
# A worker that ran longer than this starts a new count of failures.
STEADY_SECONDS = 10.0


class ServerError(Exception):
    """The server can't run; the message says why and what to do."""


class StopSignals:
    """The first stop signal calls `action`; the second ends the process at once.

    "At once" is like kill -9: workers and embedded stores end with this process. A signal that the
    parent ignored stays ignored, for `nohup`.
    """

    def __init__(self, action: Callable[[], None]) -> None:
        self.received = False
        self.number = 0  # the received signal
        self.action = action
        self._heard = threading.Event()
        self.heeded = [one for one in STOPS if signal.getsignal(one) is not signal.SIG_IGN]

    @contextlib.contextmanager
    def installed(self) -> Iterator[Self]:
        """Install the handlers. After a signal they stay, because a second signal may come."""
        before = [(number, signal.signal(number, self)) for number in self.heeded]
        try:
            with dropped_exits(self._again):
                yield self
        finally:
            for number, handler in before if not self.received else ():
                signal.signal(number, handler)

    def __call__(self, number: int, _: FrameType | None = None) -> None:
        if number not in self.heeded:
            return
        if self.received:
            os._exit(128 + number)
        self.received, self.number = True, number
        self._heard.set()
        self.action()

    @contextlib.contextmanager
    def bounded(self) -> Iterator[None]:
        """End the process as the second signal does, if the block lasts too long after the first.

        A job may ignore that it is cancelled, block the event loop, or run in a thread, for whose
        end Python waits.
        """
        ended = threading.Event()
        threading.Thread(target=self._end_late, args=(ended,), daemon=True).start()
        try:
            yield
        finally:
            ended.set()

    def _end_late(self, ended: threading.Event) -> None:
        self._heard.wait()
        seconds = DRAIN_SECONDS + CLOSE_SECONDS
        if not ended.wait(seconds):
            os.write(2, b"swiftlet: not stopped after %d s: ended by force\n" % seconds)
            os._exit(128 + self.number)

    def _again(self, _: BaseException) -> None:
        self.received = False
        send_soon(self.number)


@contextlib.contextmanager
def dropped_exits(again: Callable[[BaseException], None]) -> Iterator[None]:
    """Call `again` when Python drops SystemExit or KeyboardInterrupt.

    Python drops an exception of a signal handler that runs during a `__del__`, which would lose the
    stop signal.
    """
    before = sys.unraisablehook

    def hook(args: "sys.UnraisableHookArgs") -> None:
        dropped = args.exc_value
        if not isinstance(dropped, SystemExit | KeyboardInterrupt):
            before(args)
            return
        while True:
            try:
                again(dropped)
                return
            except (SystemExit, KeyboardInterrupt) as error:  # its signal arrived during this hook
                dropped = error

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


def send_soon(number: int) -> None:
    """Send this process a signal after the `__del__` that dropped the last one has ended."""
    threading.Timer(0.01, os.kill, (os.getpid(), number)).start()


def follow_parent() -> None:
    """End when the parent process has ended; ignore signals of the terminal, which it handles.

    The parent stops its workers by SIGTERM, after new connections are refused.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, set(STOPS) - {signal.SIGTERM})
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent.join,), daemon=True).start()


def _follow(wait_for_parent: Callable[[], None]) -> None:
    wait_for_parent()
    os._exit(1)


class Worker:
    """A worker process. It calls `serve` with a function that reports that it is ready."""

    def __init__(self, serve: Callable[[Callable[[], None]], None]) -> None:
        fork = multiprocessing.get_context("fork")
        self.news, sender = fork.Pipe(duplex=False)
        self.process = fork.Process(target=_work, args=(serve, sender))
        self.up = False
        self.failure = ""
        self.process.start()
        sender.close()
        self.started = time.monotonic()

    def hear(self) -> bool:
        """Read messages of the worker; return whether it has become ready since the last call."""
        if self.up or not self.news.poll():
            return False
        try:
            self.failure = self.news.recv()
        except EOFError:
            return False
        self.up = not self.failure
        return self.up

    def end(self) -> str:
        """Return a description of how it ended."""
        code = self.process.exitcode or 0
        self.news.close()
        if self.failure:
            return self.failure
        return f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _work(serve: Callable[[Callable[[], None]], None], sender: Connection) -> None:
    follow_parent()
    try:
        serve(lambda: sender.send(""))
    except ServerError as error:
        sender.send(str(error))
        sys.exit(1)


def supervise(
    count: int,
    serve: Callable[[Callable[[], None]], None],
    listener: Listener,
    ready: Callable[[], None],
    stop: StopSignals,
) -> None:
    """Keep `count` workers running until the stop; call `ready` when the first is ready.

    Raises:
        ServerError: no worker starts.
    """
    # Collect garbage before the fork: memory that a worker's collector does not touch is shared.
    gc.collect()
    gc.freeze()
    stop.action = lambda: None
    workers: list[Worker] = []
    ever_up = False
    failures, due = 0, 0.0
    try:
        while not stop.received:
            if time.monotonic() >= due:
                workers += [Worker(serve) for _ in range(count - len(workers))]
            news = [worker.news for worker in workers if not (worker.up or worker.failure)]
            wait([*news, *(worker.process.sentinel for worker in workers)], 0.1)
            for worker in list(workers):
                if worker.hear() and not ever_up:
                    ever_up = True
                    ready()
                if worker.process.is_alive():
                    continue
                workers.remove(worker)
                steady = worker.up and time.monotonic() - worker.started > STEADY_SECONDS
                failures = 1 if steady else failures + 1
                why = worker.end()
                if failures >= TRIES and not ever_up:
                    raise ServerError(f"no worker starts: {why}")
                pause = 0.0 if failures == 1 else min(0.1 * 2**failures, LONGEST_PAUSE)
                due = time.monotonic() + pause
                if not stop.received:
                    fields = {"pid": worker.process.pid, "why": why, "pause": pause}
                    logger.error("a worker ended: starting another one", extra={"fields": fields})
    finally:
        listener.turn_away()
        listener.close()
        _end(workers)


def _end(workers: list[Worker]) -> None:
    for worker in workers:
        worker.process.terminate()
    give_up = time.monotonic() + DRAIN_SECONDS + CLOSE_SECONDS
    for worker in workers:
        worker.process.join(max(0.0, give_up - time.monotonic()))
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
