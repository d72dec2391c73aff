"""Processes of a service: start, shared port, replacement and stop."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import httpx
import pytest
from conftest import ROOT, Service, free_port
from test_faults import eventually

from service.embedded.data_directory import Stores
from service.server.processes import dropped_exits
from service.server.sockets import Listener

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc, and Linux's own filters")
SERVERS = pytest.mark.parametrize(
    ("server", "workers"),
    (
        pytest.param("uvicorn", 1, marks=pytest.mark.slow),
        ("uvicorn", 2),
        ("granian", 1),
        pytest.param("granian", 2, marks=pytest.mark.slow),
    ),
)
WORKERS = pytest.mark.parametrize("workers", (1, 2), ids=("one worker", "two workers"))


@contextmanager
def serving(
    stores: Stores, database_url: str, log: Path, *options: str, wait: bool = True, **environ: str
) -> Iterator[Service]:
    running = Service(
        log,
        *options,
        DATABASE_URL=database_url,
        REDIS_URL=stores.redis_url or "off",
        SERVICE_LOG="text",
        **environ,
    )
    try:
        if wait:
            running.wait_until_ready()
        yield running
    finally:
        running.process.kill()
        running.process.wait()


def children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):  # a thread that has ended
            found += map(int, (task / "children").read_text().split())
    return sorted(found)


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@on_linux
@pytest.mark.parametrize(
    "server", ("uvicorn", pytest.param("granian", marks=pytest.mark.slow)), ids=str
)
def test_a_killed_worker_is_replaced_and_the_other_continues(
    stores: Stores, database_url: str, tmp_path: Path, server: str
) -> None:
    """What the killed one has counted stays in the metrics, and their files go at the end."""
    options = ("--workers", "2", "--server", server)
    with serving(stores, database_url, tmp_path / "log", *options) as running:
        parent = running.process.pid
        eventually(lambda: len(children(parent)) == 2, 60)
        before = children(parent)
        commands = {Path(f"/proc/{pid}/cmdline").read_bytes() for pid in (parent, *before)}
        assert len(commands) == 1, "a worker is a fork: what was imported is imported once"
        for _ in range(20):
            httpx.get(f"{running.url}/health")
        # A worker counts after it has sent the response.
        eventually(lambda: counted(running, "/health", "service_workers") == [20, 2], 60)
        (folder,) = slot_folders(parent)
        os.kill(before[0], signal.SIGKILL)
        eventually(lambda: not lives(before[0]), 60)
        assert counted(running, "/health") == [20]
        for _ in range(20):
            assert httpx.get(f"{running.url}/health").status_code == 200
        eventually(lambda: len(children(parent)) == 2 and before[0] not in children(parent), 60)
        assert server == "granian" or "SIGKILL" in running.log.read_text()
        eventually(lambda: counted(running, "/health", "service_workers") == [40, 2], 60)
        assert len(list(folder.iterdir())) == 2, "the new worker has the slot of the killed one"
        assert running.stop() == 0
        assert not folder.exists()


def counted(running: Service, route: str, *gauges: str) -> list[float]:
    """Return how many requests of a route /metrics shows, and some gauges."""
    try:
        text = httpx.get(f"{running.url}/metrics").text
    except httpx.TransportError:  # the worker was killed
        return []
    names = (f'http_request_duration_seconds_count{{method="GET",route="{route}",', *gauges)
    lines = [line for line in text.splitlines() if line.startswith(names)]
    return [float(line.rpartition(" ")[2]) for line in lines]


def slot_folders(parent: int) -> set[Path]:
    """Return the folders of the slots that the workers of a server have open."""
    files = [
        file.readlink() for pid in children(parent) for file in Path(f"/proc/{pid}/fd").iterdir()
    ]
    return {file.parent for file in files if file.name.startswith("worker-")}


# Runs the service with a change in the process that forks the workers.
CHANGED = """
import asyncio, sys
from service.db.database import Database
opens = Database.open
async def slow(self):
    await asyncio.sleep(6)
    await opens(self)
async def fails(self):
    raise LookupError("no such store")
