"""The listening sockets: bound before anything starts, closed without resetting connections."""

import ctypes
import errno
import select
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

BACKLOG = 4096
# Seconds for handshakes in progress to finish after new connections are refused.
QUIET_SECONDS = 0.1
# Limit for systems that can't refuse new connections: a client that connects in a loop must not
# delay the stop.
LONGEST_SECONDS = 1.0

SO_ATTACH_FILTER = 26  # Linux; the socket module does not have it
# Classic BPF on a TCP segment: drop it if it has SYN without ACK, keep all others.
DROP_SYN = (
    (0x30, 0, 0, 13),  # load the flags byte
    (0x54, 0, 0, 0x12),  # keep the bits SYN and ACK
    (0x15, 0, 1, 0x02),  # only SYN?
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 0xFFFFFFFF),  # keep
)


class Listener:
    """The sockets of a host and port; with port 0, `port` is the chosen one.

    They are bound but do not listen, so connections are refused until a worker is ready. Forked
    workers share them, with one queue of accepted connections.

    Raises:
        OSError: the address can't be bound.
    """

    def __init__(self, host: str, port: int) -> None:
        self.sockets: list[socket.socket] = []
        self.port = port
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        failure: OSError | None = None
        try:
            for family, _, _, _, address in dict.fromkeys(found):
                try:
                    self._bind(family, address)
                except OSError as error:
                    # The name has an IPv6 address, but this machine has no IPv6.
                    if error.errno not in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
                        raise
                    failure = error
            if failure is not None and not self.sockets:
                raise failure
        except OSError:
            self.close()
            raise

    def _bind(self, family: int, address: tuple[object, ...]) -> None:
        one = socket.socket(family, socket.SOCK_STREAM)
        self.sockets.append(one)
        try:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.setblocking(False)
            one.bind((address[0], self.port, *address[2:]))
        except OSError:
            self.sockets.remove(one)
            one.close()
            raise
        self.port = one.getsockname()[1]

    def close(self) -> None:
        while self.sockets:
            self.sockets.pop().close()

    def turn_away(self) -> None:
        """Refuse new connections, and keep those that the kernel has accepted.

        Closing a listening socket resets the connections in its queue. So on Linux a filter drops
        new SYN packets, and the socket is closed when the queue is empty. Clients retry after a
        second and are refused. On other systems this does nothing.
        """
        if sys.platform != "linux":
            return
        program = ctypes.create_string_buffer(
            b"".join(struct.pack("HBBI", *one) for one in DROP_SYN)
        )
        told = struct.pack("HP", len(DROP_SYN), ctypes.addressof(program))
        for one in self.sockets:
            with suppress(OSError):  # a kernel without filters, or a sandbox without the right
                one.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, told)

    def until_empty(self) -> Iterator[float]:
        """Yield seconds to sleep, until the queue has been empty for a while."""
        began = empty_since = time.monotonic()
        queue = select.poll()
        for one in self.sockets:
            queue.register(one, select.POLLIN)
        while (now := time.monotonic()) - empty_since < QUIET_SECONDS:
            if now - began > LONGEST_SECONDS:
                return
            if queue.poll(0):
                empty_since = now
            yield QUIET_SECONDS / 10
