"""Bodies of 1000 bytes and more are compressed as Accept-Encoding says; smaller ones are not."""

import asyncio
import gzip
import sys
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from typing import Any, NamedTuple

import httpx
import pytest
from conftest import Query, Service
from hypothesis import given
from hypothesis import strategies as st

from service.cache.local import Local
from service.cache.off import NoCache
from service.cache.response import CachedResponse
from service.web import compress
from service.web.codec import Reply
from service.web.endpoint import Endpoint, Handler, Operation
from service.web.request import Request

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

UNPACK: dict[str | None, Callable[[bytes], bytes]] = {
    None: bytes,
    "gzip": gzip.decompress,
    "zstd": zstd.decompress,
}
TEXT = "A useful widget. "


class Got(NamedTuple):
    status: int
    headers: dict[str, str]
    raw: bytes

    @property
    def encoding(self) -> str | None:
        return self.headers.get("content-encoding")

    @property
    def body(self) -> bytes:
        return UNPACK[self.encoding](self.raw)


class Plainly:
    """A client without default headers, which shows the bytes as they came."""

    def __init__(self, port: int) -> None:
        self.connection = HTTPConnection("127.0.0.1", port, timeout=30)

    def __call__(
        self, path: str, accepts: str | None = None, method: str = "GET", **headers: str
    ) -> Got:
        self.connection.putrequest(method, path, skip_accept_encoding=True)
        if accepts is not None:
            headers["Accept-Encoding"] = accepts
        for name, value in headers.items():
            self.connection.putheader(name.replace("_", "-"), value)
        self.connection.endheaders()
        response = self.connection.getresponse()
        raw = response.read()
        found = Got(
            response.status, {name.lower(): value for name, value in response.getheaders()}, raw
        )
        assert len(response.headers.get_all("etag") or ()) <= 1
        if method != "HEAD" and found.status not in (204, 304):
            assert found.headers["content-length"] == str(len(raw))
        return found


@pytest.fixture
def ask(client: httpx.Client, service: Service) -> Iterator[Plainly]:
    one = Plainly(service.port)
    yield one
    one.connection.close()


def lamp(client: httpx.Client, description: str | None = TEXT * 100) -> str:
    response = client.post("/items", json={"name": "Lamp", "description": description})
    assert response.status_code == 201
    location: str = response.headers["location"]
    return location


# What a client takes.

CASES: tuple[tuple[str | None, str | None], ...] = (
    (None, None),
    ("", None),
    ("identity", None),
    ("br, deflate", None),
    ("gzip", "gzip"),
    ("GZip", "gzip"),
    ("x-gzip", "gzip"),
    ("zstd", "zstd"),
    ("gzip, zstd", "zstd"),
    ("gzip, deflate, br, zstd", "zstd"),
    ("gzip, deflate", "gzip"),
    ("gzip;q=1.0, zstd;q=0.9", "gzip"),
    ("zstd ; q=0.5 ,gzip\t;\tq=0.500", "zstd"),
    ("gzip;q=0", None),
    ("gzip;q=0.000, zstd;q=0", None),
    ("gzip;q=0.001", "gzip"),
    ("*", "zstd"),
    ("*;q=0", None),
    ("*;q=0, gzip", "gzip"),
    ("zstd;q=0, *", "gzip"),
    ("gzip;q=0.2, *;q=0.1", "gzip"),
    ("identity;q=0", None),
    ("identity;q=0, br", None),
    ("identity, gzip;q=0.5", None),
    ("identity;q=0.5, gzip;q=0.5", "gzip"),
    ("gzip;q=2", None),
    ("gzip;q=0.1234", None),
    ("gzip;q=", None),
    ("gzip;level=9", None),
    ("gz ip, zst@d", None),
    (",, ,gzip,,", "gzip"),
    (f"{'x, ' * 60}gzip", "gzip"),
    (f"{'x, ' * 70}gzip", None),
)


