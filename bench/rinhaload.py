"""The load of the Rinha de Backend 2023-Q3, with the rates and the mix of its published test.

Users arrive by the clock, whatever the server does. Each has a connection of its own, as in the
original, which uses Gatling. One kind creates a person, pauses, and reads it if it was created; one
searches; one searches without a term. The bodies have the published lengths and shares of errors.
"""

import asyncio
import heapq
import json
import random
import string
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from math import sqrt
from time import perf_counter
from typing import NamedTuple, cast

# The ramp takes 3 minutes in the original.
RAMP = 180
# Seconds, and users per second at the begin and the end.
Phases = Sequence[tuple[float, float, float]]
CREATE, READ, SEARCH, NO_TERM = "create", "read", "search", "search without a term"
# The statuses that the original accepts.
EXPECTED = {CREATE: {201, 400, 422}, READ: {200}, SEARCH: {200}, NO_TERM: {400}}
TIMEOUT = 60.0
NO_ANSWER = 0
TECHNOLOGIES = (
    *("Javascript", "Python", "Go", "Java", "Kotlin", "PHP", "C#", "Swift", "R", "Ruby", "C"),
    *("C++", "Matlab", "TypeScript", "Scala", "SQL", "HTML", "CSS", "NoSQL", "Rust", "Perl"),
    *("C#", "Clojure", "MySQL", "Postgres"),
)
LETTERS, SPACED = string.ascii_letters, f"{string.ascii_letters} "
TERMS = 5000


def phases(kind: str, rate: float, ramp: float) -> Phases:
    """Return when users of a kind arrive.

    Args:
        kind: of users.
        rate: factor of the published rates.
        ramp: seconds of the ramp. The time before it, 25 s, is scaled alike.
    """
    first = {CREATE: ((10, 2, 2), (15, 5, 5)), SEARCH: ((25, 2, 2),), NO_TERM: ((25, 2, 2),)}
    last = {CREATE: 600, SEARCH: 100, NO_TERM: 40}
    return [
        (seconds * ramp / RAMP, begin * rate, end * rate)
        for seconds, begin, end in (*first[kind], (RAMP, 6, last[kind]))
    ]


def arrivals(given: Phases) -> Iterator[float]:
    """Yield the second in which each user arrives."""
    began = 0.0
    for seconds, begin, end in given:
        growth = (end - begin) / seconds
        for n in range(round((begin + end) / 2 * seconds)):
            count = n + 0.5
            if growth:
                yield began + (sqrt(begin**2 + 2 * growth * count) - begin) / growth
            else:
                yield began + count / begin
        began += seconds


def body(random_: random.Random) -> bytes:
    """Return the body of a POST; each field is wrong once in 99 times.

    As in the original, a birthday that counts as right may be in month 13, or on February 29: some
    8 in 100 are not dates. Short nicknames are often taken.
    """

    def text(letters: str, length: int) -> str:
        return "".join(random_.choices(letters, k=length))

    def wrong() -> bool:
        return random_.randrange(99) == 0

    nickname = text(LETTERS, 35 if wrong() else random_.randint(1, 32))
    name = text(SPACED, 120 if wrong() else random_.randint(1, 100))
    if wrong():
        birthday = random_.choice(('"12-12-2000"', "null", "10", '"?!?!?"'))
    else:
        year, month, day = (random_.randint(*span) for span in ((1940, 2020), (1, 13), (1, 29)))
        birthday = f"{year}-{month:02}-{day:02}"
    stack: object = None
    if wrong():
        stack = random_.choice((["1" * 40], "string", 1))
    elif random_.randrange(14):
        stack = random_.choices(TECHNOLOGIES, k=random_.randint(1, len(TECHNOLOGIES) + 1))
    person = {"apelido": nickname, "nome": name, "nascimento": birthday, "stack": stack}
    return json.dumps(person).encode()


def term(random_: random.Random) -> str:
    """Return the term of a search: 1 to 50 letters and spaces."""
    return "".join(random_.choices(SPACED, k=random_.randint(1, 50))).strip() or "x"


class Answer(NamedTuple):
    """A response; `status` is NO_ANSWER if none came."""

    status: int
    head: bytes
    body: bytes


