"""Faults of Redis, clusters and sentinels: real servers behind a real service."""

import asyncio
import itertools
import random
import secrets
import shutil
import signal
import socket
import socketserver
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
import redis
from conftest import SERVER, STORES, Service, check_answer
from in_process import until
from redis.asyncio import RedisCluster
from redis.asyncio.connection import SSLConnection
from redis.backoff import NoBackoff
from redis.retry import Retry
from test_direct import listening

from service.cache.client import client as redis_client
from service.cache.generations import Tags
from service.cache.shared import Shared
from service.cache.store import UNKEPT
from service.embedded.data_directory import Stores
from service.embedded.programs import wheel_redis

HERE = "127.0.0.1"
TAG = "{swiftlet:"


def free_port() -> int:
    """Below the range of the system; the port of the cluster bus is 10,000 higher."""
    while True:
        port = random.randrange(12_000, 22_000)
        with socket.socket() as one, socket.socket() as other, suppress(OSError):
            one.bind((HERE, port))
            other.bind((HERE, port + 10_000))
            return port


def eventually(test: Callable[[], object], seconds: float) -> None:
    """Fails after `seconds`, or 30 s, so that a busy machine fails no test."""
    started = time.monotonic()
    while not test():
        assert time.monotonic() - started < max(seconds, 30)
        time.sleep(0.02)


class Server:
    """A Redis that a test may kill, on a port and on a Unix socket."""

    def __init__(self, place: Path, *settings: str, sentinel: bool = False) -> None:
        place.mkdir()
        self.place, self.port = place, free_port()
        self.url = f"redis://{HERE}:{self.port}/0"
        self.unix = f"unix://{place}/s"
        lines = [f"port {self.port}", f"bind {HERE}", f"dir {place}", *settings]
        if not sentinel:
            lines += [f"unixsocket {place}/s", 'save ""', "repl-diskless-sync-delay 0"]
        (place / "conf").write_text("\n".join(lines) + "\n")
        # Not the file behind a link: Debian's is one program that looks at the name it goes by.
        program = wheel_redis() if STORES == "wheel" else shutil.which("redis-server")
        assert program is not None
        self.command = [str(program), str(place / "conf"), *(["--sentinel"] if sentinel else [])]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> "Server":
        with (self.place / "log").open("ab") as log:
            self.process = subprocess.Popen([*self.command, *options], stdout=log, stderr=log)
        eventually(self._answers, 10)
        return self

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.place / "log").read_text()
        try:
            return self.say("PING") in ("PONG", True)
        except redis.BusyLoadingError:
            return True
        except redis.ConnectionError:
            return False

    def say(self, *words: str | int) -> Any:
        """The answer to a command, on a connection of its own."""
        once = Retry(NoBackoff(), 0)
        with redis.Redis(
            HERE, self.port, socket_timeout=5, retry=once, decode_responses=True
        ) as one:
            return one.execute_command(*words)

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def listening(self) -> int:
        """How many workers of the service are subscribed here."""
        channels = self.say("PUBSUB", "CHANNELS", TAG + "*")
        return sum(self.say("PUBSUB", "NUMSUB", *channels)[1::2]) if channels else 0


NewRedis = Callable[..., Server]


@contextmanager
def servers(place: Path) -> Iterator[NewRedis]:
    """Makes servers, not started yet, and kills them at the end."""
    with ExitStack() as ends:
        numbers = itertools.count()

        def make(*settings: str, sentinel: bool = False) -> Server:
            server = Server(place / f"r{next(numbers)}", *settings, sentinel=sentinel)
            ends.callback(server.kill)
            return server

        yield make


@pytest.fixture
def new_redis(tmp_path: Path) -> Iterator[NewRedis]:
    with servers(tmp_path) as make:
        yield make


def client_of(url: str | httpx.URL, **headers: str) -> httpx.Client:
    hooks = {"response": [check_answer]}
    return httpx.Client(base_url=url, timeout=10, headers=headers, event_hooks=hooks)


Serve = Callable[..., AbstractContextManager[httpx.Client]]