@pytest.mark.parametrize(("accepts", "expected"), CASES)
def test_the_encoding_follows_accept_encoding(
    client: httpx.Client, ask: Plainly, accepts: str | None, expected: str | None
) -> None:
    where = lamp(client)
    plain = ask(where)
    for _ in range(3):  # read, kept, found compressed
        found = ask(where, accepts)
        assert (found.status, found.encoding) == (200, expected)
        assert found.body == plain.raw
        assert found.headers["vary"] == "accept-encoding"
        assert found.headers["etag"] == ('"1"' if expected is None else 'W/"1"')
        assert found.headers["content-type"] == "application/json"
        assert (len(found.raw) < 700) == (expected is not None)


def test_a_list_in_several_lines_is_one_list(ask: Plainly, client: httpx.Client) -> None:
    where = lamp(client)
    for _ in range(2):
        ask.connection.putrequest("GET", where, skip_accept_encoding=True)
        ask.connection.putheader("Accept-Encoding", "gzip;q=0.5")
        ask.connection.putheader("Accept-Encoding", "zstd")
        ask.connection.endheaders()
        response = ask.connection.getresponse()
        assert zstd.decompress(response.read())
        assert response.headers["content-encoding"] == "zstd"


@given(st.binary(max_size=60) | st.text("gzipstd*;q=01., \t", max_size=60).map(str.encode))
def test_any_accept_encoding_is_answered(accepts: bytes) -> None:
    assert compress.negotiate([(b"accept-encoding", accepts)]) in (None, b"gzip", b"zstd")


# What is compressed.


def test_a_body_of_less_than_1000_bytes_is_not_compressed(
    client: httpx.Client, ask: Plainly
) -> None:
    where = lamp(client, "x")
    client.patch(where, json={"description": "y"})
    short = len(ask(where).raw) - 1
    for length in (998, 999, 1000, 1001):
        client.patch(where, json={"description": "x" * (length - short)})
        for _ in range(2):
            found = ask(where, "gzip")
            assert len(found.body) == length
            assert found.encoding == ("gzip" if length >= 1000 else None)
            assert ("vary" in found.headers) == (length >= 1000)
            assert found.headers["etag"].startswith("W/") == (length >= 1000)


def test_lists_pages_and_the_document_are_compressed(client: httpx.Client, ask: Plainly) -> None:
    for _ in range(20):
        lamp(client, TEXT)
    paths = ("/items", "/items?cursor=&per_page=7", "/items?q=lamp", "/docs", "/openapi.json")
    for path in paths:
        plain = ask(path)
        assert plain.headers["vary"] == "accept-encoding"
        for accepts in ("gzip", "zstd"):
            for _ in range(2):
                found = ask(path, accepts)
                assert (found.encoding, found.body) == (accepts, plain.raw)
                assert len(found.raw) < len(plain.raw) / 2
                for name in ("content-type", "link", "content-security-policy"):
                    assert found.headers.get(name) == plain.headers.get(name)


