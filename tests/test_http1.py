"""Our HTTP/1.1 protocol under uvicorn: order, framing, flow control, errors and the stop."""

import asyncio
import gc
import itertools
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send

from service.errors import Problem
from service.http1.connection import REQUESTS_AHEAD, Connection
from service.http1.head import HEAD_LIMIT, Head
from service.http1.headers import HeaderReader, _known
from service.http1.parser import CHUNK_OVERHEAD_LIMIT, CHUNKS_A_TURN, Parser

seen: list[str] = []


async def app(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: C901 - a path each
    """An application whose behaviour depends on the path."""
    path = scope["path"].strip("/")
    status, headers = 200, []
    body = b""
    more = path not in {"unread", "slow", "gone"}
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            seen.append("gone while sending")
            return
        body += message["body"]
        more = message["more_body"]
    if path == "slow":
        await asyncio.sleep(0.1)
    elif path == "fails":
        raise ValueError("on purpose")
    elif path == "injects":
        headers = [(b"x-a", b"b\r\nx-c: d")]
    elif path == "length":
        headers = [(b"content-length", b"7")]
    elif path.isdigit():
        status = int(path)
    elif path == "gone":
        while (await receive())["type"] != "http.disconnect":
            pass
        seen.append("gone")
        return
    elif path == "closes":
        headers = [(b"connection", b"close")]
    elif path.startswith("stream"):
        await stream(path, scope, send)
        return
    told = {
        "method": scope["method"],
        "path": scope["path"],
        "query": scope["query_string"].decode(),
        "size": len(body),
        "sum": sum(body),
        "state": scope["state"],
        "headers": [name.decode() for name, _ in scope["headers"]],
    }
    answer = json.dumps(told).encode()
    if path == "large":
        answer = b"x" * 300_000
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


async def stream(path: str, scope: Scope, send: Send) -> None:
    headers = [(b"content-length", b"9")] if "length" in path else []
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if "endless" in path:
        for _ in range(1000):
            await send({"type": "http.response.body", "body": b"y" * 65536, "more_body": True})
            seen.append("sent")
    for part in (b"one", b"", b"two"):
        await send({"type": "http.response.body", "body": part, "more_body": True})
    if "fails" in path:
        raise ValueError("on purpose, midway")
    await send({"type": "http.response.body", "body": b"end"})


class Server(uvicorn.Server):
    def __init__(self, keep_alive: int = 1) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=Connection,
                loop="uvloop",
                ws="none",
                lifespan="off",
                log_config=None,
                server_header=False,
                timeout_keep_alive=keep_alive,
            )
        )
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.socket.getsockname()[1]
        self.thread = threading.Thread(target=self.run, kwargs={"sockets": [self.socket]})

    @contextmanager
    def running(self) -> Iterator["Server"]:
        self.thread.start()
        while not self.started:
            time.sleep(0.01)
        try:
            yield self
        finally:
            self.should_exit = True
            self.thread.join()
            self.socket.close()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def requests(self) -> int:
        """The number of connections with a request that is not answered yet."""
        return sum(
            one.cycle is not None  # type: ignore[union-attr]  # uvicorn's types
            for one in self.server_state.connections.copy()
        )

    def talk(self, *parts: bytes, pause: float = 0.0) -> bytes:
        """Send the parts; return all data until the server closes."""
        with self.connect() as client:
            for part in parts:
                client.sendall(part)
                time.sleep(pause)
            return rest(client)


def until(test: Callable[[], object]) -> None:
    """Wait until `test` is true, up to 60 s."""
    give_up = time.monotonic() + 60
    while not test():
        assert time.monotonic() < give_up
        time.sleep(0.005)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server().running() as server:
        yield server


@pytest.fixture(autouse=True)
def nothing_seen() -> None:
    seen.clear()


def rest(client: socket.socket) -> bytes:
    received = b""
    while part := client.recv(65536):
        received += part
    return received