Database.open = {change}
from service.cli import main
main(prog_name="service")
"""


def changed(change: str, log: Path, database_url: str, *options: str) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-c", CHANGED.format(change=change), "serve", *options],
            cwd=ROOT,
            env=os.environ | {"DATABASE_URL": database_url, "REDIS_URL": "off"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )


@pytest.mark.slow
@on_linux
def test_a_worker_may_be_slow_to_start(database_url: str, tmp_path: Path) -> None:
    """uvicorn's own supervisor kills a worker that does not answer its ping for 5 s."""
    log, port = tmp_path / "log", free_port()
    process = changed("slow", log, database_url, "--workers", "2", "--port", str(port))
    try:
        seen: set[int] = set()

        def up() -> bool:
            assert process.poll() is None, log.read_text()
            seen.update(children(process.pid))
            return "Stop" in log.read_text()

        eventually(up, 60)
        assert len(seen) == 2
        assert httpx.get(f"http://127.0.0.1:{port}/items").status_code == 200
    finally:
        process.terminate()
        assert process.wait(60) == 0


@WORKERS
def test_an_application_that_does_not_start_prints_the_reason(
    database_url: str, tmp_path: Path, workers: int
) -> None:
    log = tmp_path / "log"
    port = str(free_port())
    options = ("--workers", str(workers), "--port", port)
    process = changed("fails", log, database_url, *options)
    assert process.wait(60) == 1
    *_, last = log.read_text().splitlines()
    assert last.startswith("service: ")
    assert "LookupError: no such store" in last


@on_linux
@SERVERS
def test_a_closed_terminal_stops_the_service(
    stores: Stores, database_url: str, tmp_path: Path, server: str, workers: int
) -> None:
    options = ("--server", server, "--workers", str(workers))
    with serving(stores, database_url, tmp_path / "log", *options) as running:
        below = children(running.process.pid)
        for pid in below:  # the kernel signals the whole foreground process group
            os.kill(pid, signal.SIGHUP)
        assert running.stop(signal.SIGHUP) == 0
        assert not any(map(lives, below))
        assert "Traceback" not in running.log.read_text()