@pytest.fixture
def serve(own_database_url: str, tmp_path: Path) -> Serve:
    """Starts the service on a REDIS_URL; each request of the client is a connection of its own."""

    @contextmanager
    def serving(url: str, *, workers: int = 1) -> Iterator[httpx.Client]:
        log = tmp_path / "service.log"
        options = ("--server", SERVER, "--workers", str(workers))
        settings = {"DATABASE_URL": own_database_url, "REDIS_URL": url, "SERVICE_LOG": "json"}
        running = Service(log, *options, **settings)
        try:
            running.wait_until_ready()
            with client_of(running.url, Connection="close") as client:
                yield client
            assert running.stop() == 0
            # What breaks in the background is seen nowhere else.
            assert "Traceback" not in log.read_text(), log.read_text()
        finally:
            running.process.kill()
            running.process.wait()

    return serving


def used(client: httpx.Client, *nodes: Server, workers: int = 1) -> bool:
    """Whether all workers are subscribed there, and costly lists are kept there."""
    word = secrets.token_hex(4)
    assert client.get(f"/items?q={word}").status_code == 200
    time.sleep(0.02)
    try:
        kept = [key for one in nodes for key in one.say("KEYS", TAG + "*") if f"q={word}" in key]
    except redis.BusyLoadingError:
        return False
    return bool(kept) and sum(one.listening() for one in nodes) == workers


class Pace:
    """How long requests took; each client stays with one worker."""

    def __init__(self, client: httpx.Client) -> None:
        self.url = client.base_url
        self.took: list[float] = []

    def round(self) -> None:
        """Writes and reads of one client, which always sees its last write."""
        word = secrets.token_hex(4)
        with client_of(self.url) as client:

            def ask(method: str, path: str, **body: str) -> Any:
                started = time.monotonic()
                response = client.request(method, path, json=body or None)
                self.took.append(time.monotonic() - started)
                assert response.is_success, response.text
                return response.json()

            path, search = f"/items/{ask('POST', '/items', name=word)['id']}", f"/items?q={word}"
            assert [item["name"] for item in ask("GET", search)["items"]] == [word]
            for name in (f"second {word}", f"third {word}"):
                ask("PATCH", path, name=name)
                assert ask("GET", path)["name"] == name
                for _ in range(2):
                    assert [item["name"] for item in ask("GET", search)["items"]] == [name]

    def rounds(self, seconds: float = 0.0) -> None:
        """No request waits for Redis."""
        until = time.monotonic() + seconds
        self.round()
        while time.monotonic() < until:
            time.sleep(0.1)
            self.round()
        assert statistics.median(self.took) < 2
        assert max(self.took) < 10


def while_fresh(client: httpx.Client, test: Callable[[], bool]) -> None:
    """Until the test is met, no client is shown anything old."""

    def met() -> bool:
        Pace(client).rounds()
        return test()

    eventually(met, 20)


# Faults of a Redis.


@contextmanager
def killed(server: Server) -> Iterator[None]:
    server.kill()
    yield
    server.start()


@contextmanager
def restarted_empty(server: Server) -> Iterator[None]:
    server.kill()
    server.start()
    yield


@contextmanager
def hung(server: Server) -> Iterator[None]:
    server.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.signal(signal.SIGCONT)


FILL = "for n = 1, 20000 do redis.call('SET', 'fill:' .. n, string.rep('x', 50)) end"


@contextmanager
def full(server: Server) -> Iterator[None]:
    server.say("EVAL", FILL, 0)
    server.say("CONFIG", "SET", "maxmemory-policy", "noeviction")
    server.say("CONFIG", "SET", "maxmemory", "1mb")
    with pytest.raises(redis.OutOfMemoryError):
        server.say("SET", "x", "x")
    yield
    server.say("CONFIG", "SET", "maxmemory", "0")


@contextmanager
def read_only(server: Server) -> Iterator[None]:
    server.say("REPLICAOF", HERE, free_port())
    yield
    server.say("REPLICAOF", "NO", "ONE")


@contextmanager
def loading(server: Server) -> Iterator[None]:
    """Its file, at half a millisecond a key."""
    server.say("EVAL", FILL, 0)
    server.say("SAVE")
    server.kill()
    server.start("--key-load-delay", "500", "--loading-process-events-interval-bytes", "1024")
    yield
    with pytest.raises(redis.BusyLoadingError):  # still
        server.say("GET", "x")

    def loads_faster() -> bool:
        try:  # the server may also refuse the first commands of a connection
            server.say("CONFIG", "SET", "key-load-delay", "0")
        except redis.BusyLoadingError:
            return False
        return True

    eventually(loads_faster, 30)


