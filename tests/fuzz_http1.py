"""Compare our HTTP/1.1 parser with h11's on requests with random errors.

    python tests/fuzz_http1.py --seconds 60
    python tests/fuzz_http1.py --seed 1234 --inputs 1

Each input is a stream of a few requests, most of them mutated. These must hold:

* We accept no request that h11 rejects or parses differently (method, target, headers, body).
* Without a mutation, all requests are accepted.
* Packet boundaries make no difference.
* The parser raises only Problem, and only internally.

We may reject more than h11. One thing is the other way round: we accept an empty line before a
request, as RFC 9112, 2.2 asks, and h11 does not. Requests after an empty line are not compared.
"""

import argparse
import random
import re
import sys
import time
from pathlib import Path
from typing import NamedTuple

import h11

sys.path.insert(0, str(Path(__file__).parent.parent))

from service.errors import Problem
from service.http1.head import Head
from service.http1.parser import Parser

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "BREW", "get", "M-SEARCH")
TARGETS = ("/", "/items/1", "/items?q=a&page=1", "/a%20b", "/%2F", "http://h/x?y", "/" + "a" * 300)
HEADERS = (
    "Accept: */*",
    "User-Agent: someone/1.0 (of \xe4)",
    "X-Empty:",
    "X-Spaces: \t a b \t ",
    "Content-Type: application/json",
    "Connection: keep-alive",
    "Expect: 100-continue",
    "Cookie: a=b; c=d",
    "Upgrade: h2c",
    "Connection: Upgrade, HTTP2-Settings",
)
# Inserted by mutations: parsers disagree about these.
WORDS = (
    *(b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\0", b" ", b"\t", b"\x0b", b"\x0c", b"\x7f", b"\x80"),
    *(b":", b",", b";", b"#", b"/", b"+", b"-", b"_", b"0", b"1", b"f", b"g", b"0x", b"\xff"),
    *(b"chunked", b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip\r\n"),
    *(b"Transfer-Encoding: chunked, chunked\r\n", b"Transfer-Encoding:\tchunked\r\n"),
    *(b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Content-Length: 5, 5\r\n"),
    *(b"Content-Length: +5\r\n", b"Host: b\r\n", b" folded\r\n", b"HTTP/1.0", b"HTTP/2.0"),
    *(b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n", b"0\r\n\r\n", b"5\r\nhello\r\n", b"Host:"),
)


class Request(NamedTuple):
    method: bytes
    target: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


class Ours:
    """Receiver of our parser: collects requests until one that closes the connection."""

    def __init__(self) -> None:
        self.parser = Parser(self)
        self.head: Head | None = None
        self.content = b""
        self.taken: list[Request] = []
        self.refused = False
        self.closed = False

    def feed(self, data: bytes) -> None:
        again = self.parser.feed(data)
        while not self.closed and not self.refused:
            if again:
                again = self.parser.proceed()
            elif self.head is None and self.parser.busy:
                again = self.parser.resume()
            else:
                break

    def request(self, head: Head) -> None:
        assert not self.closed
        assert not self.refused
        self.head, self.content = head, b""
        if head.length == 0:
            self.end()

    def body(self, part: bytes) -> None:
        assert part
        self.content += part

    def end(self) -> None:
        head, self.head = self.head, None
        assert head is not None
        target = head.path + (b"?" + head.query if head.query else b"")
        found = Request(head.method.encode(), target, tuple(head.headers), self.content)
        self.taken.append(found)
        self.closed = not head.keep

    def refuse(self, problem: Problem, method: str) -> None:
        assert 400 <= problem.status < 600
        assert len(method) <= 32
        self.refused = True

    def break_off(self, problem: Problem) -> None:
        self.refuse(problem, "")


def ours(parts: list[bytes]) -> tuple[list[Request], bool]:
    one = Ours()
    for part in parts:
        if one.closed or one.refused:
            break
        one.feed(part)
    return one.taken, one.refused


def theirs(data: bytes) -> tuple[list[Request], str]:
    """Return the requests that h11 accepts, and why it stopped."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1_000_000)
    connection.receive_data(data)
    taken: list[Request] = []
    head: h11.Request | None = None
    body = b""
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                head, body = event, b""
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                assert head is not None
                headers = tuple((bytes(name), bytes(value)) for name, value in head.headers)
                taken.append(Request(head.method, head.target, headers, body))
                connection.send(h11.Response(status_code=400, headers=[("content-length", "0")]))
                connection.send(h11.EndOfMessage())
                if connection.their_state is not h11.DONE or connection.our_state is not h11.DONE:
                    return taken, "the connection is closed"
                connection.start_next_cycle()
            else:  # NEED_DATA, PAUSED or the end
                return taken, "more must come"
    except h11.RemoteProtocolError as error:
        return taken, str(error)


def well_formed(chance: random.Random) -> bytes:
    """Return a request that both accept."""
    lines = [f"{chance.choice(METHODS)} {chance.choice(TARGETS)} HTTP/1.1", "Host: h"]
    lines += chance.sample(HEADERS, chance.randrange(4))
    body = b""
    kind = chance.randrange(3)
    if kind == 1:
        body = chance.randbytes(chance.choice((0, 1, 5, 300)))
        lines.append(f"Content-Length: {len(body)}")
    elif kind == 2:
        lines.append(f"{chance.choice(('Transfer-Encoding', 'transfer-encoding'))}: chunked")
        for _ in range(chance.randrange(4)):
            part = chance.randbytes(chance.choice((1, 5, 16, 200)))
            extension = chance.choice((b"", b";a", b';a="b c"'))
            body += b"%x%b\r\n%b\r\n" % (len(part), extension, part)
        body += b"0\r\n" + chance.choice((b"", b"X: a\r\n", b"A: b\r\nC:\r\n")) + b"\r\n"
    chance.shuffle(headers := lines[1:])
    return "\r\n".join([lines[0], *headers, "", ""]).encode("latin-1") + body


def mutated(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data) + 1)
    match chance.randrange(7):
        case 0:  # a byte
            return data[:at] + chance.randbytes(1) + data[at + 1 :]
        case 1:  # remove a part
            return data[:at] + data[at + chance.choice((1, 2, 5, 20)) :]
        case 2:  # repeat a part
            return data[:at] + data[max(0, at - chance.randrange(40)) :]
        case 3:  # a line end
            ends = [one.start() for one in re.finditer(b"\r\n", data)]
            at = chance.choice(ends or [0])
            return (
                data[:at] + chance.choice((b"\n", b"\r", b"", b"\r\r\n", b" \r\n")) + data[at + 2 :]
            )
        case 4:  # after a line end
            ends = [one.end() for one in re.finditer(b"\r\n", data)]
            at = chance.choice(ends or [0])
            return data[:at] + chance.choice(WORDS) + data[at:]
        case 5:  # in a header that is about framing
            names = rb"(?i)(?:transfer-encoding|content-length|host|connection|expect):|HTTP/1"
            places = [one.end() for one in re.finditer(names, data)]
            at = chance.choice(places or [0]) + chance.randrange(4)
            return data[:at] + chance.choice(WORDS) + data[at:]
        case _:
            return data[:at] + chance.choice(WORDS) + data[at:]


def cuts(data: bytes, chance: random.Random) -> list[bytes]:
    if len(data) < 600 and chance.randrange(4) == 0:
        return [data[at : at + 1] for at in range(len(data))]
    places = sorted(chance.randrange(len(data) + 1) for _ in range(chance.randrange(1, 6)))
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


def check(seed: int) -> tuple[int, int]:
    """Check one input; return how many requests we accepted, and how many h11 did.

    Raises:
        AssertionError: a rule is broken.
    """
    chance = random.Random(seed)
    requests = [well_formed(chance) for _ in range(chance.randrange(1, 4))]
    changes = chance.choice((0, 1, 1, 1, 2, 3))
    data = b"".join(requests)
    for _ in range(changes):
        data = mutated(data, chance)
    taken, refused = ours([data])
    for _ in range(2):
        assert ours(cuts(data, chance)) == (taken, refused), "it makes a difference where it is cut"
    known, why = theirs(data)
    for mine, its in zip(taken, known, strict=False):
        assert agree(mine, its), f"read in two ways: {mine} {its}"
    if why != "no request line received":  # an empty line
        assert len(taken) <= len(known), f"h11 refuses {taken[len(known)]}: {why}"
    if not changes:
        assert not refused, "refused, though nothing is wrong"
        assert len(taken) == len(known) == len(requests)
    return len(taken), len(known)


def agree(mine: Request, its: Request) -> bool:
    path, _, query = its.target.partition(b"?")
    mine, target = in_small_letters(mine), its.target if query else path
    if its.target.lower().startswith(b"http"):  # we tell the path, and take the host of the URL
        return unhosted(mine) == unhosted(its) and target.endswith(mine.target[1:])
    return mine == its._replace(target=target)


def in_small_letters(request: Request) -> Request:
    """Return the request with the transfer coding in lower case, as h11 reports it."""
    headers = tuple(
        (name, value.lower() if name == b"transfer-encoding" else value)
        for name, value in request.headers
    )
    return request._replace(headers=headers)


def unhosted(request: Request) -> Request:
    headers = tuple(pair for pair in request.headers if pair[0] != b"host")
    return request._replace(target=b"", headers=headers)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=60)
    options.add_argument("--inputs", type=int, default=sys.maxsize)
    options.add_argument("--seed", type=int, default=random.randrange(10**9))
    chosen = options.parse_args()
    print(f"the first seed is {chosen.seed}", flush=True)
    until = time.monotonic() + chosen.seconds
    done = we = they = 0
    while done < chosen.inputs and time.monotonic() < until:
        try:
            counts = check(chosen.seed + done)
        except BaseException:
            print(f"wrong: python tests/fuzz_http1.py --inputs 1 --seed {chosen.seed + done}")
            raise
        done, we, they = done + 1, we + counts[0], they + counts[1]
    print(f"{done:,} inputs; we took {we:,} requests, h11 {they:,}")


if __name__ == "__main__":
    main()
