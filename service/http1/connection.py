"""HTTP/1.1 for uvicorn: a complete response is sent in one write.

uvicorn keeps the processes, the signals and the lifespan. This protocol replaces its own (`http=`
of its Config), which costs twice the CPU: a timer, an event and two writes per request, two regular
expressions per header (`python -m bench trials server` compares them). A request that can't be
parsed gets a problem document; docs/http.md says what is refused.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, cast

from starlette.types import ASGIApp, Scope
from uvicorn.config import Config
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl
from uvicorn.server import ServerState

from service.errors import Malformed, Problem
from service.http1 import framing
from service.http1.extensions import LONGEST_REPEATED, Repeated
from service.http1.half_closed import PROBE_SECONDS, probe
from service.http1.head import Head
from service.http1.idle import IdleTimer
from service.http1.parser import Parser
from service.http1.refusals import refusal
from service.http1.request_cycle import CONTINUE, RequestCycle
from service.http1.status_lines import beginning
from service.http1.transports import close, end_output
from service.logs import logger

# Bytes to read ahead: of a body not received yet, and of pipelined requests that wait.
BODY_AHEAD = REQUESTS_AHEAD = 65_536
# Seconds to wait for a short body in a second packet before a task starts.
SHORT_BODY_SECONDS = 0.05
# Seconds for the client to read its response, while its further input is discarded.
LINGER_SECONDS = 1.0
# Seconds during which an idle connection may send one more request at the stop: its client may have
# sent it already. The response says `Connection: close`.
LAST_REQUEST_SECONDS = 0.3


class Connection(asyncio.Protocol):
    """One client connection; responses are sent in the order of the requests.

    `cycle` is the current request; `discarding`: input is ignored; `ended`: half-closed.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        if not config.loaded:
            config.load()
        self.app: ASGIApp = config.loaded_app
        self.direct: Callable[[RequestCycle], bool] | None = getattr(self.app, "direct", None)
        self.repeated: Repeated | None = getattr(self.app, "repeated", None)
        self.input = b""  # the packet, if the current request begins with its first byte
        self.loop = _loop or asyncio.get_running_loop()
        self.server_state = server_state
        self.app_state = app_state
        self.root_path = config.root_path
        self.keep_alive = config.timeout_keep_alive
        self.parser = Parser(self)
        self.transport: asyncio.Transport
        self.cycle: RequestCycle | None = None
        self.scope: Scope | None = None  # of the current request, once the application needs it
        self.discarding = self.stopping = self.ended = self.again = False
        self.reading = True
        self.blocked: asyncio.Event | None = None
        self.idle: IdleTimer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.server_state.connections.add(self)  # type: ignore[arg-type]  # uvicorn names its own
        self.local = get_local_addr(self.transport)
        self.client = get_remote_addr(self.transport)
        self.scheme = "https" if is_ssl(self.transport) else "http"
        self.idle = IdleTimer(self, self.keep_alive)

    def connection_lost(self, _: Exception | None) -> None:
        self.server_state.connections.discard(self)
        self.idle.cancel()
        self.resume_writing()
        self.discarding = True
        cycle, self.cycle, self.scope = self.cycle, None, None
        if cycle is not None:
            cycle.lost = True
            cycle.wake()

    def data_received(self, data: bytes) -> None:
        if self.discarding:
            return
        self.input = b""
        if len(data) <= LONGEST_REPEATED and self.parser.awaits_head:
            if self._repeated(data):
                return
            self.input = data
        self._parsed(again=self.parser.feed(data), direct=True)

    def _repeated(self, data: bytes) -> bool:
        """Send the answer that the application has for the bytes of a request sent before."""
        if self.repeated is None or self.stopping or self.ended or self.blocked is not None:
            return False
        if (answer := self.repeated(data, self.app_state)) is None:
            return False
        start = beginning(200, self.server_state.default_headers)
        self.transport.write(b"%b\r\n%b\r\n\r\n%b" % (start, *answer))
        self.server_state.total_requests += 1
        self.idle.since = self.loop.time()
        return True

    def eof_received(self) -> bool:
        """The client has half-closed; complete requests are still answered."""
        self.ended = True
        self._check_end()
        if self.cycle is not None:
            self.cycle.half_closed()
            self.loop.call_later(PROBE_SECONDS, probe, self, self.cycle)
        return self.scheme == "http"  # TLS ends in both directions at once

    def pause_writing(self) -> None:
        if self.blocked is None:
            self.blocked = asyncio.Event()
            self.idle.begin_blocked()

    def resume_writing(self) -> None:
        if self.blocked is not None:
            self.blocked.set()
            self.blocked = None

    def request(self, head: Head) -> None:
        cycle = self.cycle = RequestCycle(self, head)
        if cycle.more and head.method not in framing.READS_BODY:
            self.loop.call_later(framing.BODY_SECONDS, self._give_up, cycle)
            if cycle.expects:
                cycle.expects = False
                self.transport.write(CONTINUE)

    def body(self, part: bytes) -> None:
        cycle = self.cycle
        if cycle is None or cycle.finished:
            return  # answered without reading its body
        cycle.add(part)
        if cycle.size > BODY_AHEAD:
            self.pause_reading()
        if (
            cycle.size > framing.UNUSED_BODY
            and not cycle.started
            and cycle.method not in framing.READS_BODY
        ):
            raise framing.unused_body_too_large()

    def end(self) -> None:
        if self.cycle is not None:
            self.cycle.more = False
            self.cycle.wake()

    def refuse(self, problem: Problem, method: str) -> None:
        """Answer a request that can't be parsed, then close."""
        self.discarding = True
        self.cycle = None
        self.transport.write(refusal(self, problem, method))
        self._linger()

    def break_off(self, problem: Problem) -> None:
        cycle = self.cycle
        self.discarding = True
        if cycle is None:  # answered without reading its body
            self._linger()
        elif not cycle.started:
            self.refuse(problem, cycle.method)
        else:
            cycle.keep = False
            cycle.broken = True
            cycle.wake()

    def finished(self, cycle: RequestCycle) -> None:
        """The response is written: continue with the next request."""
        self.server_state.total_requests += 1
        self.cycle = self.scope = None
        if not cycle.keep:
            if cycle.more or self.discarding or self.parser.data:  # sent, and not read
                self._linger()
            else:
                close(self.transport)
            self.discarding = True
            return
        if self.transport.is_closing():
            return
        self.idle.since = self.loop.time()
        again = self.parser.resume()
        if again or self.parser.busy or not self.reading:
            self._parsed(again=again)
        if self.ended:
            self._check_end()
        if self.stopping:  # the response did not say `Connection: close`
            self.loop.call_later(LAST_REQUEST_SECONDS, self._close_idle)

    def shutdown(self) -> None:
        """Called by uvicorn: answer received requests; an idle client may send one more."""
        self.stopping = True
        if self.cycle is None:
            self.loop.call_later(LAST_REQUEST_SECONDS, self._close_idle)
        elif not self.parser.data:  # else the rest of a request may still arrive
            self.cycle.keep = False

    def _close_idle(self) -> None:
        if self.cycle is None and not self.discarding:
            if self.parser.data:  # the rest of a request may still arrive
                self.discarding = True
                self._linger()
            else:
                close(self.transport)

    def pause_reading(self) -> None:
        if self.reading:
            self.reading = False
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if not self.reading and not self.ended:
            self.reading = True
            self.transport.resume_reading()

    def _parsed(self, *, again: bool, direct: bool = False) -> None:
        """Start the parsed request, in a task unless `direct`; `again` schedules more parsing."""
        self.again = again
        cycle = self.cycle
        if cycle and not cycle.started and (not cycle.more or cycle.method in framing.READS_BODY):
            if direct and cycle.more and cycle.awaits_short_body and self.direct is not None:
                if not cycle.deferred:
                    cycle.deferred = True
                    self.loop.call_later(SHORT_BODY_SECONDS, self._start, cycle)
            elif not direct or not self._direct(cycle):
                self._start(cycle)
            elif cycle.finished:
                return  # `finished` has continued
        if again:
            self.pause_reading()
            self.loop.call_soon(self._go_on)
        elif cycle is not None and len(self.parser.data) > REQUESTS_AHEAD:
            self.pause_reading()  # the end of the cycle resumes it; without a cycle, nothing would
        elif not self.reading and (cycle is None or cycle.size <= BODY_AHEAD):
            self.resume_reading()

    def _go_on(self) -> None:
        if not self.discarding:
            self._parsed(again=self.parser.proceed())
            self._check_end()

    def _direct(self, cycle: RequestCycle) -> bool:
        """Return whether the application answers without a task: now, or when a batch ends."""
        if self.direct is None or cycle.more or self.stopping or self.ended:
            return False
        try:
            cycle.started = self.direct(cycle)
        except Exception:  # noqa: BLE001 - the task runs the normal way and reports the error
            logger.exception("the application failed")
            cycle.started = cycle.finished
        return cycle.started

    def _start(self, cycle: RequestCycle) -> None:
        if self.cycle is not cycle or cycle.started:
            return
        cycle.started = True
        if self.stopping and not self.parser.data:
            cycle.keep = False
        self.run(cycle.run(self.app, cycle.scope()))
        if self.ended:
            self.loop.call_later(PROBE_SECONDS, probe, self, cycle)

    def run(self, work: Coroutine[None, None, None]) -> None:
        """Run it in a task that the server waits for when it stops."""
        task = self.loop.create_task(work)
        self.server_state.tasks.add(task)
        task.add_done_callback(self.server_state.tasks.discard)

    def _check_end(self) -> None:
        """After a half-close: an incomplete body stays incomplete, so answer with an error."""
        cycle = self.cycle
        if not self.ended or self.again:
            return
        if cycle is None:
            close(self.transport)
        elif cycle.more:
            self.break_off(Malformed("the body ended early"))

    def _give_up(self, cycle: RequestCycle) -> None:
        if self.cycle is cycle and not cycle.started:
            self.refuse(framing.body_too_slow(), cycle.method)

    def _linger(self) -> None:
        """Close later: further input after a close causes a reset, which can lose the response."""
        if not self.transport.is_closing():
            self.resume_reading()
            end_output(self.transport)
            self.loop.call_later(LINGER_SECONDS, close, self.transport)