def test_a_sighup_that_the_parent_ignores_stays_ignored(
    stores: Stores, database_url: str, tmp_path: Path
) -> None:
    """`nohup` starts a process like this."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with serving(stores, database_url, tmp_path / "log") as running:
            running.process.send_signal(signal.SIGHUP)
            time.sleep(0.5)
            assert httpx.get(f"{running.url}/items").status_code == 200
            assert running.stop() == 0
    finally:
        signal.signal(signal.SIGHUP, before)


@on_linux
@SERVERS
def test_a_second_signal_ends_the_service_at_once(
    stores: Stores, database_url: str, tmp_path: Path, server: str, workers: int
) -> None:
    options = ("--server", server, "--workers", str(workers))
    with serving(stores, database_url, tmp_path / "log", *options) as running:
        below = children(running.process.pid)
        with socket.create_connection(("127.0.0.1", running.port), timeout=10) as client:
            # A body that never arrives: the drain would wait for it.
            head = "POST /items HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            client.sendall(f"{head}Expect: 100-continue\r\nContent-Length: 100\r\n\r\n".encode())
            assert client.recv(1000).startswith(b"HTTP/1.1 100 "), "it reads the body"
            for pid in (*below, running.process.pid):  # like a terminal
                os.kill(pid, signal.SIGINT)
            time.sleep(0.1)
            assert running.process.poll() is None
            assert running.stop(signal.SIGINT) == 128 + signal.SIGINT
        eventually(lambda: not any(map(lives, below)), 30)
        assert "Traceback" not in running.log.read_text()


class Clients:
    """Threads that send requests until they are refused; `seen` counts the results."""

    def __init__(self, port: int, connecting: int, keeping: int) -> None:
        self.address = ("127.0.0.1", port)
        self.seen: Counter[str] = Counter()
        works = [self._connect] * connecting + [self._keep] * keeping
        self.threads = [threading.Thread(target=work) for work in works]
        for thread in self.threads:
            thread.start()

    def has_been_answered(self, times: int) -> bool:
        return self.seen["fresh"] > times

    def _connect(self) -> None:
        while self._with_connection("fresh", b"Connection: close\r\n"):
            pass

    def _keep(self) -> None:
        while self._with_connection("kept", b""):
            pass

    def _with_connection(self, kind: str, header: bytes) -> bool:
        try:
            client = socket.create_connection(self.address, timeout=20)
        except ConnectionRefusedError:
            return False
        with client:
            closing = False
            while not closing:
                try:
                    client.sendall(b"GET /items/987654321 HTTP/1.1\r\nHost: x\r\n%b\r\n" % header)
                    answer = client.recv(65_536)
                except OSError as error:
                    answer = type(error).__name__.encode()
                if not answer.startswith(b"HTTP/1.1 404"):
                    self.seen[f"{kind}: {answer[:40]!r}"] += 1
                    return True
                self.seen[kind] += 1
                closing = b"connection: close" in answer.lower()
            return True


@on_linux
@SERVERS
def test_a_stop_resets_no_connection(
    stores: Stores, database_url: str, tmp_path: Path, server: str, workers: int
) -> None:
    """Connections that the kernel has accepted are answered, later ones are refused."""
    options = ("--server", server, "--workers", str(workers))
    # granian closes a keep-alive connection between two requests.
    kept = 4 if server == "uvicorn" else 0
    seen: Counter[str] = Counter()
    for number in range(2):
        with serving(stores, database_url, tmp_path / f"log{number}", *options) as running:
            clients = Clients(running.port, 12, kept)
            eventually(partial(clients.has_been_answered, 200), 60)
            assert running.stop() == 0
            for thread in clients.threads:
                thread.join()
            seen += clients.seen
    assert set(seen) == {"fresh", *(["kept"] if kept else [])}, seen


def test_an_idle_connection_does_not_hold_up_the_stop(
    stores: Stores, database_url: str, tmp_path: Path
) -> None:
    with (
        serving(stores, database_url, tmp_path / "log") as running,
        httpx.Client(base_url=running.url) as client,
        socket.create_connection(("127.0.0.1", running.port), timeout=20) as silent,
    ):
        assert client.get("/items").status_code == 200
        assert running.stop() == 0  # within the time of a drain, or it would have been cancelled
        assert silent.recv(1) == b""
        assert "Cancel" not in running.log.read_text()


@on_linux
@pytest.mark.parametrize(
    "how",
    (
        pytest.param(">&-", marks=pytest.mark.slow),
        pytest.param("2>&-", marks=pytest.mark.slow),
        "<&- >&- 2>&-",
        ">/dev/full 2>/dev/full",
        pytest.param("| true", marks=pytest.mark.slow),
    ),
    ids=("no stdout", "no stderr", "none of the three", "a full disk", "a pipe nobody reads"),
)
def test_the_service_runs_when_its_output_cannot_be_written(
    stores: Stores, database_url: str, tmp_path: Path, how: str
) -> None:
    port = free_port()
    command = f'"{sys.executable}" -m service serve --workers 2 --port {port}'
    pid = tmp_path / "pid"
    if how.startswith("|"):
        script = f"(sh -c 'echo $$ >{pid}; exec {command}' {how}) & wait"
    else:
        script = f"echo $$ >{pid}; exec {command} {how}"
    with (tmp_path / "errors").open("wb") as errors:
        shell = subprocess.Popen(
            ["/bin/bash", "-c", script],
            cwd=ROOT,
            env=os.environ | {"DATABASE_URL": database_url, "REDIS_URL": stores.redis_url or "off"},
            stdout=errors,
            stderr=errors,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        eventually(lambda: _answers(f"{url}/items"), 60)
        assert httpx.post(f"{url}/items", json={"name": "Lamp"}).status_code == 201
    finally:
        main = int(pid.read_text())
        os.kill(main, signal.SIGTERM)
        shell.wait(60)
    eventually(lambda: not lives(main), 30)
    assert "Traceback" not in (tmp_path / "errors").read_text()
    if not how.startswith("|"):
        assert shell.returncode == 0


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


def test_a_start_imports_no_unused_packages() -> None:
    """Each of these packages costs 0.1 s of CPU or more."""
    program = (
        "import sys; import service.__main__; import service.cli.banner;"
        "from service import server; import service.server.uvicorn;"
        "print(*{name.partition('.')[0] for name in sys.modules}, 'sqlalchemy.orm' in sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    imported = set(ran.stdout.split())
    assert {"service", "sqlalchemy", "False"} <= imported
    assert not imported & {"rich", "alembic", "mako", "granian", "True"}


def test_workers_share_the_event_loop_code_of_their_parent() -> None:
    """Imported after the fork, it takes 3 MiB and 8 ms of CPU of each worker."""
    program = (
        "import sys; from service.server.loading import load;"
        "from service.server.uvicorn import config; app = load('service.asgi:app')\n"
        "config(app); print('uvloop' in sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert ran.stdout == "True\n"


def test_a_service_imports_redis_and_the_page_of_the_api_only_when_it_needs_them(
    database_url: str,
) -> None:
    """Of one worker without a shared Redis. Together they are a tenth of its memory."""
    program = (
        "import asyncio, sys; import service.__main__; from service.app_state import opened_state;"
        "from service.server.loading import load; app = load('service.asgi:app')\n"
        "async def serve():\n"
        "    async with opened_state(app):\n"
        "        print(*sys.modules)\n"
        "asyncio.run(serve())"
    )
    environ = {
        "DATABASE_URL": database_url,
        "REDIS_URL": "redis://127.0.0.1:1",
        "SERVICE_CACHE": "local",
        "SERVICE_SECRET": "s" * 64,
    }
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **environ},
        check=True,
        capture_output=True,
        text=True,
    )
    imported = set(ran.stdout.split())
    assert {"service.cache.store", "service.limits.limiter", "service.web.docs"} <= imported
    packages = {name.partition(".")[0] for name in imported}
    assert not packages & {"httpx", "hiredis", "opentelemetry", "psutil", "redis"}
    assert not imported & {"service.web.docs_page", "service.web.openapi"}


# A signal arrives while a `__del__` runs; Python drops an exception of its handler there.
IN_DEL = """
import os, signal, sys, time
class Slow:
    def __del__(self):
        os.kill(os.getpid(), {number})
        for _ in range(1000):
            pass
