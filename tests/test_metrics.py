"""Metrics: the slots of workers, the text of /metrics, and what is counted."""

import asyncio
import errno
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import ROOT, SERVER, Service
from prometheus_client import Metric
from prometheus_client.openmetrics import parser as open_metrics_parser
from prometheus_client.parser import text_string_to_metric_families
from raw_http import talk
from starlette.requests import Request as StarletteRequest
from starlette.responses import Response
from starlette.routing import Mount, Route, Router
from test_faults import eventually

from bench import guardcost
from service.cache.off import NoCache
from service.cache.store import Cache
from service.db.database import Database
from service.embedded.data_directory import Stores
from service.items import items
from service.limits.limiter import Limiter
from service.limits.policy import Policies
from service.logs import logger
from service.metrics import Metrics, Store, opened, shared_folder, slot_folder, slots
from service.metrics.exposition import open_metrics, prometheus
from service.metrics.families import (
    DB_ROWS,
    DEPENDENCY_UP,
    FAMILIES,
    HTTP_DURATION,
    SECONDS,
    START_TIME,
    WORKERS,
)
from service.monitoring import OPEN_METRICS, TEXT, wants_open_metrics
from service.sampling import Sampler
from service.server import free_port
from service.settings import Settings
from service.web.cors import Cors
from service.web.guard import Guard
from service.web.routing import Paths

