"""Parse a client's bytes into requests and bodies (RFC 9112), one request at a time.

Other parsers can't stop between two requests, and do not report the framing of a head. This one
stops after each request until `resume`, so no request is parsed before all earlier responses are
sent. See docs/decisions/http1-parser.md.
"""

import re
from enum import Enum, auto
from typing import Protocol

from service.errors import HeadersTooLarge, Malformed, Problem
from service.http1.head import HEAD_LIMIT, Head, check_beginning, parse_head
from service.http1.headers import TOKEN, HeaderReader, parse_field

# Maximum bytes of a chunk-size line with its extension, and of a trailer line.
CHUNK_LINE_LIMIT, TRAILER_LINE_LIMIT = 1_024, 8_192
# Framing bytes that a chunked body may have above its content: a chunk costs as much as 1,000 bytes
# of a plain body. A client that sends each word of a JSON document as a chunk stays below it.
CHUNK_OVERHEAD_LIMIT = 131_072
# Chunks to parse in one iteration of the event loop: 3 ms.
CHUNKS_A_TURN = 4_096

# RFC 9110, 6.5.1: headers about framing must not be trailers.
NEVER_TRAILERS = frozenset({b"transfer-encoding", b"content-length"})

_BLANK_LINES = re.compile(rb"(?:\r\n)+")
_QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
_EXTENSION = b";" + TOKEN + b"(?:=(?:" + TOKEN + b"|" + _QUOTED + b"))?"
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:" + _EXTENSION + rb")*\r\n")
_CHUNK_LINE_BEGINS = re.compile(rb"(?:[0-9A-Fa-f]{1,16}(?:;[\t\x20-\x7e\x80-\xff]*)?\r?)?")


class State(Enum):
    """The expected input: head, body bytes, chunk size, chunk data, trailers, or none (END)."""

    HEAD = auto()
    BODY = auto()
    CHUNK_LINE = auto()
    CHUNK = auto()
    TRAILERS = auto()
    CLOSED = auto()


# Module-level names: an Enum attribute costs one more lookup, five times per request.
HEAD, BODY, CHUNK_LINE = State.HEAD, State.BODY, State.CHUNK_LINE
CHUNK, TRAILERS, CLOSED = State.CHUNK, State.TRAILERS, State.CLOSED


class Receiver(Protocol):
    """Receives the requests. A head with a body (`length` is not 0) precedes `body` and `end`."""

    def request(self, head: Head) -> None: ...
    def body(self, part: bytes) -> None: ...
    def end(self) -> None: ...

    def refuse(self, problem: Problem, method: str) -> None:
        """The input is not a request; `method` is its first word, at most 32 characters."""

    def break_off(self, problem: Problem) -> None:
        """The rest of the body can't be read."""


