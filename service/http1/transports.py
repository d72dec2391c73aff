"""The end of a connection with and without TLS, and what uvloop's transports do not offer."""

import asyncio
import fcntl
import os
import socket
import struct
import sys
import termios
from contextlib import suppress

# Seconds for a client to confirm the end of TLS. uvloop waits 30 s, and a stop waits for all.
TLS_END_SECONDS = 1.0


def close(transport: asyncio.Transport) -> None:
    """Close after everything is sent."""
    transport.close()
    if transport.get_extra_info("sslcontext") is not None:
        asyncio.get_running_loop().call_later(TLS_END_SECONDS, transport.abort)


def end_output(transport: asyncio.Transport) -> None:
    """Tell the client that nothing follows, if that is possible without closing: not with TLS."""
    if transport.can_write_eof():
        transport.write_eof()


def reset(transport: asyncio.Transport) -> None:
    """Close with RST, not FIN: with FIN a response without a length would seem complete."""
    with suppress(OSError), _handle(transport) as handle:
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def unsent_bytes(transport: asyncio.Transport) -> int:
    """Return the bytes that the client has not received, those in the kernel included."""
    size = transport.get_write_buffer_size()
    with suppress(OSError), _handle(transport) as handle:
        waiting = fcntl.ioctl(handle, termios.TIOCOUTQ, bytes(4))
        size += int.from_bytes(waiting, sys.byteorder)
    return size


def _handle(transport: asyncio.Transport) -> socket.socket:
    """Return a duplicate of the socket: uvloop's own socket object does not allow options."""
    return socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
