"""Spans of requests, and of the statements that they share."""

import asyncio
import hashlib
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from contextvars import Context
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import FrameType
from typing import Any
from unittest.mock import Mock

import httpx
import pytest
from conftest import Service, query
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from test_cache_redis import eventually

from service import tracing
from service.app import Application
from service.app_state import opened_state
from service.asgi import built_in
from service.settings import Settings, SettingsError
from service.timing import Timing, timing
from service.tracing import outgoing_headers
from service.tracing.tracer import Tracer
from service.web.api_keys import KeyRecord, ParsedKey
from service.web.codec import Reply, encode
from service.web.endpoint import Endpoint, Operation
from service.web.principal import Principal
from service.web.principal_cache import PrincipalCache
from service.web.request import Request

pytestmark = pytest.mark.anyio
TRACE = "4bf92f3577b34da6a3ce929d0e0e47"
SECRET = "mm-never-in-a-span"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Traced:
    """An application in this process, and the spans that it has recorded."""

    def __init__(self, client: httpx.AsyncClient, exporter: InMemorySpanExporter) -> None:
        self.client = client
        self.exporter = exporter

    async def ask(self, number: int, method: str, path: str, **more: Any) -> httpx.Response:
        """Send a request of a trace with this number."""
        flags = more.pop("flags", "01")
        headers = {"traceparent": f"00-{TRACE}{number:02x}-00f067aa0ba902b7-{flags}"}
        return await self.client.request(method, path, headers=headers, **more)

    def take(self) -> list[ReadableSpan]:
        """The spans so far, without those that were taken."""
        found = list(self.exporter.get_finished_spans())
        self.exporter.clear()
        for span in found:
            assert span.start_time is not None
            assert span.end_time is not None
            assert span.start_time <= span.end_time
            assert SECRET not in span.to_json()
        return found


@pytest.fixture
def traced(own_database_url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    exporter = InMemorySpanExporter()
    monkeypatch.setattr(tracing, "opened", lambda _: Tracer(SimpleSpanProcessor(exporter)))

    @asynccontextmanager
    async def begin(**settings: Any) -> AsyncIterator[Traced]:
        made = Settings(
            database_url=own_database_url,
            log="off",
            auth="off",
            traces="on",
            # Jobs and their figures would take the connections of the requests.
            jobs="off",
            metrics="off",
            secret="x" * 16,
            **settings,
        )
        app = built_in(made)
        app.alone = True
        async with serving(app) as client:
            yield Traced(client, exporter)

    return begin


@pytest.fixture
def ids(own_database_url: str) -> list[int]:
    """The ids of 20 items."""
    sql = "INSERT INTO items (name) SELECT $1 || n FROM generate_series(1, 20) n RETURNING id"
    return [row[0] for row in query(own_database_url, sql, SECRET)]


@asynccontextmanager
async def serving(app: Application) -> AsyncIterator[httpx.AsyncClient]:
    async with opened_state(app) as state:

        async def served(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, "state": state}, receive, send)

        transport = httpx.ASGITransport(served)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            yield client


def own(spans: list[ReadableSpan], number: int) -> dict[str, ReadableSpan]:
    """The spans of a trace, by name."""
    trace = int(f"{TRACE}{number:02x}", 16)
    found = [one for one in spans if one.context is not None and one.context.trace_id == trace]
    assert len({one.name for one in found}) == len(found)
    return {one.name: one for one in found}


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def check_shared(spans: list[ReadableSpan], route: str, batch: str, statement: str) -> None:
    """Check that a shared statement is one span, linked with all of its requests."""
    shared = [one for one in spans if one.name == statement]
    assert shared
    served = 0
    for one in shared:
        assert one.kind is SpanKind.CLIENT
        requests = [link.context.trace_id for link in one.links]
        assert len(set(requests)) == len(requests) > 1
        served += len(requests)
        for link in one.links:
            mine = own(spans, link.context.trace_id & 0xFF)
            assert mine[route].context == link.context
            part = mine[f"batch {batch}"]
            assert part.parent == mine[route].context
            assert [back.context for back in part.links] == [one.context]
            assert attributes(part)["swiftlet.batch.requests"] == len(requests)
            assert [event.name for event in part.events] == ["batch begins"]
        assert one.parent == one.links[0].context
        assert attributes(one)["db.response.returned_rows"] == len(requests)
        assert attributes(one)["db.system.name"] == "postgresql"
        assert attributes(one)["db.query.summary"] == statement
    alone = [one for one in spans if one.name == statement.removesuffix("_many")]
    assert served + len(alone) == len([one for one in spans if one.name == route])
    assert not any(one.links for one in alone)


