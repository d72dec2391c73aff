"""Files of rows: what readers of NDJSON (here) and of CSV (table.py) share."""

import hashlib
from collections.abc import Iterator

import msgspec
from msgspec import Struct

from service.errors import InvalidLines, LineError, Problem, TooLarge
from service.web.body import Body

# Errors that are told one by one, the first ones.
TOLD = 100
# Lines that are known to be wrong: a line that comes again is not read again. So a small file that
# gzip made of a million equal lines costs little.
KNOWN, KNOWN_LENGTH = 1000, 200
BOM = b"\xef\xbb\xbf"

# A line by its number, and what it holds.
Row = tuple[int, Struct]


class Trailer(Struct, frozen=True, forbid_unknown_fields=True):
    """The last line of a file that proves to be whole: how many rows, and what they add up to.

    `checksum` is the SHA-256 of every byte before the line, in hexadecimal digits.
    """

    count: int
    checksum: str


class Reader:
    """Makes rows of a file's bytes as they come.

    `line` is the number of the last line that was read, `read` how many of them were to be rows,
    `failed` how many of these are wrong, and `errors` tells of the first TOLD.

    Args:
        limit: bytes of a line.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.line = self.read = self.failed = 0
        self.errors: list[LineError] = []
        self._wrong: set[bytes] = set()

    def feed(self, data: bytes) -> Iterator[Row | None]:
        """The rows of the lines that end in it, and None for each that is wrong."""
        raise NotImplementedError

    def end(self) -> Iterator[Row | None]:
        """The row of the last line, where nothing ends it."""
        raise NotImplementedError

    def known_wrong(self, text: bytes) -> bool:
        """Whether this line was wrong before, and need not be told of; then it is counted."""
        if text in self._wrong and len(self.errors) >= TOLD:
            self.failed += 1
            return True
        return False

    def fail(self, line: int, message: str, text: bytes = b"") -> None:
        """Count a line that is wrong, and tell of it if it is one of the first."""
        self.failed += 1
        if len(self.errors) < TOLD:
            self.errors.append(LineError(line, message))
        if text and len(text) <= KNOWN_LENGTH:
            if len(self._wrong) >= KNOWN:
                self._wrong.clear()
            self._wrong.add(text)


class Lines(Reader):
    """Reads NDJSON: a JSON document per line; blank lines are passed over.

    Args:
        struct: what a line holds.
        limit: bytes of a line.
    """

    def __init__(self, struct: type[Struct], limit: int) -> None:
        super().__init__(limit)
        self._rest = b""
        self._body = Body(struct)
        self._sum = hashlib.sha256()
        self._digest = ""
        self._ended: int | None = None

    def feed(self, data: bytes) -> Iterator[Row | None]:
        """The rows of the lines that end in it, and None for each that is wrong.

        Raises:
            TooLarge: a line is too long.
            InvalidLines: the file has a trailer, and is not what it says.
        """
        block, newline, rest = (self._rest + data).rpartition(b"\n")
        self._rest = rest
        if newline:
            yield from self._rows(block + newline)
        if len(self._rest) > self.limit:
            raise too_long(self.line + 1, self.limit)

    def end(self) -> Iterator[Row | None]:
        """The row of the last line, where nothing ends it."""
        block, self._rest = self._rest, b""
        if block:
            yield from self._rows(block)

    def _rows(self, block: bytes) -> Iterator[Row | None]:
        # Where a trailer may stand the sum is noted before it.
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
                raise _not_whole(self.line, f"line {self._ended} was to be the last")
            if line.startswith(b'{"count":') and (trailer := _trailer(line)):
                self._check(trailer)
                continue
            self.read += 1
            if wrong and self.known_wrong(line):
                continue  # a slice of such lines takes no 2 ms
            value = quick(line) or self._slowly(line)
            yield None if value is None else (self.line, value)

    def _slowly(self, line: bytes) -> Struct | None:
        try:
            if len(self.errors) >= TOLD and self._body.is_wrong(line):
                self.fail(self.line, "", line)  # what is wrong with it is not told any more
                return None
            return self._body.decode(line)
        except Problem as problem:
            self.fail(self.line, _told(problem), line)
            return None

    def _check(self, trailer: Trailer) -> None:
        self._ended = self.line
        if (trailer.count, trailer.checksum) != (self.read, self._digest):
            raise _not_whole(self.line, "the lines before it are not those that were written")


def too_long(line: int, limit: int) -> TooLarge:
    """The problem of a line that is longer than the limit."""
    return TooLarge(f"line {line} is longer than {limit} bytes")


def _trailer(line: bytes) -> Trailer | None:
    try:
        return msgspec.json.decode(line, type=Trailer)
    except msgspec.DecodeError:
        return None


def _not_whole(line: int, message: str) -> InvalidLines:
    return InvalidLines("the file is not whole; nothing was written", [LineError(line, message)])


def _told(problem: Problem) -> str:
    """As it is told of a line, not of a body."""
    return problem.detail.removeprefix("the body is ").removeprefix("the body ")