Samples = dict[tuple[str, tuple[str, ...]], float]
pytestmark = pytest.mark.anyio
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc and /dev/shm")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def samples(text: str) -> Samples:
    """Return the samples of a text by name and label values, read by Prometheus' own parser."""
    return {
        (one.name, tuple(one.labels.values())): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def shown(store: Store) -> Samples:
    return samples("".join(prometheus(store.slots())))


def scrape(client: httpx.Client) -> Samples:
    return samples(client.get("/metrics").raise_for_status().text)


def requests_counted(found: Samples, *labels: str) -> float:
    return found.get(("http_request_duration_seconds_count", labels), 0.0)


# The format.


def families(text: str, parsed: list[Metric]) -> None:
    """Check that a text has the families that are declared, each once and of the right kind."""
    for one in parsed:
        name = one.name if one.name in FAMILIES else f"{one.name}_total"
        family = FAMILIES[name]
        assert one.type == family.kind
        assert one.documentation == family.help
        for sample in one.samples:
            assert set(sample.labels) - {"le"} == {*family.labels}
    assert text.count("# TYPE ") == len(parsed)


def test_both_parsers_of_prometheus_read_it(client: httpx.Client) -> None:
    item = client.post("/items", json={"name": "One"}).json()
    client.get(f"/items/{item['id']}")
    plain = client.get("/metrics")
    assert plain.headers["content-type"].encode() == TEXT
    assert plain.headers["cache-control"] == "no-store"
    assert plain.headers["content-encoding"] in {"gzip", "zstd"}
    families(plain.text, list(text_string_to_metric_families(plain.text)))
    asked = client.get("/metrics", headers={"accept": PROMETHEUS.decode()})
    assert asked.headers["content-type"].encode() == OPEN_METRICS
    assert asked.text.endswith("# EOF\n")
    parse: Any = open_metrics_parser.text_string_to_metric_families
    families(asked.text, list(parse(asked.text)))
    head = client.head("/metrics")
    assert (head.status_code, head.content) == (200, b"")


# What Prometheus 3 sends.
PROMETHEUS = (
    b"application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    b"application/openmetrics-text;version=0.0.1;q=0.5,"
    b"text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


@pytest.mark.parametrize(
    ("accept", "wanted"),
    (
        (b"", False),
        (b"*/*", False),
        (PROMETHEUS, True),
        (b"application/openmetrics-text", True),
        (b"Application/OpenMetrics-Text; Version=1.0.0", True),
        (b"application/openmetrics-text; version=0.0.1", False),
        (b"text/plain, application/openmetrics-text;q=0.5", False),
        (b"application/openmetrics-text;q=x, ;;=, text/plain;q", False),
        (b"application/openmetrics-text;q=0", False),
    ),
)
def test_accept_chooses_the_format(accept: bytes, wanted: bool) -> None:
    assert wants_open_metrics(accept) is wanted


def test_labels_are_escaped_and_numbers_exact() -> None:
    store = Store()
    metrics = Metrics(store)
    odd = 'a\\b"c\nd%e'
    metrics.add(DB_ROWS, odd, number=2.0**53)
    metrics.request("GET", odd, 200, 0.1)
    both: tuple[tuple[str, Any], ...] = (
        ("".join(prometheus(store.slots())), text_string_to_metric_families),
        ("".join(open_metrics(store.slots())), open_metrics_parser.text_string_to_metric_families),
    )
    for text, parse in both:
        found = {
            (one.name, one.labels.get("query_type")): one.value
            for family in parse(text)
            for one in family.samples
        }
        assert found["db_rows_total", odd] == 2.0**53
        assert found["http_request_duration_seconds_sum", None] == 0.1


# What is counted.


def test_each_request_is_counted_under_its_route(client: httpx.Client) -> None:
    before = scrape(client)
    item = client.post("/items", json={"name": "One"}).json()
    for _ in range(5):
        client.get(f"/items/{item['id']}")
    client.head(f"/items/{item['id']}")
    client.get(f"/items/{item['id']}/")
    client.get("/items/0")
    client.post("/items", json={})
    client.request("FOOBAR", "/items")
    client.get("/nothing/at/all")
    client.get("/users/1/items")
    after = scrape(client)
    grown = {
        labels: value - before.get((name, labels), 0.0)
        for (name, labels), value in after.items()
        if name == "http_request_duration_seconds_count"
        and value != before.get((name, labels), 0.0)
    }
    assert grown == {
        ("POST", "/items", "201"): 1,
        ("GET", "/items/{id}", "200"): 6,
        ("HEAD", "/items/{id}", "200"): 1,
        ("GET", "/items/{id}", "404"): 1,
        ("POST", "/items", "422"): 1,
        ("other", "/items", "405"): 1,
        ("GET", "unmatched", "404"): 1,
        ("GET", "/users/{id}/items", "404"): 1,
        ("GET", "/metrics", "200"): 1,
    }
    assert after["http_requests_in_flight", ()] == 1  # the scrape itself


def test_statements_batches_and_look_ups_are_counted(client: httpx.Client) -> None:
    before = scrape(client)
    item = client.post("/items", json={"name": "One"}).json()
    for _ in range(3):
        client.get(f"/items/{item['id']}")
    client.get("/items/9")
    after = scrape(client)

    def grown(name: str, *labels: str) -> float:
        return after[name, labels] - before.get((name, labels), 0.0)

    assert grown("cache_requests_total", "process", "hit") == 2
    assert grown("cache_requests_total", "process", "miss") == 2
    assert grown("db_query_total", "items.by_id", "success") == 2
    assert grown("db_query_duration_seconds_count", "items.by_id") == 2
    assert grown("db_rows_total", "items.by_id") == 1
    assert grown("db_batch_size_sum", "items.by_id") == 2
    assert after["db_pool_size", ()] == 4
    assert after["dependency_up", ("database",)] == 1
    assert after["service_workers", ()] == 1
    assert ("cache_bytes", ("process",)) in after
    assert grown("process_cpu_seconds_total") >= 0


@pytest.mark.skipif(SERVER != "uvicorn", reason="granian refuses such requests itself")
def test_a_request_that_the_parser_refuses_is_counted(
    client: httpx.Client, service: Service
) -> None:
    refused = ("http_refused_total", ("400",))
    before = scrape(client).get(refused, 0.0)
    assert talk(service, b"GET / HTTP/1.1\r\nbad header\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert scrape(client)[refused] == before + 1


async def test_samples_are_added_once_and_say_what_is_away() -> None:
    url = "postgresql:///none?host=/nowhere"
    metrics = Metrics(Store())
    db = Database(url, size=1)
    await db.open()
    cache = Cache(url, "unix:///nowhere/redis", limit=1000, ttl=300, fingerprint="")
    sampler = Sampler(metrics, "1.2.3", db, cache, None)
    cache.local.hits = 3
    for _ in range(2):
        sampler.publish()
    cache.local.hits = 5
    sampler.publish()
    await db.close()
    await cache.close()
    found = shown(metrics.store)
    assert found["cache_requests_total", ("process", "hit")] == 5
    assert found["dependency_up", ("database",)] == 0
    assert found["dependency_up", ("redis",)] == 0
    assert found["service_info", ("1.2.3",)] == 1
    assert found["db_pool_size", ()] == 0


@on_linux
def test_a_process_says_when_it_started_and_what_it_uses(client: httpx.Client) -> None:
    before = scrape(client)
    assert time.time() - 86_400 < before["process_start_time_seconds", ()] <= time.time()
    assert 10e6 < before["process_resident_memory_bytes", ()] < 1e9
    assert 10 < before["process_open_fds", ()] < 1000
    for _ in range(50):
        client.get("/items")
    assert scrape(client)["process_cpu_seconds_total", ()] > before["process_cpu_seconds_total", ()]


async def test_routes_of_starlette_and_preflights_are_counted() -> None:
    def answer(_: StarletteRequest) -> Response:
        return Response("plain")

    def fails(_: StarletteRequest) -> Response:
        raise LookupError("a bug")

    others = [
        Route("/plain/{name}", answer),
        Route("/fails", fails),
        Mount("/below", Router([Route("/{name}", answer)])),
    ]
    app = Paths(items.operations, others)
    app.added = Cors(["https://shop.example"])
    metrics = Metrics(Store())
    limiter = Limiter(Policies("3/60s"))
    guard = Guard(None, limiter, "all", metrics=metrics)
    state = {
        "settings": Settings(),
        "cache": NoCache(),
        "guard": guard,
        "metrics": metrics,
        "tracer": None,
    }

    async def served(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "state": state}, receive, send)

    transport = httpx.ASGITransport(served, raise_app_exceptions=False)
    preflight = {"origin": "https://shop.example", "access-control-request-method": "GET"}
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.options("/items/1", headers=preflight)).status_code == 204
        assert (await client.options("/plain/1", headers=preflight)).status_code == 204
        assert (await client.get("/plain/1")).status_code == 200
        assert (await client.get("/below/1")).status_code == 200
        assert (await client.get("/fails")).status_code == 500
        assert (await client.get("/plain/2")).status_code == 429
    found = shown(metrics.store)
    name = "http_request_duration_seconds_count"
    assert {labels: value for (one, labels), value in found.items() if one == name} == {
        ("OPTIONS", "/items/{id}", "204"): 1,
        ("OPTIONS", "/plain/{name}", "204"): 1,
        ("GET", "/plain/{name}", "200"): 1,
        ("GET", "/below", "200"): 1,
        ("GET", "/fails", "500"): 1,
        ("GET", "/plain/{name}", "429"): 1,
    }
    assert found["ratelimit_decisions_total", ("default", "allowed", "process")] == 3
    assert found["ratelimit_decisions_total", ("default", "refused", "process")] == 1
    assert metrics.in_flight == 0


@pytest.mark.slow
def test_workers_of_another_server_share_a_folder(
    own_database_url: str, stores: Stores, tmp_path: Path
) -> None:
    port = free_port("127.0.0.1")
    folder = tmp_path / "made" / "metrics"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "uvicorn", "service.asgi:app", "--workers", "2"),
            *("--port", str(port), "--log-level", "warning"),
        ],
        cwd=ROOT,
        env=os.environ
        | {
            "DATABASE_URL": own_database_url,
            "REDIS_URL": stores.redis_url or "off",
            "SERVICE_METRICS": str(folder),
            "SERVICE_LOG": "off",
        },
    )
    url = f"http://127.0.0.1:{port}"
    name = "http_request_duration_seconds_count"

    def scraped() -> Samples:
        try:
            return samples(httpx.get(f"{url}/metrics").text)
        except httpx.TransportError:
            return {}

    try:
        eventually(lambda: scraped().get(("service_workers", ()), 0) == 2, 60)
        for _ in range(20):
            httpx.get(f"{url}/health")
        eventually(lambda: scraped().get((name, ("GET", "/health", "200"))) == 20, 60)
        assert len(list(folder.iterdir())) == 2
    finally:
        process.terminate()
        process.wait(60)