class Parser:
    """Parses the requests of one connection, in their order.

    `data` is the input that is not parsed yet; `busy` says that a request is not answered yet.
    """

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self.reader = HeaderReader()
        self.data = b""
        self.busy = False
        self.state = HEAD
        self.left = 0  # bytes of the body or chunk that have not arrived
        self.overhead = 0  # bytes of a chunked body: framing minus content
        self.trailers = 0  # bytes

    @property
    def awaits_head(self) -> bool:
        """Whether the next byte is the first of a request."""
        return self.state is HEAD and not self.data and not self.busy

    def feed(self, data: bytes) -> bool:
        """Parse more input; see `proceed`."""
        if self.data:
            seen, data = len(self.data), self.data + data
        else:
            seen = 0
        self.data = data
        return self.proceed(seen)

    def resume(self) -> bool:
        """Continue after the response to a request; see `proceed`."""
        self.busy = False
        return bool(self.data) and self.proceed()

    def proceed(self, seen: int = 0) -> bool:
        """Parse `data`; its first `seen` bytes are known to have no complete head.

        Return whether to call it again in the next iteration of the event loop.
        """
        data, at, again = self.data, 0, False
        end = len(data)
        try:
            while at < end:
                state = self.state
                if state is HEAD:
                    if self.busy:
                        break
                    after = self._head(data, at, seen)
                elif state is BODY:
                    after = self._body(data, at)
                elif state is TRAILERS:
                    after = self._trailer(data, at)
                elif state is CLOSED:
                    after = end
                else:
                    after, again = self._chunks(data, at)
                if after == at or again:
                    at = after
                    break
                at = after
        except Problem as problem:
            self._refuse(problem, data[at : at + 32])
            return False
        self.data = data[at:] if at else data
        return again

    def _refuse(self, problem: Problem, beginning: bytes) -> None:
        in_head = self.state is HEAD
        self.state, self.data = CLOSED, b""
        if in_head:
            method = beginning.lstrip(b"\r\n").partition(b" ")[0]
            self.receiver.refuse(problem, method.decode("latin-1"))
        else:
            self.receiver.break_off(problem)

    # Each of these parses from offset `at` and returns the new offset, or `at` to wait for input.

    def _head(self, data: bytes, at: int, seen: int) -> int:
        if data.startswith(b"\r\n", at):  # some clients send it after a body (RFC 9112, 2.2)
            blank = _BLANK_LINES.match(data, at)
            return blank.end() if blank else at
        end = data.find(b"\r\n\r\n", max(at, seen - 3))
        if end < 0:
            check_beginning(data[at:], seen - at)
            return at
        head = parse_head(data, at, end, self.reader)
        self.busy = True
        if head.length is None:
            self.state, self.overhead, self.trailers = CHUNK_LINE, 0, 0
        elif head.length:
            self.state, self.left = BODY, head.length
        self.receiver.request(head)
        return end + 4

    def _body(self, data: bytes, at: int) -> int:
        part = data[at : at + self.left]
        self.left -= len(part)
        self.receiver.body(part)
        if not self.left:
            self._end()
        return at + len(part)

    def _end(self) -> None:
        self.state = HEAD
        self.receiver.end()

    def _chunks(self, data: bytes, at: int) -> tuple[int, bool]:
        parts: list[bytes] = []
        again = False
        for _ in range(CHUNKS_A_TURN):
            if self.state is CHUNK_LINE:
                line = _CHUNK_LINE.match(data, at)
                if line is None:
                    _check_chunk_line(data[at : at + CHUNK_LINE_LIMIT + 1])
                    break
                size = int(line[1], 16)
                self._count_overhead(line.end() - at, size)
                at = line.end()
                if not size:
                    self.state = TRAILERS
                    break
                self.state, self.left = CHUNK, size
            part = data[at : at + self.left]
            if part:
                self.left -= len(part)
                parts.append(part)
                at += len(part)
            if self.left:
                break
            ending = data[at : at + 2]
            if ending != b"\r\n":
                if ending not in {b"", b"\r"}:
                    raise Malformed("a chunk does not have the length of its size line")
                break
            at += 2
            self.state = CHUNK_LINE
        else:
            again = True
        if parts:
            self.receiver.body(b"".join(parts))
        return at, again

    def _count_overhead(self, line: int, size: int) -> None:
        self.overhead += line + 2 - size
        if line > CHUNK_LINE_LIMIT or self.overhead > CHUNK_OVERHEAD_LIMIT:
            raise Malformed("the chunks of the body are too small: send larger ones")

    def _trailer(self, data: bytes, at: int) -> int:
        """Check trailers like headers and discard them: no resource uses any."""
        end = data.find(b"\r\n", at)
        if end == at:
            self._end()
            return end + 2
        size = (end if end > 0 else len(data)) - at
        if size > TRAILER_LINE_LIMIT or self.trailers + size > HEAD_LIMIT:
            raise HeadersTooLarge(f"the trailers are longer than {HEAD_LIMIT} bytes")
        if end < 0:
            return at
        self.trailers += size
        name, _ = parse_field(data[at:end])
        if name in NEVER_TRAILERS:
            raise Malformed(f"{name.decode()} must not be a trailer")
        return end + 2


def _check_chunk_line(data: bytes) -> None:
    """Reject an incomplete chunk-size line that can't become valid."""
    if len(data) > CHUNK_LINE_LIMIT or not _CHUNK_LINE_BEGINS.fullmatch(data):
        raise Malformed("a chunk must begin with a line that has its size in hexadecimal digits")