async def test_a_shared_read_is_one_span_linked_with_its_requests(
    traced: Callable[..., Any], ids: list[int]
) -> None:
    async with traced(cache="off") as one:
        asked = [one.ask(n, "GET", f"/items/{ids[n]}") for n in range(16)]
        # Not sampled: it shares the statement, and is not linked.
        asked += [one.ask(n, "GET", f"/items/{ids[n]}", flags="00") for n in range(16, 20)]
        answers = await asyncio.gather(*asked)
        assert {answer.status_code for answer in answers} == {200}
        spans = one.take()
        assert len([span for span in spans if span.kind is SpanKind.SERVER]) == 16
        many = [span for span in spans if span.name == "items.by_id_many"]
        rows = sum(attributes(span)["db.response.returned_rows"] for span in many)
        links = sum(len(span.links) for span in many)
        assert rows == links + 4
        for number in range(16):
            mine = own(spans, number)
            root = mine["GET /items/{id}"]
            assert root.parent is not None
            assert root.parent.is_remote
            assert root.parent.span_id == 0x00F067AA0BA902B7
            assert root.context is not None
            said = f"00-{TRACE}{number:02x}-{root.context.span_id:016x}-01"
            assert answers[number].headers["traceresponse"] == said
            assert attributes(root)["http.route"] == "/items/{id}"
            assert attributes(root)["http.response.status_code"] == 200
            assert (
                attributes(root)["swiftlet.request_id"] == answers[number].headers["x-request-id"]
            )
        assert answers[16].headers["traceresponse"].endswith("-00f067aa0ba902b7-00")
        # The same without those that are not sampled.
        await asyncio.gather(*(one.ask(n, "GET", f"/items/{ids[n]}") for n in range(16)))
        check_shared(one.take(), "GET /items/{id}", "items.by_id", "items.by_id_many")


async def test_a_group_commit_is_one_span_linked_with_its_requests(
    traced: Callable[..., Any],
) -> None:
    async with traced() as one:
        body = {"name": SECRET, "description": SECRET}
        asked = (one.ask(n, "POST", "/items", json=body) for n in range(12))
        assert {answer.status_code for answer in await asyncio.gather(*asked)} == {201}
        check_shared(one.take(), "POST /items", "items.add", "items.add_many")


async def test_a_batch_that_is_split_links_each_statement_with_its_own_requests(
    traced: Callable[..., Any],
) -> None:
    async with traced() as one:
        await one.ask(99, "POST", "/items", json={"name": "a", "sku": "taken"})
        one.take()
        skus = [f"sku-{n}" for n in range(8)]
        skus[5] = "taken"
        asked = (
            one.ask(n, "POST", "/items", json={"name": "a", "sku": sku})
            for n, sku in enumerate(skus)
        )
        answers = await asyncio.gather(*asked)
        assert [answer.status_code for answer in answers] == [201] * 5 + [409] + [201] * 2
        spans = one.take()
        assert attributes(own(spans, 5)["POST /items"])["http.response.status_code"] == 409
        assert own(spans, 5)["POST /items"].status.status_code is StatusCode.UNSET
        guilty = [span for span in spans if attributes(span).get("error.type")]
        assert guilty
        for span in guilty:
            assert attributes(span)["error.type"] == "UniqueViolationError"
            assert attributes(span)["db.response.status_code"] == "23505"
            assert span.status.status_code is StatusCode.ERROR
        # A request that succeeded was served by one INSERT that succeeded, and maybe by the look-up
        # of the keys that are taken.
        fine = [one for one in spans if one.kind is SpanKind.CLIENT and one not in guilty]
        (looked_up,) = [one for one in fine if one.name == "items.sku_taken"]
        assert 5 in [link.context.trace_id & 0xFF for link in looked_up.links]
        fine.remove(looked_up)
        served = [link.context.trace_id & 0xFF for span in fine for link in span.links]
        assert len(set(served)) == len(served)
        assert 5 not in served
        last = [span for span in guilty if len(span.links) == 1]
        assert all(span.links[0].context.trace_id & 0xFF == 5 for span in last)