def request(line: str, *headers: str, body: bytes = b"", last: bool = False) -> bytes:
    lines = [f"{line} HTTP/1.1", "Host: a", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    if last:
        lines.append("Connection: close")
    return "\r\n".join([*lines, "", ""]).encode() + body


def answers(data: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    """Return status, headers and body of each answer with a Content-Length."""
    found = []
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name: value for name, _, value in (line.partition(": ") for line in lines)}
        assert len(headers) == len(lines), "a header twice"
        length = int(headers.get("content-length", 0))
        found.append((int(first.split()[1]), headers, data[:length]))
        data = data[length:]
    return found


def told(data: bytes) -> list[dict[str, object]]:
    return [json.loads(body) for _, _, body in answers(data)]


def test_requests_on_one_connection_are_answered_in_their_order(server: Server) -> None:
    sent = (
        request("GET /slow?a=1")
        + request("POST /b", body=b"x" * 10)
        + request("GET /c%20d%C3%A4", last=True)
    )
    found = told(server.talk(sent))
    assert [(one["method"], one["path"], one["query"], one["size"]) for one in found] == [
        ("GET", "/slow", "a=1", 0),
        ("POST", "/b", "", 10),
        ("GET", "/c dä", "", 0),
    ]


stream_of_requests = st.lists(
    st.sampled_from(
        (
            request("GET /a"),
            request("GET /b?" + "q" * 50, "X-Long: " + "v" * 100),
            request("POST /c", body=b"body" * 20),
            request("POST /d", "Transfer-Encoding: chunked") + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
            request("BREW /e"),
            request("HEAD /f"),
            request("GET http://somewhere/g"),
        )
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=60, deadline=None)
@given(requests=stream_of_requests, cuts=st.lists(st.integers(1, 400), max_size=8))
def test_packet_boundaries_make_no_difference(
    server: Server, requests: list[bytes], cuts: list[int]
) -> None:
    whole = [*requests, request("GET /z", last=True)]
    data = b"".join(whole)
    places = [0, *sorted({cut for cut in cuts if cut < len(data)}), len(data)]
    parts = [data[a:b] for a, b in itertools.pairwise(places)]
    with server.connect() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in parts:
            client.sendall(part)
            time.sleep(0.001)
        received = rest(client)
    heads = re.findall(rb"HTTP/1.1 (\d+) ", received)
    assert heads == [b"200"] * len(whole)
    paths = re.findall(rb'"path": "/(.)"', received)
    assert paths == [
        one.split(b" ")[1][-1:] if b"?" not in one else b"b"
        for one in whole
        if not one.startswith(b"HEAD")
    ]


def test_an_unknown_method_reaches_the_application(server: Server) -> None:
    (one,) = told(server.talk(request("BREW /pot", body=b"12", last=True)))
    assert (one["method"], one["path"], one["size"]) == ("BREW", "/pot", 2)
    found = server.talk(request("GET /slow") + request("BREW /pot", last=True))
    assert [one["method"] for one in told(found)] == ["GET", "BREW"], "behind another, too"


def test_a_body_of_any_size_arrives_complete(server: Server) -> None:
    body = bytes(range(256)) * 20_000
    (one,) = told(server.talk(request("POST /a", body=body, last=True)))
    assert (one["size"], one["sum"]) == (len(body), sum(body))


def test_expect_100_continue_is_answered(server: Server) -> None:
    with server.connect() as client:
        head, _, body = request("POST /a", "Expect: 100-continue", body=b"abc").partition(b"abc")
        client.sendall(head)
        assert client.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"abc" + body)
        assert b'"size": 3' in client.recv(1000)
        client.sendall(request("POST /unread", "Expect: 100-continue", body=b"abc")[:-3])
        assert client.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n"), "nobody wanted it"


def test_an_unread_body_does_not_block_the_next_request(server: Server) -> None:
    with server.connect() as client:
        client.sendall(request("POST /unread", body=b"x" * 1_000_000))
        assert client.recv(1000).startswith(b"HTTP/1.1 200")
        client.sendall(request("GET /a", last=True))
        assert b'"path": "/a"' in rest(client)


@pytest.mark.parametrize("path", ("204", "304"))
def test_responses_without_a_body_have_none(server: Server, path: str) -> None:
    ((status, headers, body),) = answers(server.talk(request(f"GET /{path}", last=True)))
    assert (status, body) == (int(path), b"")
    assert not headers.keys() & {"content-length", "transfer-encoding"}


def test_head_gets_headers_without_a_body(server: Server) -> None:
    found = server.talk(request("HEAD /a") + request("HEAD /stream") + request("GET /z", last=True))
    assert found.count(b"HTTP/1.1 200") == 3
    assert found.count(b'"path"') == 1
    assert b"one" not in found


def test_a_stream_is_framed_by_chunks_by_its_length_or_by_the_end(server: Server) -> None:
    head, _, body = server.talk(request("GET /stream", last=True)).partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head
    assert body == b"3\r\none\r\n3\r\ntwo\r\n3\r\nend\r\n0\r\n\r\n"
    head, _, body = server.talk(request("GET /stream/length", last=True)).partition(b"\r\n\r\n")
    assert b"content-length: 9" in head
    assert b"transfer-encoding" not in head
    assert body == b"onetwoend"
    head, _, body = server.talk(b"GET /stream HTTP/1.0\r\n\r\n").partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert body == b"onetwoend"


def test_a_large_response_arrives_complete(server: Server) -> None:
    ((_, _, body),) = answers(server.talk(request("GET /large", last=True)))
    assert body == b"x" * 300_000


@pytest.mark.parametrize("last", ("Connection: close", "", "Connection: keep-alive"))
def test_a_connection_stays_open_or_closes_as_requested(last: str) -> None:
    version = "1.1" if last == "Connection: close" else "1.0"
    head = f"GET /a HTTP/{version}\r\n{last}\r\n\r\n".replace("\r\n\r\n\r\n", "\r\n\r\n")
    with Server(keep_alive=600).running() as server:  # a client gives up before
        assert b"connection: close" in server.talk(head.encode())
        assert b"connection: close" in server.talk(request("GET /closes"))


def test_endless_headers_are_rejected(server: Server) -> None:
    lines = (b"X-%d: %b\r\n" % (n, b"v" * 1000) for n in range(HEAD_LIMIT // 1000 + 20))
    ((status, headers, body),) = answers(server.talk(b"GET /a HTTP/1.1\r\n", *lines, pause=0.001))
    assert status == 431
    assert headers["content-type"] == "application/problem+json"
    assert json.loads(body)["request_id"] == headers["x-request-id"]


@pytest.mark.parametrize(
    "data",
    (
        b"\0\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        b"POST /a HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"hello there\r\n\r\n",
    ),
)
def test_a_non_http_request_gets_a_problem_document(server: Server, data: bytes) -> None:
    ((status, headers, body),) = answers(server.talk(data))
    assert status == 400
    assert headers["connection"] == "close"
    assert json.loads(body)["status"] == 400


def test_garbage_after_a_request_does_not_prevent_its_answer(server: Server) -> None:
    found = server.talk(request("GET /slow") + b"\0\0\0\r\n\r\n")
    assert [status for status, _, _ in answers(found)] == [200, 400]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", ("fails", "injects", "length"))
def test_an_application_that_fails_is_a_500(server: Server, path: str) -> None:
    ((status, headers, body),) = answers(server.talk(request(f"GET /{path}")))
    assert status == 500
    assert "x-c" not in headers
    assert json.loads(body)["detail"] == "something went wrong on our side"


def test_a_response_that_fails_midway_has_no_last_chunk(server: Server) -> None:
    found = server.talk(request("GET /stream/fails"))
    assert found.endswith(b"two\r\n"), "without a last chunk the client sees the error"


def test_an_upgrade_request_is_answered_and_then_the_connection_is_closed(server: Server) -> None:
    for what in ("websocket", "h2c"):
        found = server.talk(
            request("GET /a", "Connection: Upgrade", f"Upgrade: {what}") + b"frames"
        )
        assert [status for status, _, _ in answers(found)] == [200]


def test_the_body_of_a_declined_upgrade_is_read(server: Server) -> None:
    """Java's HTTP client sends such an upgrade to HTTP/2 with every request."""
    upgrade = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AA")
    chunked = request("POST /b", *upgrade, "Transfer-Encoding: chunked")
    for sent in (
        (request("POST /a", *upgrade, body=b"the body") + b"more",),
        (request("POST /a", *upgrade, body=b"the body")[:-8], b"the ", b"body"),
        (chunked + b"4\r\nthe \r\n", b"4\r\nbody\r\n0\r\n\r\n"),
    ):
        (one,) = told(server.talk(*sent, pause=0.02))
        assert (one["size"], one["sum"]) == (8, sum(b"the body"))


def test_trailers_are_limited_and_do_not_become_headers(server: Server) -> None:
    start = request("POST /a", "Transfer-Encoding: chunked", "Connection: close") + b"1\r\nx\r\n"
    (one,) = told(server.talk(start + b'0\r\nIf-Match: "7"\r\nAuthorization: x\r\n\r\n'))
    assert one["size"] == 1
    assert one["headers"] == ["host", "transfer-encoding", "connection"]
    started = time.monotonic()
    with server.connect() as client, suppress(ConnectionError):
        client.sendall(start + b"0\r\n")
        while True:
            client.sendall(b"X-Trailer: " + b"v" * 1000 + b"\r\n")
            time.sleep(0.001)
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("path", ("a", "slow", "large", "stream"))
def test_a_client_that_half_closes_is_answered(server: Server, path: str) -> None:
    sent = request("GET /slow") + request(f"POST /{path}", body=b"abc")
    with server.connect() as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        found = rest(client)
    assert re.findall(rb"HTTP/1.1 (\d+) ", found) == [b"200", b"200"]
    assert found.endswith({"large": b"x", "stream": b"0\r\n\r\n"}.get(path, b"}"))


@pytest.mark.parametrize("end", (True, False), ids=("ended", "open"))
def test_pipelined_requests_are_answered_before_the_end_is_seen(server: Server, end: bool) -> None:
    with server.connect() as client:
        client.sendall(request("GET /a") * 200)
        if end:
            client.shutdown(socket.SHUT_WR)
        assert rest(client).count(b"HTTP/1.1 200") == 200


@pytest.mark.parametrize(
    "sent",
    (
        request("POST /reads", body=b"the whole body")[:-5],
        request("DELETE /a", body=b"the whole body")[:-5],
        request("POST /reads", "Transfer-Encoding: chunked") + b"5\r\nhello\r\n",
    ),
    ids=("post", "delete", "chunks"),
)
def test_a_client_that_half_closes_within_a_body_gets_an_error(server: Server, sent: bytes) -> None:
    with server.connect() as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        found = rest(client)
    assert b'"size"' not in found


def test_a_client_that_half_closes_within_a_head_is_closed(server: Server) -> None:
    with server.connect() as client:
        client.sendall(request("GET /a") + request("GET /b")[:-2])
        client.shutdown(socket.SHUT_WR)
        assert [one["path"] for one in told(rest(client))] == ["/a"]


def test_a_disconnect_during_a_wait_is_noticed_within_a_second(server: Server) -> None:
    """Before anything is sent to it, it looks like a client that has only half-closed."""
    with server.connect() as client:
        client.sendall(request("POST /gone", body=b"abc"))
        time.sleep(0.05)
    deadline = time.monotonic() + 30
    while not seen and time.monotonic() < deadline:
        time.sleep(0.01)
    assert seen == ["gone"]


def test_a_half_closed_client_gets_only_100_continue_while_it_waits(server: Server) -> None:
    with server.connect() as client:
        client.sendall(request("POST /gone", body=b"abc"))
        client.shutdown(socket.SHUT_WR)
        time.sleep(1.0)
        assert not seen
        assert set(client.recv(1000).split(b"\r\n\r\n")) == {b"HTTP/1.1 100 Continue", b""}
        server.server_state.connections.copy().pop().transport.abort()


@pytest.mark.parametrize("version", ("1.0", "1.1"))
def test_only_http_1_1_gets_100_continue(server: Server, version: str) -> None:
    head = f"POST /a HTTP/{version}\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
    found = server.talk(head.encode(), b"abc", *([request("GET /z", last=True)]), pause=0.1)
    assert found.startswith(b"HTTP/1.1 100 Continue" if version == "1.1" else b"HTTP/1.1 200 OK")
    assert found.count(b'"size": 3') == 1


def test_a_request_with_an_unused_body_waits_for_its_end(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise it would be executed before its framing is known to be right."""
    monkeypatch.setattr("service.http1.framing.BODY_SECONDS", 1.0)
    start = request("DELETE /unread", "Transfer-Encoding: chunked")
    for rest_of_it, status in (
        (b"5\r\nhello\r\n0\r\n\r\n", 200),
        (b"Z\r\n", 400),
        (b"10000\r\n" + bytes(0x10000) + b"\r\n1\r\nx\r\n", 413),
        (b"", 408),
    ):
        with server.connect() as client:
            client.sendall(start)
            time.sleep(0.05)
            client.sendall(rest_of_it + request("GET /z", last=True)[: 1000 * (status == 200)])
            found = answers(rest(client))
        assert [one[0] for one in found] == [status, 200][: 1 + (status == 200)]
        assert found[-1][1]["connection"] == "close"
    head = request("DELETE /unread", "Expect: 100-continue", body=b"abc")[:-3]
    found_ = server.talk(head, b"abc" + request("GET /z", last=True), pause=0.05)
    assert re.findall(rb"HTTP/1.1 (\d+) ", found_) == [b"100", b"200", b"200"]


def test_a_408_closes_the_connection(server: Server) -> None:
    """The rest of the body may still arrive, and must not be parsed as a request."""
    sent = request("POST /408", body=b"abc"), b"abc" + request("GET /smuggled")
    found = server.talk(sent[0][:-3] + b"abc", sent[1], pause=0.05)
    ((status, headers, _),) = answers(found)
    assert (status, headers["connection"]) == (408, "close")


class Counting:
    """A receiver that counts the calls of the parser."""

    def __init__(self) -> None:
        self.parser = Parser(self)
        self.calls = self.size = 0
        self.problem: Problem | None = None

    def request(self, head: Head) -> None: ...
    def end(self) -> None: ...

    def body(self, part: bytes) -> None:
        self.calls += 1
        self.size += len(part)

    def refuse(self, problem: Problem, method: str) -> None:
        raise AssertionError(method) from problem

    def break_off(self, problem: Problem) -> None:
        self.problem = problem


@pytest.mark.parametrize(("size", "whole"), ((1, False), (5, True), (100, True)))
def test_the_work_for_small_chunks_is_limited_per_step_and_in_total(size: int, whole: bool) -> None:
    counting = Counting()
    counting.parser.feed(request("POST /a", "Transfer-Encoding: chunked"))
    data = (b"%x\r\n%b\r\n" % (size, b"x" * size)) * (900_000 // size) + b"0\r\n\r\n"
    turns = 0
    for at in range(0, len(data), 2**18):  # bytes that uvloop reads at once
        part, again = data[at : at + 2**18], True
        while again:
            turns, before = turns + 1, counting.size
            again = counting.parser.feed(part) if part else counting.parser.proceed()
            assert counting.size - before <= CHUNKS_A_TURN * size
            part = b""
    assert counting.calls <= turns, "one call for all chunks of an iteration"
    assert (counting.problem is None) == whole
    assert (counting.size == 900_000 // size * size) == whole
    if not whole:
        assert counting.size <= CHUNK_OVERHEAD_LIMIT // 4 + 1


def test_a_body_with_broken_framing_ends_at_once(server: Server) -> None:
    start = request("POST /reads", "Transfer-Encoding: chunked")
    started = time.monotonic()
    found = server.talk(start, b"1\r\nx\r\nZZ\r\n", pause=0.02)
    assert found.count(b"HTTP/1.1 ") == 1
    assert seen == ["gone while sending"]
    assert time.monotonic() - started < 20


def test_bytes_of_a_body_are_never_parsed_as_a_request(server: Server) -> None:
    """For a request that is answered before its body arrives, such as one to an unknown path."""
    inner = b"GET /smuggled HTTP/1.1\r\nX: y"
    found = server.talk(
        request("POST /unread", body=inner)[: -len(inner)],
        inner + request("BREW /pot"),
        request("GET /c", last=True),
        pause=0.05,
    )
    assert [one["path"] for one in told(found)] == ["/unread", "/pot", "/c"]
    assert b"smuggled" not in found
    assert b"/x" not in server.talk(b"\0", request("GET /x"), pause=0.02)


def test_an_answer_instead_of_100_continue_closes_the_connection(server: Server) -> None:
    found = server.talk(request("POST /unread", "Expect: 100-continue", body=b"abc")[:-3])
    ((status, headers, _),) = answers(found)
    assert (status, headers["connection"]) == (200, "close")


def test_the_last_answer_is_delivered_while_the_body_still_arrives(server: Server) -> None:
    with server.connect() as client:
        head = request("POST /unread", "Connection: close", body=b"x" * 3_000_000)
        client.sendall(head)
        ((status, _, _),) = answers(rest(client))
        assert status == 200


def test_a_long_body_does_not_count_as_the_next_head(server: Server) -> None:
    first = request("POST /a", body=b"x" * 100_000) + b"GET /b HT"
    found = told(server.talk(first, b"TP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", pause=0.05))
    assert [one["path"] for one in found] == ["/a", "/b"]


@pytest.mark.parametrize("late", range(1, 6))
@pytest.mark.parametrize(("size", "status"), ((HEAD_LIMIT, 200), (HEAD_LIMIT + 1, 431)))
def test_a_head_of_the_maximum_size_may_end_in_another_packet(
    server: Server, size: int, status: int, late: int
) -> None:
    """Reading must not pause when no request is running whose end would resume it."""
    begin = b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX: "
    head = begin.ljust(size, b"x") + b"\r\n\r\n"
    parts = [head[:-late], *(head[at : at + 1] for at in range(len(head) - late, len(head)))]
    with server.connect() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in parts:
            client.sendall(part)
            time.sleep(0.005)
        assert rest(client).startswith(b"HTTP/1.1 %d " % status)


def test_no_secret_in_a_header_is_kept_beyond_its_connection() -> None:
    block = b"Host: a\r\nAuthorization: Bearer s3cret-1\r\nX-API-Key: s3cret-2\r\nCookie: s3cret-3"
    assert len(HeaderReader().read(block).headers) == 4
    assert not [line for line in _known if b"s3cret" in line]
    assert b"Host: a" in _known


def test_pipelined_requests_are_all_answered_and_wait_in_the_kernel(server: Server) -> None:
    """The bytes wait in the parser up to a limit; the rest stays in the client's kernel."""
    many = request("GET /slow") + request("GET /a", "X: " + "v" * 1000) * 3000
    with server.connect() as client:
        sent = threading.Thread(target=client.sendall, args=(many + request("GET /z", last=True),))
        sent.start()
        until(server.requests)  # the first is answered after 0.1 s, and the others after it
        (one,) = server.server_state.connections
        until(lambda: one.parser.data)  # type: ignore[union-attr]  # uvicorn's types
        assert len(one.parser.data) < REQUESTS_AHEAD + 2**18  # type: ignore[union-attr]  # as above
        found = rest(client)
        sent.join()
    assert found.count(b"HTTP/1.1 200") == 3002
    assert found.count(b'"path": "/z"') == 1


def test_a_client_that_never_reads_is_closed(server: Server) -> None:
    with server.connect() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(request("GET /stream/endless"))
        until(server.requests)
        until(lambda: not server.server_state.connections)


def test_a_client_that_reads_slowly_is_not_closed(server: Server) -> None:
    """A few bytes per second, while the kernel buffers megabytes."""
    with server.connect() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(request("GET /stream/endless"))
        for _ in range(30):
            assert client.recv(20_000)
            time.sleep(0.1)
        assert server.server_state.connections
    while len(seen) < 1000:  # without a client the response ends
        time.sleep(0.01)


def test_a_disconnect_is_noticed(server: Server) -> None:
    for path, told in (("gone", ["gone"]), ("reads", ["gone", "gone while sending"])):
        body = b"another half" if path == "gone" else b"halfanother half"
        with server.connect() as client:
            client.sendall(request(f"POST /{path}", body=body)[: -len("half")])
            until(server.requests)
        until(lambda: not server.server_state.connections)
        until(lambda told=told: len(seen) == len(told))  # type: ignore[misc]  # the loop's own
        assert seen == told


def test_a_client_that_does_not_read_pauses_the_sender(server: Server) -> None:
    with server.connect() as client:
        client.sendall(request("GET /stream/endless"))
        sent = 0
        while sent == 0 or len(seen) != sent:
            sent = len(seen)
            time.sleep(0.2)
        assert sent < 500, "else 64 MB would be in memory"
        with client.makefile("rb") as reader:
            while len(seen) < 1000:
                reader.read(65536)


def test_an_idle_connection_is_closed_in_time(server: Server) -> None:
    for said in (b"", b"GET /a HT", request("GET /a")):
        with server.connect() as client:
            started = time.monotonic()
            client.sendall(said)
            rest(client)
            assert time.monotonic() - started > 0.8


def test_a_head_that_arrives_too_slowly_is_closed(server: Server) -> None:
    with server.connect() as client:
        started = time.monotonic()
        with suppress(ConnectionError):
            for letter in request("GET /a", "X: " + "v" * 1000):
                client.sendall(bytes([letter]))
                time.sleep(0.05)
        assert time.monotonic() - started < 20


def test_a_stop_finishes_responses_and_closes_idle_connections() -> None:
    server = Server()
    half = request("POST /reads", body=b"half and half")
    with (
        server.running(),
        server.connect() as busy,
        server.connect() as idle,
        server.connect() as sending,
    ):
        busy.sendall(request("GET /slow"))
        sending.sendall(half[:-9])
        until(lambda: server.requests() == 2 and len(server.server_state.connections) == 3)
        server.should_exit = True
        assert rest(idle) == b""
        sending.sendall(half[-9:])
        for one in (busy, sending):
            ((status, headers, _),) = answers(rest(one))
            assert status == 200
            assert headers["connection"] == "close"


def test_a_stop_answers_received_requests_and_one_more_on_idle_connections() -> None:
    server = Server()
    with server.running(), server.connect() as busy, server.connect() as idle:
        busy.sendall(request("GET /slow") + request("GET /a") + request("GET /b"))
        until(lambda: server.requests() == 1 and len(server.server_state.connections) == 2)
        server.should_exit = True
        time.sleep(0.15)
        idle.sendall(request("GET /c"))
        for one, paths in ((busy, ["/slow", "/a", "/b"]), (idle, ["/c"])):
            found = rest(one)
            assert [answer["path"] for answer in told(found)] == paths
            assert found.count(b"connection: close") == 1


def test_a_stop_waits_for_the_rest_of_a_request() -> None:
    server = Server()
    next_one = request("GET /next")
    with server.running(), server.connect() as client:
        client.sendall(request("GET /slow") + next_one[:9])
        until(server.requests)
        server.should_exit = True
        first = client.recv(65536)
        client.sendall(next_one[9:])
        found = told(first + rest(client))
    assert [one["path"] for one in found] == ["/slow", "/next"]


def test_requests_create_no_reference_cycles() -> None:
    """A reference cycle per request costs a tenth of a read, and longer pauses of the collector."""
    with (
        Server(keep_alive=60).running() as server,  # a collection may take long
        server.connect() as client,
        client.makefile("rb") as reader,
    ):

        def ask(times: int) -> None:
            for _ in range(times):
                client.sendall(request("POST /a", body=b"abc"))
                while not (line := reader.readline()).startswith(b"content-length"):
                    assert line, "the server has closed"
                assert reader.readline() == b"\r\n"
                reader.read(int(line.split()[1]))

        ask(10)
        gc.collect()
        gc.disable()
        try:
            ask(300)
            assert gc.collect() < 100
        finally:
            gc.enable()