def test_the_response_of_a_write_is_compressed(client: httpx.Client) -> None:
    where = lamp(client)
    response = client.patch(where, json={"price": 2})
    assert response.headers["content-encoding"] == "gzip"
    assert (response.headers["etag"], response.json()["version"]) == ('W/"2"', 2)
    new = {"name": "Torch", "description": TEXT * 100}
    made = client.post("/items", json=new, headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in made.headers
    assert (made.headers["vary"], made.headers["etag"]) == ("accept-encoding", '"1"')
    gone = client.delete(where, params={"permanent": "true"})
    assert (gone.status_code, "vary" in gone.headers) == (204, False)


def test_the_tag_of_the_plain_body_guards_a_write(client: httpx.Client) -> None:
    """A weak tag never does (RFC 9110, 13.1.1)."""
    where = lamp(client)
    weak = client.get(where).headers["etag"]
    strong = client.get(where, headers={"Accept-Encoding": "identity"}).headers["etag"]
    assert (weak, strong) == ('W/"1"', '"1"')
    for tag, status in ((weak, 412), (strong, 200)):
        written = client.patch(where, json={"price": 1}, headers={"If-Match": tag})
        assert written.status_code == status


def test_head_has_the_headers_of_get(client: httpx.Client, ask: Plainly) -> None:
    where = lamp(client)
    changing = {"x-request-id", "x-process-time", "server-timing", "date", "x-cache"}
    for path in (where, "/items", "/openapi.json"):
        for accepts in (None, "gzip", "zstd"):
            get, head = ask(path, accepts), ask(path, accepts, "HEAD")
            assert head.raw == b""
            assert {k: v for k, v in head.headers.items() if k not in changing} == {
                k: v for k, v in get.headers.items() if k not in changing
            }


@pytest.mark.parametrize("fresh", (False, True))
def test_a_matching_tag_of_an_encoded_body_is_answered_304(
    client: httpx.Client, ask: Plainly, fresh: bool
) -> None:
    where = lamp(client)
    asked = {"Cache_Control": "no-cache"} if fresh else {}
    for tag in ('"1"', 'W/"1"', '"0", W/"1"', "*"):
        for accepts, expected in ((None, '"1"'), ("gzip", 'W/"1"'), ("gzip;q=0", '"1"')):
            found = ask(where, accepts, If_None_Match=tag, **asked)
            assert (found.status, found.raw, found.encoding) == (304, b"", None)
            assert (found.headers["etag"], found.headers["vary"]) == (expected, "accept-encoding")
            assert found.headers["cache-control"] == "private, no-cache"
            assert "content-type" not in found.headers
    changed = ask(where, "gzip", If_None_Match='W/"2"', **asked)
    assert (changed.status, changed.encoding) == (200, "gzip")
    small = ask(lamp(client, None), "gzip", If_None_Match='"1"', **asked)
    assert (small.status, small.headers["etag"], "vary" in small.headers) == (304, '"1"', False)


def test_a_megabyte_is_sent_in_each_encoding(client: httpx.Client, ask: Plainly) -> None:
    where = lamp(client, TEXT * 55_000)
    for accepts in ("gzip", "zstd"):
        for control in ({"Cache_Control": "no-cache"}, {}, {}):
            found = ask(where, accepts, **control)
            assert found.encoding == accepts
            assert len(found.body) > 900_000
    assert ask(where).encoding is None


# Kept answers.


def came(got: Got) -> tuple[str, str | None]:
    return got.headers["x-cache"], got.encoding


@pytest.mark.parametrize("first", (None, "gzip", "zstd"))
def test_each_encoding_is_cached_whichever_was_read_first(
    client: httpx.Client, ask: Plainly, first: str | None
) -> None:
    where = lamp(client)
    for path in (where, "/items"):
        read = ask(path, first)
        assert came(read) == ("MISS", first)
        for accepts in (None, "gzip", "zstd", None, "gzip", "zstd"):
            found = ask(path, accepts)
            assert came(found) == ("HIT", accepts)
            assert found.body == read.body


def test_after_a_write_no_old_encoding_is_found(client: httpx.Client, ask: Plainly) -> None:
    where = lamp(client)
    for number in range(2, 8):
        for path in (where, "/items"):
            for accepts in ("gzip", "zstd", "gzip", None):
                ask(path, accepts)
        client.patch(where, json={"description": TEXT * (100 + number)})
        for path in (where, "/items"):
            for accepts in ("zstd", None, "gzip"):
                found = ask(path, accepts)
                assert found.body.count(TEXT.encode()) + 1 >= 100 + number
        assert ask(where, "gzip").headers["etag"] == f'W/"{number}"'


def test_a_bypassed_response_is_compressed(client: httpx.Client, ask: Plainly) -> None:
    where = lamp(client)
    for path in (where, "/items"):
        ask(path, "gzip")
        fresh = ask(path, "gzip", Cache_Control="no-cache")
        assert came(fresh) == ("BYPASS", "gzip")
        assert fresh.body == ask(path).raw


def test_a_write_by_another_program_is_seen_in_every_encoding(
    client: httpx.Client, ask: Plainly, sql: Query
) -> None:
    where = lamp(client)
    for accepts in (None, "gzip", "zstd"):
        ask(where, accepts)
    sql("UPDATE items SET name = 'Foreign'")
    until = time.monotonic() + 30
    while b"Foreign" not in ask(where, "gzip").body:
        assert time.monotonic() < until
    for accepts in (None, "gzip", "zstd"):
        assert b"Foreign" in ask(where, accepts).body


def test_a_cached_encoding_has_the_same_headers_as_a_new_one(
    client: httpx.Client, ask: Plainly
) -> None:
    where = lamp(client)
    changing = {"x-request-id", "x-process-time", "server-timing", "date", "x-cache"}
    for accepts in (None, "gzip", "zstd"):
        answers = [ask(where, accepts, Cache_Control="no-cache")]
        answers += [ask(where, accepts) for _ in range(3)]
        kept = [
            {name: value for name, value in one.headers.items() if name not in changing}
            for one in answers
        ]
        assert kept.count(kept[0]) == len(kept)
    given_id = ask(where, "gzip", X_Request_ID="mine")
    assert (came(given_id), given_id.headers["x-request-id"]) == (("HIT", "gzip"), "mine")


# The parts.

PATH = "/it"


class Served:
    """An endpoint without a server; counts what is compressed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, handler: Handler) -> None:
        self.endpoint = Endpoint([Operation("GET", PATH, handler, "A test")])
        self.packed: list[bytes] = []
        real = compress.packed

        def packed(encoding: bytes, body: bytes) -> bytes:
            self.packed.append(encoding)
            return real(encoding, body)

        monkeypatch.setattr(compress, "packed", packed)

    def ask(self, accepts: bytes = b"gzip") -> tuple[dict[bytes, bytes], bytes]:
        sent: list[Any] = []

        async def receive() -> Any:
            raise AssertionError

        async def send(message: Any) -> None:
            sent.append(message)

        class Settings:
            slow_request_ms = 10_000

        scope = {
            "type": "http",
            "method": "GET",
            "path": PATH,
            "query_string": b"",
            "headers": [(b"accept-encoding", accepts)],
            "state": {
                "settings": Settings,
                "cache": NoCache(),
                "guard": None,
                "metrics": None,
                "tracer": None,
            },
        }
        asyncio.run(self.endpoint(scope, receive, send))
        return dict(sent[0]["headers"]), sent[1]["body"]


def replying(reply: Reply) -> Handler:
    async def handler(request: Request) -> Reply:
        return reply

    return handler


def test_nothing_is_compressed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    body = gzip.compress(b"x" * 1_000_000)
    assert len(body) >= 900
    body += bytes(200)
    served = Served(monkeypatch, replying(Reply(body, headers=((b"content-encoding", b"gzip"),))))
    headers, sent = served.ask()
    assert (headers[b"content-encoding"], sent, served.packed) == (b"gzip", body, [])
    assert b"vary" not in headers


@pytest.mark.parametrize(
    ("content_type", "is_text"),
    (
        (b"application/json", True),
        (b"application/problem+json", True),
        (b"application/x-ndjson", True),
        (b"text/html; charset=utf-8", True),
        (b"text/csv", True),
        (b"application/javascript", True),
        (b"image/svg+xml", True),
        (b"image/png", False),
        (b"font/woff2", False),
        (b"application/octet-stream", False),
        (b"application/jsonish", False),
    ),
)
def test_only_text_is_compressed(
    monkeypatch: pytest.MonkeyPatch, content_type: bytes, is_text: bool
) -> None:
    served = Served(monkeypatch, replying(Reply(b"x" * 1000, content_type=content_type)))
    headers, sent = served.ask()
    assert (b"content-encoding" in headers) == (b"vary" in headers) == is_text
    assert (len(sent) < 100) == is_text


def test_a_problem_of_1000_bytes_is_compressed(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Reply(b"x" * 1000, 422, content_type=b"application/problem+json")
    headers, sent = Served(monkeypatch, replying(problem)).ask(b"zstd")
    assert (headers[b"content-encoding"], zstd.decompress(sent)) == (b"zstd", problem.body)


def test_compressing_a_long_body_does_not_block_the_loop() -> None:
    body = "".join(f"{number * number % 9973:x}" for number in range(4_000_000)).encode()
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.001)
            ticks += 1

    async def run() -> bytes:
        ticking = asyncio.create_task(tick())
        await asyncio.sleep(0)
        found, _ = await compress.encode_response(Reply(body), [(b"accept-encoding", b"gzip")])
        ticking.cancel()
        return found

    assert gzip.decompress(asyncio.run(run())) == body
    assert ticks >= 5


def test_a_fixed_reply_is_compressed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: dict[bytes, bytes] = {}
    reply = Reply(b"x" * 5000, encoded=encoded, keep=encoded.__setitem__)
    served = Served(monkeypatch, replying(reply))
    answers = [served.ask(accepts)[1] for accepts in (b"gzip", b"zstd", b"gzip", b"zstd")]
    assert served.packed == [b"gzip", b"zstd"]
    assert answers[:2] == answers[2:]


@pytest.mark.parametrize("encoding", (b"gzip", b"zstd"))
def test_a_body_compressed_in_pieces_is_complete(encoding: bytes) -> None:
    pieces = [f"line {number}\n".encode() * (number % 50) for number in range(3000)]
    packer = compress.Packer(encoding)
    sent = b"".join(packer.pack(piece) for piece in pieces) + packer.end()
    whole = b"".join(pieces)
    assert UNPACK[encoding.decode()](sent) == whole
    assert len(sent) < len(whole) / 10
    assert compress.packed(encoding, whole) == compress.packed(encoding, whole), (
        "equal bodies give equal bytes"
    )


def entry(number: int, size: int = 1000) -> CachedResponse:
    return CachedResponse(b"x" * size, ((b"etag", b'"1"'),), number)


def test_encoded_bodies_count() -> None:
    tier = Local(100_000)
    one = entry(1)
    tier.put("a", one)
    plain = tier.size
    tier.keep_encoded(one, b"gzip", b"y" * 500)
    assert one.encoded == {b"gzip": b"y" * 500}
    assert tier.size == tier.small_size == one.size >= plain + 500
    tier.keep_encoded(one, b"gzip", b"z" * 400)  # of a second request at the same time
    assert one.encoded == {b"gzip": b"y" * 500}
    tier.keep_encoded(one, b"zstd", b"y" * 600)
    assert tier.size == one.size >= plain + 1100
    tier.put("a", entry(2))
    assert tier.size == plain, "they leave with their response"
    tier.keep_encoded(one, b"br", b"old")
    assert (tier.entries["a"].encoded, tier.size) == (None, plain)


def test_an_encoded_body_that_is_too_large_is_not_kept() -> None:
    tier = Local(100_000)
    one = entry(1)
    tier.put("a", one)
    before = tier.size
    tier.keep_encoded(one, b"gzip", b"y" * 9000)
    tier.keep_encoded(entry(2), b"gzip", b"y")  # never kept itself
    assert (one.encoded, tier.size) == (None, before)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 30), st.sampled_from((None, b"gzip", b"zstd")), st.integers(1000, 3000)
        ),
        max_size=200,
    )
)
def test_the_bytes_stay_bounded_and_exact(steps: list[tuple[int, bytes | None, int]]) -> None:
    tier = Local(40_000)
    for key, encoding, size in steps:
        found = tier.entries.get(key)
        if found is None or encoding is None:
            tier.put(key, entry(key, size))
        else:
            found.used = True
            tier.keep_encoded(found, encoding, b"y" * (size // 3))
        assert tier.size <= tier.limit
        assert tier.size == sum(one.size for one in tier.entries.values())
        small = sum(one.size for one in tier.entries.values() if not one.main)
        assert tier.small_size == small


def test_hits_cost_no_compression(client: httpx.Client, ask: Plainly) -> None:
    """Compressing a megabyte takes milliseconds, a hit does not."""
    where = lamp(client, "".join(chr(97 + n * n % 23) for n in range(900_000)))
    first = float(ask(where, "gzip").headers["x-process-time"])
    least = min(float(ask(where, "gzip").headers["x-process-time"]) for _ in range(5))
    assert least < 0.0005 < first
