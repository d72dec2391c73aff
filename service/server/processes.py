"""Signals that stop the service, and worker processes: forked, watched, replaced.

A worker is a fork of the process that has imported and compiled everything, so it is up within
the time that its connections to the stores take, and shares most of its memory with the others.
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
from service.server.listener import Listener

# What ends a service: SIGHUP comes when its terminal is closed. Windows has none.
STOPS = (signal.SIGTERM, signal.SIGINT, *([signal.SIGHUP] if sys.platform != "win32" else ()))
# What is under way at the stop may finish.
DRAIN_SECONDS = 20
# To close what a worker has opened, after that.
CLOSE_SECONDS = 10
# So many failed starts in a row end the service, if no worker was ever up.
TRIES = 3
# The pause before a worker is replaced doubles with each that ends, up to this.
LONGEST_PAUSE = 10.0
# A worker that was up for so long does not count among those that fail in a row.
STEADY_SECONDS = 10.0


class ServerError(Exception):
    """The server can't run; the message says why, and what to do."""


class StopSignals:
    """The first signal that stops the service calls `action`; the second ends the process at once.

    At once is as by kill -9: the workers and the embedded stores end with this process. A signal
    that was ignored when we were started stays ignored, as `nohup` wants it.
    """

    def __init__(self, action: Callable[[], None]) -> None:
        self.received = False
        self.number = 0  # of the signal that was received
        self.action = action
        self.heeded = [one for one in STOPS if signal.getsignal(one) is not signal.SIG_IGN]

    @contextlib.contextmanager
    def installed(self) -> Iterator[Self]:
        """Once a signal has come nothing is restored: the process ends, and the second may come."""
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
        self.action()

    def _again(self, _: BaseException) -> None:
        self.received = False
        send_soon(self.number)


@contextlib.contextmanager
def dropped_exits(again: Callable[[BaseException], None]) -> Iterator[None]:
    """Call `again` where Python drops SystemExit or KeyboardInterrupt.

    It does when a signal handler raises within a `__del__`: the stop would be lost.
    """
    before = sys.unraisablehook

    def hook(told: "sys.UnraisableHookArgs") -> None:
        if isinstance(told.exc_value, SystemExit | KeyboardInterrupt):
            again(told.exc_value)
        else:
            before(told)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


def send_soon(number: int) -> None:
    """Send this process a signal, once the `__del__` that dropped the last one is over."""
    threading.Timer(0.01, os.kill, (os.getpid(), number)).start()


def follow_parent() -> None:
    """End when the process that started this one is gone; leave the terminal's signals to it.

    It asks its workers to stop by SIGTERM, once new connections are turned away.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, set(STOPS) - {signal.SIGTERM})
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent.join,), daemon=True).start()


def _follow(wait_for_parent: Callable[[], None]) -> None:
    wait_for_parent()
    os._exit(1)


class Worker:
    """One process that serves; `serve` is called in it, with what tells that it is up."""

    def __init__(self, serve: Callable[[Callable[[], None]], None]) -> None:
        fork = multiprocessing.get_context("fork")
        self.news, told = fork.Pipe(duplex=False)
        self.process = fork.Process(target=_work, args=(serve, told))
        self.up = False
        self.failure = ""
        self.process.start()
        told.close()
        self.started = time.monotonic()

    def hear(self) -> bool:
        """Take its news: whether it has come up since the last time."""
        if self.up or not self.news.poll():
            return False
        try:
            self.failure = self.news.recv()
        except EOFError:
            return False
        self.up = not self.failure
        return self.up

    def end(self) -> str:
        """How it ended."""
        code = self.process.exitcode or 0
        self.news.close()
        if self.failure:
            return self.failure
        return f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _work(serve: Callable[[Callable[[], None]], None], told: Connection) -> None:
    follow_parent()
    try:
        serve(lambda: told.send(""))
    except ServerError as error:
        told.send(str(error))
        sys.exit(1)


def supervise(
    count: int,
    serve: Callable[[Callable[[], None]], None],
    listener: Listener,
    ready: Callable[[], None],
    stop: StopSignals,
) -> None:
    """Keep `count` workers until the stop; `ready` is called once the first is up.

    Raises:
        ServerError: no worker comes up.
    """
    # Collected once here: what a worker's collector does not touch, the workers share.
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
                    raise ServerError(f"no worker comes up: {why}")
                pause = 0.0 if failures == 1 else min(0.1 * 2**failures, LONGEST_PAUSE)
                due = time.monotonic() + pause
                if not stop.received:
                    fields = {"pid": worker.process.pid, "why": why, "pause": pause}
                    logger.error(
                        "a worker ended: another takes its place", extra={"fields": fields}
                    )
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