Trouble = Callable[[Server], AbstractContextManager[None]]


@pytest.mark.parametrize(
    ("way", "trouble", "seconds"),
    (
        ("url", killed, 0.6),
        pytest.param("unix", killed, 0.6, marks=pytest.mark.slow),
        ("url", restarted_empty, 0),
        # A connection without an answer for a second is closed.
        pytest.param("url", hung, 0.2, marks=pytest.mark.slow),
        ("url", hung, 1.6),
        pytest.param("unix", hung, 1.6, marks=pytest.mark.slow),
        ("url", full, 0.6),
        pytest.param("url", read_only, 0.6, marks=pytest.mark.slow),
        pytest.param("url", loading, 0.6, marks=pytest.mark.slow),
    ),
)
def test_a_fault_of_redis_is_seen_by_no_client_and_ends_with_it(
    way: str, trouble: Trouble, seconds: float, new_redis: NewRedis, serve: Serve
) -> None:
    server = new_redis().start()
    with serve(getattr(server, way)) as client:
        eventually(lambda: used(client, server), 5)
        with trouble(server):
            Pace(client).rounds(seconds)
        eventually(lambda: used(client, server), 5)
        Pace(client).rounds()


class Slow(socketserver.ThreadingTCPServer):
    """A proxy to a server that delays by `seconds` in each direction."""

    daemon_threads = True
    block_on_close = False
    seconds = 0.0

    def __init__(self, port: int) -> None:
        super().__init__((HERE, 0), socketserver.BaseRequestHandler)
        self.port = port
        self.url = f"redis://{HERE}:{self.server_address[1]}/0"

    def finish_request(self, request: Any, client_address: object) -> None:
        del client_address
        with socket.create_connection((HERE, self.port)) as there:
            back = threading.Thread(target=self.carry, args=(there, request), daemon=True)
            back.start()
            self.carry(request, there)
            back.join()

    def carry(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                time.sleep(self.seconds)
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)


def test_no_request_waits_for_a_slow_redis(new_redis: NewRedis, serve: Serve) -> None:
    server = new_redis().start()
    with Slow(server.port) as way:
        threading.Thread(target=way.serve_forever, args=(0.05,)).start()
        try:
            with serve(way.url) as client:
                eventually(lambda: used(client, server), 5)
                way.seconds = 0.2
                Pace(client).rounds(1.6)
                way.seconds = 0.0
                eventually(lambda: used(client, server), 5)
                Pace(client).rounds()
        finally:
            way.shutdown()


@pytest.mark.parametrize(
    "url",
    (
        "redis://127.0.0.1:{0}/0",
        pytest.param("unix:///nowhere/redis.sock", marks=pytest.mark.slow),
        "redis+cluster://127.0.0.1:{0},127.0.0.1:{1}",
        pytest.param(
            "redis+sentinel://127.0.0.1:{0},127.0.0.1:{1}/mymaster/0", marks=pytest.mark.slow
        ),
    ),
)
def test_the_service_starts_and_serves_without_its_redis(url: str, serve: Serve) -> None:
    with serve(url.format(free_port(), free_port())) as client:
        Pace(client).rounds(0.6)
        ready = client.get("/health/ready")
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded")


# Two workers.


def crowd(client: httpx.Client, path: str) -> list[tuple[str, httpx.Response]]:
    """Enough responses to reach both workers; their request ids tell them apart."""
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.get(path), range(16)))
    assert {answer.status_code for answer in answers} <= {200, 404}
    return [(one.headers["x-request-id"].partition("-")[0], one) for one in answers]