async def test_waits_hits_and_failures_have_spans(traced: Callable[..., Any]) -> None:
    async with traced(pool=1) as one:
        await one.ask(9, "GET", "/items/1")  # until the connection is open
        one.take()
        # A pool of one: of two statements at the same time, one waits.
        asked = (one.ask(1, "GET", "/items?q=a"), one.ask(2, "GET", "/users?q=a"))
        await asyncio.gather(*asked)
        spans = one.take()
        (waiting,) = [span for span in spans if span.name == "wait for a connection"]
        assert waiting.context is not None
        number = waiting.context.trace_id & 0xFF
        assert waiting.parent in [span.context for span in own(spans, number).values()]

        await one.client.get("/items?q=b")
        (missed, *_) = [span for span in one.take() if span.kind is SpanKind.SERVER]
        assert attributes(missed)["swiftlet.cache"] == "MISS"
        assert missed.parent is None
        for _ in range(100):  # on a busy machine the cache is not valid for a moment
            one.take()
            answer = await one.ask(3, "GET", "/items?q=b")
            if answer.headers["x-cache"] == "HIT":
                break
            await asyncio.sleep(0.05)
        (hit,) = one.take()
        assert attributes(hit)["swiftlet.cache"] == "HIT"
        assert "q=b" not in hit.to_json()

        await one.ask(4, "GET", "/items/x", flags="00")
        assert one.take() == []
        await one.ask(5, "GET", "/nothing/here")
        (unknown,) = one.take()
        assert unknown.name == "GET"
        assert "http.route" not in attributes(unknown)
        await one.client.get("/health")
        assert one.take() == []
        await one.ask(6, "GET", "/health")
        assert [span.name for span in one.take()] == ["GET /health"]


async def test_a_bug_is_an_error_and_a_call_joins_the_trace() -> None:
    async def bug(_: Request) -> Reply:
        raise ValueError(SECRET)

    async def calls(_: Request) -> Reply:
        return Reply(encode(outgoing_headers()))

    exporter = InMemorySpanExporter()
    state = {
        **dict.fromkeys(("guard", "metrics", "cache")),
        "settings": Settings(),
        "tracer": Tracer(SimpleSpanProcessor(exporter)),
    }

    def of(handler: Any) -> httpx.AsyncClient:
        endpoint = Endpoint([Operation("GET", "/a", handler, "A")])

        async def served(scope: Any, receive: Any, send: Any) -> None:
            await endpoint({**scope, "state": state}, receive, send)

        return httpx.AsyncClient(transport=httpx.ASGITransport(served), base_url="http://test")

    given = {"traceparent": f"00-{TRACE}00-00f067aa0ba902b7-01", "tracestate": "a=1,b=2"}
    async with of(bug) as client:
        assert (await client.get("/a", headers=given)).status_code == 500
    async with of(calls) as client:
        passed = (await client.get("/a", headers=given)).json()
    failed, called = exporter.get_finished_spans()
    assert failed.status.status_code is StatusCode.ERROR
    assert attributes(failed)["error.type"] == "500"
    assert SECRET not in failed.to_json()
    assert called.context is not None
    assert passed == {
        "traceparent": f"00-{TRACE}00-{called.context.span_id:016x}-01",
        "tracestate": "a=1,b=2",
    }


async def test_what_is_off_is_not_called(own_database_url: str, ids: list[int]) -> None:
    """Traces and the log of statements cost a request nothing but the question `is None`."""
    called: set[str] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            called.add(frame.f_code.co_filename.rpartition("/service/")[2])

    off = Settings(database_url=own_database_url, log="off", auth="off", secret="x" * 16)
    async with serving(built_in(off)) as client:
        sys.setprofile(note)
        try:
            answers = [
                await client.get(f"/items/{ids[0]}"),
                await client.post("/items", json={"name": "Lamp"}),
                *await asyncio.gather(*(client.get(f"/items/{one}") for one in ids)),
            ]
        finally:
            sys.setprofile(None)
    assert {one.status_code for one in answers} == {200, 201}
    assert {"web/endpoint.py", "db/observer.py", "db/batcher.py", "timing.py"} <= called
    costs = ("tracing/", "traceparent.py", "logs/line_queue.py", "db/shown_statements.py")
    assert not [one for one in called if one.startswith(costs)]