# The slots of workers.


COUNT = """
import os, signal, sys
from pathlib import Path
from service.metrics import Metrics, Store
from service.metrics.families import START_TIME, WORKERS
metrics = Metrics(Store(Path(sys.argv[1])))
for _ in range(int(sys.argv[2])):
    metrics.hit("/items", 0.00005)
metrics.set(WORKERS, 1)
metrics.set(START_TIME, 2e9)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_counts_of_a_killed_worker_stay_and_its_gauges_go(tmp_path: Path) -> None:
    store = Store(tmp_path)
    own = Metrics(store)
    own.hit("/items", 0.0002)
    own.set(WORKERS, 1)
    own.set(START_TIME, 1e9)
    killed = subprocess.run([sys.executable, "-c", COUNT, tmp_path, "7"], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    found = shown(store)
    assert requests_counted(found, "GET", "/items", "200") == 8
    assert found["http_request_duration_seconds_bucket", ("GET", "/items", "200", "0.0001")] == 7
    assert found["service_workers", ()] == 1
    assert found["process_start_time_seconds", ()] == 1e9
    # The next worker takes the slot and goes on; it has not set the gauges of the one before.
    next_store = Store(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    assert shown(next_store)["service_workers", ()] == 1
    Metrics(next_store).hit("/items", 0.0002)
    assert requests_counted(shown(store), "GET", "/items", "200") == 9
    next_store.close()
    store.close()


def test_gauges_of_workers_are_merged_as_their_family_says(tmp_path: Path) -> None:
    stores = [Store(tmp_path) for _ in range(3)]
    for place, store in enumerate(stores):
        one = Metrics(store)
        one.set(WORKERS, 1)
        one.set(START_TIME, 100 + place)
        one.set(DEPENDENCY_UP, place != 1, "database")
    for store in stores:
        found = shown(store)
        assert found["service_workers", ()] == 3
        assert found["process_start_time_seconds", ()] == 102
        assert found["dependency_up", ("database",)] == 0
    stores[1].close()
    assert shown(stores[0])["dependency_up", ("database",)] == 1
    Metrics(stores[1]).hit("/items", 1.0)  # a late task counts on
    for store in (stores[0], stores[2]):
        store.close()


def test_a_full_store_counts_no_further_series_and_breaks_none(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store()
    metrics = Metrics(store)
    metrics.hit("/first", 0.001)
    monkeypatch.setattr(slots, "VALUES", 100)
    with caplog.at_level("WARNING", "service"):
        monkeypatch.setattr(logger, "propagate", True)
        for route in ("/a", "/b", "/c", "/d", "/e", "/f"):
            metrics.request("GET", route, 200, 0.5)
            metrics.hit(f"{route}/hit", 0.5)
        metrics.add(DB_ROWS, "one")
    (told,) = {one.getMessage(): one for one in caplog.records}.values()
    assert told.message.startswith("metrics are full")
    found = shown(store)
    assert requests_counted(found, "GET", "/first", "200") == 1
    assert requests_counted(found, "GET", "/a", "200") == 1
    assert requests_counted(found, "GET", "/f", "200") == 0
    assert all(value in (0.0, 0.001, 0.5, 1.0) for (name, _), value in found.items()), (
        "a series has the values of another one"
    )


def test_other_files_in_the_folder_do_not_break_a_scrape(tmp_path: Path) -> None:
    store = Store(tmp_path)
    Metrics(store).hit("/items", 0.1)
    (tmp_path / "worker-empty").touch()
    (tmp_path / "worker-text").write_text("not a slot")
    (tmp_path / "worker-folder").mkdir()
    (tmp_path / "worker-gone").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "worker-fifo")
    stamp = slots.STAMP.to_bytes(8, "little")
    wrong: tuple[Any, ...] = (
        [0, "http_request_duration_seconds", "GET", "/evil"],
        [10**9, "service_workers"],
        [-5, "service_workers"],
        ["0", "service_workers"],
        [0, "unknown_family"],
        {},
        5,
    )
    lines = b"".join(json.dumps(one).encode() + b"\n" for one in wrong)
    lines += b"\xff\xfe{[\n"
    header = stamp + (50).to_bytes(8, "little") + len(lines).to_bytes(8, "little")
    (tmp_path / "worker-bad").write_bytes((header + lines).ljust(slots.SIZE, b"\0"))
    long = stamp + (2**60).to_bytes(8, "little") * 2
    (tmp_path / "worker-long").write_bytes(long + b"[0]\n" * 100)
    (tmp_path / "worker-other").write_bytes(b"\1" * slots.SIZE)
    found = shown(store)
    assert requests_counted(found, "GET", "/items", "200") == 1
    assert "evil" not in str(found)
    store.close()


def test_a_link_in_the_folder_is_not_followed(tmp_path: Path) -> None:
    """Another user may have made it, if the folder of SERVICE_METRICS is open to all."""
    target, folder = tmp_path / "target", tmp_path / "folder"
    target.write_text("precious")
    folder.mkdir()
    (folder / "worker-0").symlink_to(target)
    with pytest.raises(OSError, match="Too many levels"):
        Store(folder)
    assert target.read_text() == "precious"
    metrics = opened(str(folder))
    assert metrics is not None, "a worker that shows its own metrics alone"
    assert metrics.store.folder is None


def test_a_slot_of_another_version_is_made_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "worker-0").write_bytes(b"\1" * slots.SIZE)
    store = Store(tmp_path)
    assert shown(store) == {}
    Metrics(store).hit("/items", 0.1)
    monkeypatch.setattr(slots, "STAMP", 5)  # another version starts beside this one
    other = Store(tmp_path)
    assert shown(other) == {}
    other.close()
    store.close()


def test_without_space_a_worker_counts_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A file system without space; here it is the largest size of a file."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    monkeypatch.setattr(logger, "propagate", True)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limit[1]))
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
            Store(tmp_path)
        with caplog.at_level("WARNING", "service"):
            metrics = opened(str(tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert metrics is not None
    (told,) = {one.getMessage(): one for one in caplog.records}.values()
    assert told.message.startswith("each worker shows its own metrics alone")
    metrics.hit("/items", 0.1)
    assert requests_counted(shown(metrics.store), "GET", "/items", "200") == 1


@on_linux
def test_folders_of_killed_servers_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slot_folder, "MEMORY", tmp_path)
    left = tmp_path / f"{slot_folder.PREFIX}left"
    left.mkdir()
    (left / "worker-0").touch()
    with shared_folder(2) as first:
        assert not left.exists()
        assert first is not None
        assert first.parent == tmp_path
        assert first.stat().st_mode & 0o777 == 0o700
        with shared_folder(2) as second:  # of another server, while the first runs
            assert first.exists()
        assert second is not None
        assert not second.exists()
    assert list(tmp_path.iterdir()) == []


@on_linux
def test_without_memory_the_folder_is_on_the_disk_or_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slot_folder, "MEMORY", tmp_path / "missing")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with shared_folder(2) as folder:
        assert folder is not None
        assert folder.parent == tmp_path
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with shared_folder(2) as folder:
        assert folder is None


def test_off_counts_nothing() -> None:
    assert opened("off") is None


@pytest.mark.parametrize("seconds", (0.0, SECONDS[0], 0.0003, SECONDS[-1], 99.0))
def test_a_hit_is_counted_as_any_other_response(seconds: float) -> None:
    store = Store()
    metrics = Metrics(store)
    metrics.hit("/one", seconds)
    metrics.request("GET", "/two", 200, seconds)
    one, two = (one.values for one in next(store.slots()).series if one.family is HTTP_DURATION)
    assert one == two
    assert len(one) == HTTP_DURATION.width


def test_metrics_add_one_call_to_a_hit() -> None:
    """And two of built-in functions; a hit has some 50 calls. Without metrics nothing is added."""

    async def calls(variant: guardcost.Variant) -> Counter[str]:
        some = await guardcost.reader(variant, Store())
        found: Counter[str] = Counter()
        sys.setprofile(lambda _, event, __: found.update([event]))
        try:
            some()
        finally:
            sys.setprofile(None)
        return found

    off = asyncio.run(calls(guardcost.Variant("off")))
    on = asyncio.run(calls(guardcost.Variant("on", metrics=True)))
    for event, most in (("call", 1), ("c_call", 2)):
        assert (on[event] - off[event]) / guardcost.TURNS <= most