class Connection(asyncio.Protocol):
    """A connection that asks one thing at a time."""

    def __init__(self) -> None:
        self.data = b""
        self.answer: asyncio.Future[Answer] | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is not a subclass.
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.data += data
        head, end, sent = self.data.partition(b"\r\n\r\n")
        if not end or self.answer is None or self.answer.done():
            return
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        if len(sent) >= length:
            self.answer.set_result(Answer(int(head[9:12]), head, sent))

    def connection_lost(self, error: Exception | None) -> None:
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(error or ConnectionResetError())

    async def ask(self, request: bytes) -> Answer:
        """Send a request, and return the response."""
        assert self.transport is not None
        self.data, self.answer = b"", asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await self.answer


class Load:
    """A run of the load.

    Attributes:
        statuses: how many responses of each kind had each status.
        took: seconds from connecting to the end of the response, by kind; of a read, which reuses
            the connection, from sending.
        late: seconds from when a user was due to when it began.
        wrong: what a response said that it must not, as a read of another person.
    """

    def __init__(self, port: int, rate: float, ramp: float) -> None:
        self.port = port
        self.statuses: dict[str, Counter[int]] = {kind: Counter() for kind in EXPECTED}
        self.took = {kind: array("d") for kind in EXPECTED}
        self.late = array("d")
        self.wrong: list[str] = []
        self._random = random.Random(1)  # the same bodies in each run
        due = {kind: list(arrivals(phases(kind, rate, ramp))) for kind in EXPECTED if kind != READ}
        self._due = list(heapq.merge(*([(second, kind) for second in due[kind]] for kind in due)))
        self._bodies = iter([body(self._random) for _ in due[CREATE]])
        self._terms = [term(self._random) for _ in range(TERMS)]

    @property
    def requests(self) -> int:
        """How many requests were sent."""
        return sum(counts.total() for counts in self.statuses.values())

    @property
    def unexpected(self) -> int:
        """How many responses had a status that the original does not accept, or did not come."""
        return sum(
            count
            for kind, counts in self.statuses.items()
            for status, count in counts.items()
            if status not in EXPECTED[kind]
        )

    async def run(self, say: Callable[[str], None]) -> None:
        """Send everything, and wait for all responses."""
        began, said = perf_counter(), 0.0
        async with asyncio.TaskGroup() as group:
            for number, (second, kind) in enumerate(self._due):
                ahead = began + second - perf_counter()
                if ahead > 0:
                    await asyncio.sleep(ahead)
                self.late.append(max(0.0, perf_counter() - began - second))
                group.create_task(self._user(kind, number))
                if second - said >= 30:
                    said = second
                    say(f"{second:.0f} s of the load, {self.requests} requests")

    async def _user(self, kind: str, number: int) -> None:
        if kind == CREATE:
            sent = next(self._bodies)
            request = b"POST /pessoas HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
            request += b"Content-Length: %d\r\n\r\n%b" % (len(sent), sent)
        else:
            query = ""
            if kind == SEARCH:
                query = "?t=" + self._terms[number % TERMS].replace(" ", "%20")
            request = f"GET /pessoas{query} HTTP/1.1\r\nHost: bench\r\n\r\n".encode()
        began, asked = perf_counter(), kind
        one = Connection()
        try:
            async with asyncio.timeout(TIMEOUT):
                loop = asyncio.get_running_loop()
                await loop.create_connection(lambda: one, "127.0.0.1", self.port)
                answer = await one.ask(request)
            self._note(kind, answer.status, began)
            if kind == CREATE:
                await asyncio.sleep(random.uniform(0.001, 0.03))
            if answer.status == 201:
                asked, began = READ, perf_counter()
                async with asyncio.timeout(TIMEOUT):
                    await self._read(one, answer, began)
        except (OSError, TimeoutError):
            self._note(asked, NO_ANSWER, began)
        finally:
            if one.transport is not None:
                one.transport.close()

    async def _read(self, one: Connection, created: Answer, began: float) -> None:
        location = created.head.partition(b"\r\nlocation: ")[2].split(b"\r\n")[0]
        read = await one.ask(b"GET %b HTTP/1.1\r\nHost: bench\r\n\r\n" % location)
        self._note(READ, read.status, began)
        if read.status == 200 and read.body != created.body:
            self.wrong.append(f"{location.decode()} is {read.body[:200].decode()}")

    def _note(self, kind: str, status: int, began: float) -> None:
        self.statuses[kind][status] += 1
        self.took[kind].append(perf_counter() - began)
