"""What httptools finds in a client's bytes, told to the connection: requests, bodies, problems."""

import re
from typing import NamedTuple, Protocol

import httptools

from service.errors import HeadersTooLarge, Malformed, Problem

# Of a request's line and headers together.
HEAD_LIMIT = 65_536

# A method by RFC 9110, 5.6.2; and what httptools is given instead of one that it does not know.
_METHOD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}(?= )")
STAND_IN = b"UNLOCK"
FRAMED = frozenset({b"content-length", b"transfer-encoding"})


class Head(NamedTuple):
    """A request without its body; `keep` the connection, `expects` to be told to go on."""

    method: str
    version: str
    path: bytes
    query: bytes
    headers: list[tuple[bytes, bytes]]
    keep: bool
    expects: bool


class Receiver(Protocol):
    """Who is told; after `hang_up` or `refuse` nothing more is fed."""

    def request(self, head: Head) -> None: ...
    def body(self, part: bytes) -> None: ...
    def end(self) -> None: ...
    def hang_up(self) -> None: ...
    def refuse(self, problem: Problem) -> None: ...


class Parser:
    """The requests of one client, in the order of their coming."""

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self.parser = httptools.HttpRequestParser(self)
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.expects = False
        self.method: str | None = None  # one that httptools does not know
        self.head_size: int | None = None  # None outside of a head
        self.in_body = False
        self.begun = 0  # requests, in what is being fed
        self.unasked = 0  # bytes within a body that are not of it: the framing, the trailers
        self.muted = False  # what is parsed now is not the client's

    def feed(self, data: bytes) -> None:
        in_head, in_body = self.head_size is not None, self.in_body
        self.begun = 0
        self.unasked += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._decline_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserInvalidMethodError:
            # Only where the data begins a request: the rest of a body is not to be taken for one.
            alone = self.begun == 1 and not in_head and not in_body
            self._take_unknown_method(data, _METHOD.match(data) if alone else None)
        except httptools.HttpParserError:
            self._refuse(Malformed("this is not HTTP/1.1"))
        if in_head and self.head_size is not None:
            self.head_size += len(data)
        if (self.head_size or 0) > HEAD_LIMIT:
            self._refuse(HeadersTooLarge(f"the headers are longer than {HEAD_LIMIT} bytes"))
        elif in_body and self.unasked > HEAD_LIMIT:
            self._refuse(HeadersTooLarge(f"the trailers are longer than {HEAD_LIMIT} bytes"))

    def _take_unknown_method(self, data: bytes, found: re.Match[bytes] | None) -> None:
        """The parser takes only methods that it knows; which are allowed, the app knows."""
        if found is None:
            self._refuse(Malformed("this is not HTTP/1.1"))
            return
        self.method = found[0].decode()
        self.parser = httptools.HttpRequestParser(self)
        self.feed(STAND_IN + data[found.end() :])

    def _decline_upgrade(self, rest: bytes) -> None:
        """Nothing but HTTP/1.1 is spoken here: answered, its body read, and then the end.

        httptools takes an upgrade's body for another protocol, so a new parser is told how the
        body is framed. (Java's client asks for HTTP/2 that way with each of its requests.)
        """
        framing = self._framing()
        if not framing:
            self.receiver.hang_up()
            return
        self.parser = httptools.HttpRequestParser(self)
        self.muted = True
        head = [b"POST / HTTP/1.1", *(b": ".join(pair) for pair in framing), b"", b""]
        self.parser.feed_data(b"\r\n".join(head))
        if rest:
            self.feed(rest)

    def _framing(self) -> list[tuple[bytes, bytes]]:
        return [pair for pair in self.headers if pair[0] in FRAMED]

    def _refuse(self, problem: Problem) -> None:
        self.head_size = None
        self.receiver.refuse(problem)

    # httptools' calls.

    def on_message_begin(self) -> None:
        self.begun += 1
        if self.muted:
            return
        self.url = b""
        self.headers = []
        self.expects = False
        self.head_size = 0

    def on_url(self, url: bytes) -> None:
        if not self.muted:
            self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.head_size is None:  # a trailer, which nobody asked for; not a header of the request
            return
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expects = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.in_body = True
        if self.muted:
            self.muted = False
            return
        self.head_size = None
        self.unasked = 0
        parser = self.parser
        method = self.method or parser.get_method().decode("ascii")
        self.method = None
        version = parser.get_http_version()
        url = httptools.parse_url(self.url)
        path = url.path or (b"*" if self.url == b"*" else b"/")
        keep = version == "1.1" and parser.should_keep_alive()
        if parser.should_upgrade():
            keep = False
            self.muted = bool(self._framing())  # the end that is told now is not its body's
        head = Head(method, version, path, url.query or b"", self.headers, keep, self.expects)
        self.receiver.request(head)

    def on_body(self, body: bytes) -> None:
        self.unasked = 0
        self.receiver.body(body)

    def on_message_complete(self) -> None:
        if not self.muted:
            self.in_body = False
            self.receiver.end()
