"""Read files of rows: the base of both readers, and NDJSON. CSV is in table.py."""

import hashlib
from collections.abc import Iterator
from functools import cache

import msgspec
from msgspec import Struct

from service.errors import InvalidLines, LineError, Problem, TooLarge
from service.web.body import Body

# Errors to report, from the first; more are only counted.
MAX_REPORTED = 100
# Wrong lines to remember (with at most KNOWN_LENGTH bytes). An equal line is not parsed again, so a
# million equal lines, which gzip makes small, cost little.
KNOWN, KNOWN_LENGTH = 1000, 200
BOM = b"\xef\xbb\xbf"

# The number of a line, and its row.
Row = tuple[int, Struct]


class Trailer(Struct, frozen=True, forbid_unknown_fields=True):
    """The last line of a file: it proves that the file is complete.

    Args:
        count: rows in the file.
        checksum: SHA-256 of every byte before this line, in hexadecimal digits.
    """

    count: int
    checksum: str


class Reader:
    """Parses the rows of a file as its bytes arrive.

    Attributes:
        line: number of the last line that was read.
        read: rows that were read, valid or not.
        failed: rows that are wrong.
        errors: the first MAX_REPORTED errors.

    Args:
        limit: maximum bytes of a line.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.line = self.read = self.failed = 0
        self.errors: list[LineError] = []
        self._wrong: set[bytes] = set()

    def feed(self, data: bytes) -> Iterator[Row | None]:
        """Yield the row of each line that ends in `data`, and None for a wrong line."""
        raise NotImplementedError

    def end(self) -> Iterator[Row | None]:
        """Yield the row of a last line without a line end."""
        raise NotImplementedError

    def known_wrong(self, text: bytes) -> bool:
        """Count the line and return True if an equal line was wrong and no report is needed."""
        if text in self._wrong and len(self.errors) >= MAX_REPORTED:
            self.failed += 1
            return True
        return False

    def fail(self, line: int, message: str, text: bytes = b"") -> None:
        """Count a wrong line, and report it if it is one of the first MAX_REPORTED."""
        self.failed += 1
        if len(self.errors) < MAX_REPORTED:
            self.errors.append(LineError(line, message))
        if text and len(text) <= KNOWN_LENGTH:
            if len(self._wrong) >= KNOWN:
                self._wrong.clear()
            self._wrong.add(text)


class NdjsonReader(Reader):
    """Reads NDJSON: a JSON document per line. Blank lines are ignored.

    Args:
        struct: type of a line.
        limit: maximum bytes of a line.
    """

    def __init__(self, struct: type[Struct], limit: int) -> None:
        super().__init__(limit)
        self._rest = b""
        self._body = _body(struct)
        self._sum = hashlib.sha256()
        self._digest = ""
        self._ended: int | None = None

    def feed(self, data: bytes) -> Iterator[Row | None]:
        """Yield the row of each line that ends in `data`, and None for a wrong line.

        Raises:
            TooLarge: a line is too long.
            InvalidLines: the file does not match its trailer.
        """
        block, newline, rest = (self._rest + data).rpartition(b"\n")
        self._rest = rest
        if newline:
            yield from self._rows(block + newline)
        if len(self._rest) > self.limit:
            raise too_long(self.line + 1, self.limit)

    def end(self) -> Iterator[Row | None]:
        """Yield the row of a last line without a line end."""
        block, self._rest = self._rest, b""
        if block:
            yield from self._rows(block)

    def _rows(self, block: bytes) -> Iterator[Row | None]:
        # Take the checksum before a line that may be a trailer.
        start = 0 if block.startswith(b'{"count":') else block.rfind(b'\n{"count":') + 1
        self._sum.update(block[:start])
        self._digest = self._sum.hexdigest() if block.startswith(b'{"count":', start) else ""
        self._sum.update(block[start:])
        quick, wrong = self._body.quick, self._wrong
        for line in block.removesuffix(b"\n").split(b"\n"):
            self.line += 1
            if self.line == 1:
                line = line.removeprefix(BOM)  # noqa: PLW2901 - no other line has one
            if not line or line.isspace():
                continue
            if len(line) > self.limit:
                raise too_long(self.line, self.limit)
            if self._ended is not None:
                raise _incomplete(self.line, f"line {self._ended} must be the last")
            if line.startswith(b'{"count":') and (trailer := _trailer(line)):
                self._check(trailer)
                continue
            self.read += 1
            if wrong and self.known_wrong(line):
                continue  # one step of such lines takes less than 2 ms
            value = quick(line) or self._decode_slowly(line)
            yield None if value is None else (self.line, value)

    def _decode_slowly(self, line: bytes) -> Struct | None:
        try:
            if len(self.errors) >= MAX_REPORTED and self._body.is_wrong(line):
                self.fail(self.line, "", line)  # only counted
                return None
            return self._body.decode(line)
        except Problem as problem:
            self.fail(self.line, _line_message(problem), line)
            return None

    def _check(self, trailer: Trailer) -> None:
        self._ended = self.line
        if (trailer.count, trailer.checksum) != (self.read, self._digest):
            raise _incomplete(self.line, "count or checksum of the lines before it is wrong")


# To make one takes 1.5 ms, for each file otherwise.
@cache
def _body(struct: type[Struct]) -> Body[Struct]:
    return Body(struct)


def too_long(line: int, limit: int) -> TooLarge:
    """Return the error of a line that is longer than the limit."""
    return TooLarge(f"line {line} is longer than {limit} bytes")


def _trailer(line: bytes) -> Trailer | None:
    try:
        return msgspec.json.decode(line, type=Trailer)
    except msgspec.DecodeError:
        return None


def _incomplete(line: int, message: str) -> InvalidLines:
    return InvalidLines("the file is incomplete; nothing was written", [LineError(line, message)])


def _line_message(problem: Problem) -> str:
    """Return the message of a line; problems speak of a body."""
    return problem.detail.removeprefix("the body is ").removeprefix("the body ")
