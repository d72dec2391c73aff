"""Requests as bytes on a socket, and answers as they were sent."""

import socket
from typing import NamedTuple

from conftest import Service

# Behind a request: an answer to it shows that the connection was kept, and closes it.
LAST = b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


def talk(service: Service, *parts: bytes, end: bool = False, seconds: float = 5) -> bytes:
    """Return all data until the server closes; with `end` half-close after `parts`."""
    received = b""
    with socket.create_connection(("127.0.0.1", service.port), timeout=seconds) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for part in parts:
                connection.sendall(part)
            if end:
                connection.shutdown(socket.SHUT_WR)
        except ConnectionError:  # closed before everything was sent; the answer can still be read
            pass
        while part := connection.recv(65536):
            received += part
    return received


def answers(data: bytes, *, head: bool = False) -> list[Answer]:
    """Split the received bytes into answers; with `head` no answer has a body."""
    found = []
    while data:
        top, _, data = data.partition(b"\r\n\r\n")
        first, *lines = top.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (one.partition(": ") for one in lines)}
        length = 0 if head else int(headers.get("content-length", 0))
        found.append(Answer(int(first.split()[1]), headers, data[:length]))
        data = data[length:]
    return found