class Collector:
    """Takes spans as OTLP over HTTP."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.services: set[str] = set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/v1/traces"
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.take(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()

    def take(self, given: ExportTraceServiceRequest) -> None:
        for resource in given.resource_spans:
            for one in resource.resource.attributes:
                if one.key == "service.name":
                    self.services.add(one.value.string_value)
            for scope in resource.scope_spans:
                self.spans += scope.spans

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def collector() -> Iterator[Collector]:
    one = Collector()
    try:
        yield one
    finally:
        one.stop()


def test_a_server_sends_spans_and_runs_on_without_a_collector(
    own_database_url: str, collector: Collector, tmp_path: Path
) -> None:
    running = Service(
        tmp_path / "log",
        *("--app", "observed_app:app"),
        DATABASE_URL=own_database_url,
        REDIS_URL="off",
        PYTHONPATH=str(Path(__file__).parent),
        SERVICE_AUTH="on",
        SERVICE_CACHE="local",
        SERVICE_LOG="json",
        SERVICE_TRACES="on",
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OTEL_EXPORTER_OTLP_TIMEOUT="1",
        OTEL_BSP_SCHEDULE_DELAY="100",
    )
    given = {"traceparent": f"00-{TRACE}00-00f067aa0ba902b7-01"}
    key = {"X-API-Key": "test_reader_secret-reader"}
    try:
        running.wait_until_ready()
        with httpx.Client(base_url=running.url, headers=key, timeout=30) as client:
            assert client.get("/fails/1", headers=given).status_code == 500
            said: set[str] = set()

            def is_hit() -> bool:
                answer = client.get("/items", headers=given)
                said.add(answer.headers["traceresponse"])
                return answer.headers["x-cache"] == "HIT"

            eventually(is_hit, 10)

            def own() -> list[Any]:
                return [one for one in collector.spans if one.trace_id.hex() == f"{TRACE}00"]

            eventually(
                lambda: said <= {f"00-{TRACE}00-{one.span_id.hex()}-01" for one in own()}, 10
            )
            names = {one.name for one in own()}
            assert {"look-up of the API key", "GET /items", "GET /fails/{id}"} <= names
            assert len(said) > 1
            assert collector.services == {"swiftlet"}
            collector.server.shutdown()
            collector.server.server_close()
            for _ in range(3):
                assert client.get("/items").status_code == 200
            eventually(lambda: "spans can't be sent" in running.log.read_text(), 20)
            assert client.get("/items").status_code == 200
        assert running.stop() == 0
        log = running.log.read_text()
        assert log.count("spans can't be sent") == 1
        assert f'"trace_id":"{TRACE}00"' in log
        assert '"logger":"opentelemetry' not in log
    finally:
        running.process.kill()
        running.process.wait()


def test_traces_without_opentelemetry_stop_the_start_with_one_line() -> None:
    program = (
        "import sys; sys.modules['opentelemetry.sdk'] = None; sys.argv[1:] = ['serve'];"
        "from service.__main__ import main; main()"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program],
        check=False,
        capture_output=True,
        text=True,
        env={"SERVICE_TRACES": "on", "DATABASE_URL": "postgresql://localhost/none"},
        timeout=60,
    )
    assert ran.returncode == 2
    assert ran.stderr.count("\n") == 1
    assert "SERVICE_TRACES=on needs OpenTelemetry" in ran.stderr
    assert "install swiftlet[otel]" in ran.stderr


def test_a_wrong_variable_of_opentelemetry_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    tracing.check("on")
    monkeypatch.setenv("OTEL_SPAN_LINK_COUNT_LIMIT", "-1")
    tracing.check("off")
    with pytest.raises(SettingsError, match="OTEL_SPAN_LINK_COUNT_LIMIT must be"):
        tracing.check("on")


async def test_the_look_up_of_a_key_is_in_the_trace_of_its_request() -> None:
    """It runs outside of the request, since other requests with the key wait for it too."""
    seen: list[Any] = []

    class Keys:
        def parse(self, key: bytes) -> ParsedKey:
            return ParsedKey("reader", hashlib.sha256(key).digest())

        async def look_up(self, _: Any, public_id: str) -> KeyRecord:
            spent = timing.get()
            seen.append(None if spent is None else spent.span)
            principal = Principal(1, 1, frozenset({"read"}))
            return KeyRecord(self.parse(public_id.encode()).secret_hash, principal)

        def used(self, *_: Any) -> None: ...

    class Spawner:
        def spawn(self, work: Any) -> None:
            self.task = asyncio.create_task(work, context=Context())

    db: Any = Spawner()
    keys: Any = Keys()
    span = Mock()
    spent = Timing()
    spent.span = span
    timing.set(spent)
    await PrincipalCache(keys, db, db).authenticate(b"reader", "test")
    timing.set(None)
    assert seen == [span]
    assert span.child.call_args.args[0] == "look-up of the API key"