class Sample:
    """An item and lists of it that both workers have cached."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client
        self.word = secrets.token_hex(4)
        made = client.post("/items", json={"name": f"old {self.word}"})
        self.path = made.headers["location"]
        self.paths = (self.path, f"/items?q={self.word}", "/items?sort=-id&per_page=3")
        self.shown: set[tuple[str, str, str | None]] = set()
        self.settle(5, f"old {self.word}")

    def settle(self, seconds: float, name: str | None) -> None:
        """Wait until both workers show the name, and nothing older after that; None if deleted."""
        for path in self.paths:
            started = time.monotonic()
            calm = 0
            while calm < 3:
                states: dict[bool, set[tuple[str, str, str | None]]] = {True: set(), False: set()}
                for worker, answer in crowd(self.client, path):
                    states[self.shows(answer, name)].add((worker, path, name))
                assert not states[False] & self.shown
                self.shown |= states[True]
                calm = calm + 1 if len(states[True]) == 2 and not states[False] else 0
                assert calm or time.monotonic() - started < max(seconds, 30)

    def shows(self, answer: httpx.Response, name: str | None) -> bool:
        return self.word not in answer.text if name is None else name in answer.text


def check_workers(client: httpx.Client) -> None:
    """Both show a change of an item, and then its deletion."""
    for _ in range(2):
        sample = Sample(client)
        name = f"new {sample.word}"
        assert client.patch(sample.path, json={"name": name}).status_code == 200
        sample.settle(2, name)
        assert {answer.headers["x-cache"] for _, answer in crowd(client, sample.path)} == {"HIT"}
        assert client.delete(f"{sample.path}?permanent=true").status_code == 204
        sample.settle(2, None)
        assert client.get(sample.path).status_code == 404


def check_shared(client: httpx.Client) -> None:
    """A costly list is read once: the second worker gets it from Redis."""

    def shared() -> bool:
        path = f"/items?q={secrets.token_hex(4)}"
        assert client.get(path).headers["x-cache"] == "MISS"
        time.sleep(0.05)
        answers = crowd(client, path)
        return len({worker for worker, _ in answers}) == 2 and all(
            answer.headers["x-cache"] == "HIT" for _, answer in answers
        )

    eventually(shared, 5)


def test_two_workers_share_costly_lists_and_show_every_write(
    new_redis: NewRedis, serve: Serve
) -> None:
    server = new_redis().start()
    with serve(server.url, workers=2) as client:
        eventually(lambda: used(client, server, workers=2), 5)
        check_shared(client)
        check_workers(client)


@pytest.mark.parametrize(
    "trouble",
    (
        pytest.param(hung, marks=pytest.mark.slow),
        pytest.param(read_only, marks=pytest.mark.slow),
        killed,
    ),
)
def test_a_write_is_shown_by_both_workers_when_redis_cannot_publish_it(
    trouble: Trouble, new_redis: NewRedis, serve: Serve
) -> None:
    """Also when Redis answers again, with the data that it had before."""
    server = new_redis().start()
    with serve(server.url, workers=2) as client:
        eventually(lambda: used(client, server, workers=2), 5)
        sample = Sample(client)
        name = f"new {sample.word}"
        with trouble(server):
            assert client.patch(sample.path, json={"name": name}).status_code == 200
            sample.settle(5, name)
        sample.settle(2, name)
        eventually(lambda: used(client, server, workers=2), 5)
        sample.settle(2, name)


# A cluster.


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    """Three masters."""
    with servers(tmp_path_factory.mktemp("cluster")) as make:
        masters = [new_node(make) for _ in range(3)]
        for node, first, last in zip(
            masters, (0, 5461, 10_923), (5460, 10_922, 16_383), strict=True
        ):
            node.say("CLUSTER", "ADDSLOTSRANGE", first, last)
        for other in masters[1:]:
            masters[0].say("CLUSTER", "MEET", HERE, other.port)
        eventually(lambda: cluster_is_ok(masters, 3), 20)
        yield masters


def new_node(make: NewRedis) -> Server:
    return make("cluster-enabled yes", "cluster-node-timeout 1000").start()


def cluster_is_ok(nodes: list[Server], known: int) -> bool:
    said = [node.say("CLUSTER", "INFO") for node in nodes]
    return all("cluster_state:ok" in one and f"known_nodes:{known}" in one for one in said)


def cluster_url(nodes: list[Server]) -> str:
    return "redis+cluster://" + ",".join(f"{HERE}:{node.port}" for node in nodes)


def owner(nodes: list[Server]) -> Server:
    """The node that has all cached responses."""
    return next(node for node in nodes if node.say("KEYS", TAG + "*"))


@pytest.mark.slow
def test_a_cluster_serves_both_workers_and_may_lose_a_master(
    cluster: list[Server], serve: Serve
) -> None:
    with serve(cluster_url(cluster), workers=2) as client:
        eventually(lambda: used(client, *cluster, workers=2), 5)
        check_shared(client)
        check_workers(client)
        lost = owner(cluster)
        with killed(lost):
            rest = [node for node in cluster if node is not lost]
            Pace(client).rounds(1)
            eventually(lambda: "state:fail" in rest[0].say("CLUSTER", "INFO"), 10)
            Pace(client).rounds()
        eventually(lambda: cluster_is_ok(cluster, 3), 20)
        eventually(lambda: used(client, *cluster, workers=2), 5)
        check_workers(client)


@pytest.mark.slow
def test_a_cluster_is_used_again_after_a_replica_takes_over(
    cluster: list[Server], serve: Serve, new_redis: NewRedis
) -> None:
    with serve(cluster_url(cluster), workers=2) as client:
        eventually(lambda: used(client, *cluster, workers=2), 5)
        lost = owner(cluster)
        replica = new_node(new_redis)
        replica.say("CLUSTER", "MEET", HERE, cluster[0].port)
        eventually(lambda: cluster_is_ok([*cluster, replica], 4), 20)
        replica.say("CLUSTER", "REPLICATE", lost.say("CLUSTER", "MYID"))
        eventually(lambda: replica.say("ROLE")[3:4] == ["connected"], 20)
        rest = [replica, *(node for node in cluster if node is not lost)]
        lost.kill()
        while_fresh(client, lambda: replica.say("ROLE")[0] == "master")
        eventually(lambda: cluster_is_ok(rest, 4), 20)
        eventually(lambda: used(client, *rest, workers=2), 5)
        check_workers(client)


# Sentinels.


@pytest.fixture
def guarded(new_redis: NewRedis) -> tuple[Server, Server, Server]:
    """A master, its replica, and a sentinel that is not started yet."""
    master = new_redis().start()
    replica = new_redis(f"replicaof {HERE} {master.port}").start()
    eventually(lambda: replica.say("ROLE")[3] == "connected", 20)
    sentinel = new_redis(
        f"sentinel monitor mymaster {HERE} {master.port} 1",
        "sentinel down-after-milliseconds mymaster 500",
        "sentinel failover-timeout mymaster 2000",
        sentinel=True,
    )
    return master, replica, sentinel


@pytest.mark.slow
def test_the_master_that_the_sentinels_name_is_used(
    guarded: tuple[Server, Server, Server], serve: Serve
) -> None:
    master, replica, sentinel = guarded
    with serve(f"redis+sentinel://{HERE}:{sentinel.port}/mymaster/0", workers=2) as client:
        Pace(client).rounds()
        sentinel.start()
        eventually(lambda: used(client, master, workers=2), 5)
        check_shared(client)
        check_workers(client)
        eventually(lambda: sentinel.say("SENTINEL", "REPLICAS", "mymaster"), 20)
        master.kill()
        while_fresh(client, lambda: replica.say("ROLE")[0] == "master")
        eventually(lambda: used(client, replica, workers=2), 5)
        check_workers(client)


@pytest.mark.slow
def test_a_sentinel_that_does_not_answer_is_skipped(
    guarded: tuple[Server, Server, Server], serve: Serve
) -> None:
    master, _, sentinel = guarded
    sentinel.start()
    places = f"{HERE}:{free_port()},{HERE}:{sentinel.port}"
    with serve(f"redis+sentinel://{places}/mymaster/0") as client:
        eventually(lambda: used(client, master), 5)


# The client.


def connections(one: Any) -> list[Any]:
    """One connection of each kind that the client makes."""
    if isinstance(one, RedisCluster):
        assert one.retry.get_retries() == 0
        return [node.acquire_connection() for node in one.startup_nodes]
    pools = [one.connection_pool]
    if manager := getattr(pools[0], "sentinel_manager", None):
        pools += [sentinel.connection_pool for sentinel in manager.sentinels]
    return [pool.make_connection() for pool in pools]


NOBODY = (None, None)


@pytest.mark.parametrize(
    ("url", "places", "login", "db", "name"),
    (
        ("redis://host", [("host", 6379)], NOBODY, 0, None),
        ("redis://me:p%40ss@host:7/3", [("host", 7)], ("me", "p@ss"), 3, None),
        ("redis://[::1]:7/3", [("::1", 7)], NOBODY, 3, None),
        ("rediss://:word@host/1", [("host", 6379)], (None, "word"), 1, None),
        ("unix://me:word@/run/redis.sock?db=2", ["/run/redis.sock"], ("me", "word"), 2, None),
        ("redis+cluster://one", [("one", 6379)], NOBODY, 0, None),
        (
            "redis+cluster://me:p%40s%3As%2C@one:7,[::1]:8,two,[fe80::2]",
            [("one", 7), ("::1", 8), ("two", 6379), ("fe80::2", 6379)],
            ("me", "p@s:s,"),
            0,
            None,
        ),
        ("redis+sentinel://one", [("one", 26_379)], NOBODY, 0, "mymaster"),
        ("redis+sentinel://one:7/other", [("one", 7)], NOBODY, 0, "other"),
        ("redis+sentinel://[::1],two:8/x/4", [("::1", 26_379), ("two", 8)], NOBODY, 4, "x"),
        ("redis+sentinel://me:p%2Fs@one:7/x", [("one", 7)], ("me", "p/s"), 0, "x"),
    ),
)
def test_a_url_has_the_servers_the_login_and_short_timeouts(
    url: str, places: list[object], login: tuple[str | None, ...], db: int, name: str | None
) -> None:
    one: Any = redis_client(url)
    made = connections(one)
    for each in made:
        assert (each.socket_timeout, each.socket_connect_timeout) == (0.05, 0.05)
        assert (each.retry.get_retries(), int(each.protocol)) == (0, 3)
    assert {(each.username, each.password) for each in made if name is None} <= {login}
    assert (made[0].username, made[0].password, made[0].db) == (*login, db)
    if name is not None:  # the sentinels say where the master is
        assert one.connection_pool.service_name == name
        del made[0]
    assert [getattr(each, "path", None) or (each.host, each.port) for each in made] == places
    assert isinstance(made[0], SSLConnection) == url.startswith("rediss:")


def test_a_write_is_published_over_redis_also_while_nothing_is_stored_there(
    new_redis: NewRedis,
) -> None:
    """A worker caches nothing beside silent writers; the other workers still get its messages."""
    asyncio.run(_published_while_paused(new_redis().start().url))


async def _published_while_paused(url: str) -> None:
    published: list[Tags] = []

    async def publish_otherwise(tags: Tags) -> None:
        published.append(tags)

    tasks: set[asyncio.Task[None]] = set()
    made: Any = redis_client(url, 1)
    shared = Shared(
        made,
        ttl=10,
        fingerprint="",
        spawn=lambda work: tasks.add(asyncio.create_task(work)),
        publish_otherwise=publish_otherwise,
    )
    hearing = made.pubsub()
    await hearing.subscribe(shared.channel)
    await shared.connect()
    await shared.begin()
    shared.pause()
    await shared.invalidate((7,))
    messages: list[Any] = []
    async with asyncio.timeout(30):
        while len(messages) < 3:
            if (message := await hearing.get_message(timeout=1)) is not None:
                messages.append(message)
    assert messages[-1]["data"].endswith(b":7")
    assert not published
    assert await shared.look_up("/items", (7,)) == (None, None), "nothing is read there"
    await hearing.aclose()
    await shared.close()


@pytest.mark.anyio
async def test_without_messages_of_the_database_no_list_comes_from_redis(
    own_database_url: str, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis is up, but what other programs write is not heard."""
    assert stores.redis_url is not None
    async with listening(own_database_url, REDIS_URL=stores.redis_url) as (client, state, _):
        cache = state["cache"]
        await until(lambda: cache.begin_read() != UNKEPT and cache.shared.up)
        assert (await client.get("/items?q=zzz")).json()["total"] == 0
        connect = asyncpg.connect

        async def refuse(*_: object, **__: object) -> None:
            raise asyncpg.TooManyConnectionsError("too many clients already")

        monkeypatch.setattr("service.cache.coherence.asyncpg.connect", refuse)
        cache.coherence._connection.terminate()
        await until(lambda: cache.begin_read() == UNKEPT)
        other = await connect(own_database_url)
        await other.execute("INSERT INTO items (name) VALUES ('zzz')")
        await other.close()
        assert (await client.get("/items?q=zzz")).json()["total"] == 1