def work():
    Slow()
    time.sleep(20)
{run}
sys.exit(1)
"""
IN_SERVE = """
from service.server.processes import StopSignals
with StopSignals(lambda: sys.exit(0)).installed():
    work()
"""
IN_COMMAND = """
from service.cli.group import main
main.command(name="work")(work)
main(["work"], prog_name="swiftlet")
"""


@pytest.mark.parametrize(
    ("run", "number", "code", "said"),
    (
        (IN_SERVE, signal.SIGTERM, 0, ""),
        (IN_COMMAND, signal.SIGTERM, 128 + signal.SIGTERM, ""),
        (IN_COMMAND, signal.SIGINT, 130, "swiftlet: interrupted\n"),
    ),
    ids=("serve SIGTERM", "command SIGTERM", "command SIGINT"),
)
def test_a_stop_signal_during_a_del_is_not_lost(
    run: str, number: int, code: int, said: str
) -> None:
    script = IN_DEL.format(run=run, number=int(number))
    ran = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=60
    )
    assert (ran.returncode, ran.stderr.lstrip("\n")) == (code, said)


def test_a_stop_signal_during_the_hook_for_dropped_ones_is_not_lost() -> None:
    """A timer sends the signal again; on a busy machine the hook may not have ended by then."""
    sent: list[BaseException] = []

    def again(dropped: BaseException) -> None:
        sent.append(dropped)
        if len(sent) < 3:
            raise KeyboardInterrupt

    class Interrupted:
        def __del__(self) -> None:
            raise SystemExit

    with dropped_exits(again):
        Interrupted()
    assert [type(one) for one in sent] == [SystemExit, KeyboardInterrupt, KeyboardInterrupt]


def test_granian_writes_its_own_lines_to_stderr_in_our_format() -> None:
    script = (
        "from granian.log import LogLevels, configure_logging, logger\n"
        "from service.logs import plain\n"
        "from service.server.granian import LOGGING\n"
        "plain('json')\n"
        "configure_logging(LogLevels.warning, LOGGING)\n"
        "logger.error('Worker crash loop detected, exiting')\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=60
    )
    assert (ran.returncode, ran.stdout) == (0, "")
    line = json.loads(ran.stderr)
    assert (line["level"], line["logger"]) == ("ERROR", "_granian")
    assert line["message"] == "Worker crash loop detected, exiting"


def test_a_listener_refuses_until_it_listens_and_binds_every_address_of_a_name() -> None:
    listener = Listener("localhost", 0)
    try:
        assert listener.port
        assert {one.getsockname()[1] for one in listener.sockets} == {listener.port}
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", listener.port))
        listener.sockets[0].listen()
        with pytest.raises(OSError, match="in use"):
            Listener("localhost", listener.port)
    finally:
        listener.close()


@on_linux
def test_queued_connections_are_kept_when_new_ones_are_refused() -> None:
    listener = Listener("127.0.0.1", 0)
    address = ("127.0.0.1", listener.port)
    (one,) = listener.sockets
    one.listen()
    with socket.create_connection(address) as early, socket.socket() as late:
        listener.turn_away()
        late.setblocking(False)
        assert late.connect_ex(address) != 0  # its SYN is dropped
        accepted, _ = one.accept()
        with accepted:
            early.sendall(b"x")
            assert accepted.recv(1) == b"x"
        with pytest.raises(BlockingIOError):
            one.accept()
        list(listener.until_empty())
        listener.close()
