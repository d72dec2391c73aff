"""What the kernel knows of a connection, and a transport of uvloop does not tell."""

import asyncio
import fcntl
import os
import socket
import struct
import sys
import termios
from contextlib import suppress


def reset(transport: asyncio.Transport) -> None:
    """End by RST in the place of FIN: an answer that ends with the connection is not whole."""
    with suppress(OSError), _handle(transport) as handle:
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def unsent_bytes(transport: asyncio.Transport) -> int:
    """Bytes of the answer that the client has yet to take, those in the kernel included."""
    size = transport.get_write_buffer_size()
    with suppress(OSError), _handle(transport) as handle:
        waiting = fcntl.ioctl(handle, termios.TIOCOUTQ, bytes(4))
        size += int.from_bytes(waiting, sys.byteorder)
    return size


def _handle(transport: asyncio.Transport) -> socket.socket:
    """A handle of its own on the connection: that of uvloop has no options."""
    return socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
