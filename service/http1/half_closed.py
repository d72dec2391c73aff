"""Clients that have closed their side of a connection: do they wait for a response?"""

import asyncio
from typing import Protocol

from service.http1.request_cycle import CONTINUE, RequestCycle

# Seconds until a half-closed client is probed, and until a reset arrives. So the work for a client
# ends within a second after it disconnects.
PROBE_SECONDS, RESET_SECONDS = 0.7, 0.1


class Probed(Protocol):
    """The attributes of a connection that `probe` uses."""

    transport: asyncio.Transport
    loop: asyncio.AbstractEventLoop
    discarding: bool

    @property
    def cycle(self) -> RequestCycle | None: ...


def probe(connection: Probed, cycle: RequestCycle, again: bool = True) -> None:
    """Find out whether a half-closed client waits for its response or is gone.

    Both look the same until something is sent. `100 Continue` has no effect and may be sent any
    time before the response (RFC 9110, 15.2); a client that is gone replies with a reset.
    """
    waits = connection.cycle is cycle and not cycle.begun and not connection.discarding
    if waits and cycle.version == "1.1":
        connection.transport.write(CONTINUE)
        after = RESET_SECONDS if again else PROBE_SECONDS  # only the second write fails
        connection.loop.call_later(after, probe, connection, cycle, not again)
