"""The commands as processes: output, exit code, files and processes that remain."""

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click
import httpx
import pytest
from conftest import HEAD, ROOT, STORES, free_port, query
from openapi_spec_validator import validate
from test_bulk import holding

from service.asgi import MIGRATIONS
from service.cli import main
from service.items import seed
from service.migrations import migrate
from service.settings.urls import address

NOBODYS = "postgresql://x@127.0.0.1:1/x"
OURS = {"DATABASE_URL", "DATABASE_REPLICA_URLS", "REDIS_URL"}
# The scripts beside the interpreter, as in an activated environment.
PROGRAMS = Path(sys.executable).parent
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc tells who is left")


def environment(**environ: str) -> dict[str, str]:
    """Return the environment of the tests without our settings, with those given."""
    kept = {k: v for k, v in os.environ.items() if k not in OURS and not k.startswith("SERVICE_")}
    if STORES == "wheel":
        kept["PATH"] = str(PROGRAMS)  # without other programs
    return kept | {"PYTHONPATH": str(ROOT)} | environ


@pytest.fixture
def place() -> Iterator[Path]:
    """An empty working directory that PostgreSQL's account can reach when we are root."""
    made = Path(tempfile.mkdtemp(prefix="cli-", dir="/tmp"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


class Ran:
    """A finished command."""

    def __init__(self, place: Path, *words: str, **environ: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "service", *words],
            cwd=place,
            env=environment(**environ),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr

    def refused(self, code: int) -> str:
        """Return the only line of the error."""
        assert self.code == code, self.err
        assert self.out == ""
        assert re.fullmatch(r"[^\n]+\n", self.err), self.err
        return self.err


def commands() -> Iterator[tuple[str, ...]]:
    yield ()
    for name in sorted(main.commands):
        yield (name,)
        command = main.commands[name]
        if isinstance(command, click.Group):
            yield from ((name, part) for part in sorted(command.commands))


@pytest.mark.parametrize("words", tuple(commands()), ids=" ".join)
def test_the_help_of_every_command_has_an_example(place: Path, words: tuple[str, ...]) -> None:
    ran = Ran(place, *words, "--help")
    assert (ran.code, ran.err) == (0, "")
    assert f"Usage: {' '.join(('service', *words))} " in ran.out
    example = ran.out.partition("  Example:\n")[2].splitlines()[0]
    assert f"service {' '.join(words)}".rstrip() in example
    assert Ran(place, *words, "-h").out == ran.out


def test_a_command_that_does_not_exist_is_wrong_usage(place: Path) -> None:
    assert "srve" in Ran(place, "srve").refused(2)


@pytest.mark.parametrize(
    ("words", "named"),
    (
        (("explain", "items.nothing"), "items.nothing"),
        (("explain", "items.by_id", "--param", "x=1"), "x"),
        (("explain",), "NAME"),
        (("migrate", "sideways"), "sideways"),
        (("seed", "--users", "many"), "many"),
        (("serve", "--prot", "1"), "--prot"),
    ),
)
def test_wrong_usage_is_one_line_that_names_the_mistake(
    place: Path, words: tuple[str, ...], named: str
) -> None:
    assert named in Ran(place, *words, DATABASE_URL=NOBODYS).refused(2)
    assert not list(place.iterdir())


@pytest.mark.parametrize(
    "words",
    (
        ("migrate", "up"),
        ("migrate", "check"),
        ("migrate", "status"),
        ("seed", "--users", "1"),
        ("explain", "items.by_id"),
    ),
    ids=" ".join,
)
def test_a_database_that_is_not_available_is_one_line(place: Path, words: tuple[str, ...]) -> None:
    line = Ran(place, *words, DATABASE_URL=NOBODYS).refused(1)
    assert "DATABASE_URL" in line
    assert not list(place.iterdir())


def test_openapi_writes_a_document_to_stdout_and_to_a_file(place: Path) -> None:
    ran = Ran(place, "openapi")
    assert (ran.code, ran.err) == (0, "")
    document = json.loads(ran.out)
    assert document["openapi"].startswith("3.1.")
    validate(document)
    assert Ran(place, "openapi", "api.json").code == 0
    assert (place / "api.json").read_text() == ran.out


def test_openapi_to_an_unwritable_file_is_one_line(place: Path) -> None:
    (place / "here").mkdir()
    assert "here" in Ran(place, "openapi", "here").refused(2)
    assert "none/api.json" in Ran(place, "openapi", "none/api.json").refused(1)


def test_the_exit_code_of_migrate_shows_the_state_of_the_database(
    place: Path, new_database: Callable[[], str]
) -> None:
    url = new_database()
    newest = HEAD

    def ran(action: str) -> Ran:
        return Ran(place, "migrate", action, DATABASE_URL=url)

    assert ran("status").out == f"revision none, newest {newest}\n"
    before = ran("check")
    assert before.code == 1
    assert f"revision none, the newest is {newest}" in before.err
    for _ in range(2):
        up = ran("up")
        told = f"revision {newest}, newest {newest}\n"
        assert (up.code, up.out, up.err) == (0, told, "")
    assert ran("status").out == f"revision {newest}, newest {newest}\n"
    assert ran("check").code == 0
    query(url, "DROP INDEX items_owner_id_idx" if _has_index(url) else "DROP TABLE items")
    after = ran("check")
    assert after.code == 1
    assert "only in code: " in after.err
    assert not list(place.iterdir())


def _has_index(url: str) -> bool:
    return bool(query(url, "SELECT FROM pg_class WHERE relname = 'items_owner_id_idx'"))


@pytest.fixture
def migrated(new_database: Callable[[], str]) -> Callable[[], str]:
    def make() -> str:
        url = new_database()
        migrate.up(url, MIGRATIONS)
        return url

    return make


def rows(url: str) -> tuple[list[Any], list[Any]]:
    """Return all seeded rows in the order of their ids, without the ids."""
    users = query(
        url,
        "SELECT email, username, full_name, role, is_active, created_at FROM users ORDER BY email",
    )
    items = query(
        url,
        "SELECT i.sku, i.name, i.description, i.price, i.is_active, i.created_at, u.email"
        " FROM items i LEFT JOIN users u ON u.id = i.owner_id ORDER BY i.sku",
    )
    return [tuple(user) for user in users], [tuple(item) for item in items]


def test_seed_writes_the_same_rows_on_every_machine_and_no_row_twice(
    place: Path, migrated: Callable[[], str]
) -> None:
    words = ("seed", "--users", "50", "--items", "500")
    one, other = migrated(), migrated()
    assert Ran(place, *words, DATABASE_URL=one).out == "50 users and 500 items are new\n"
    first = rows(one)
    assert tuple(map(len, first)) == (50, 500)
    assert Ran(place, *words, DATABASE_URL=one).out == "0 users and 0 items are new\n"
    assert rows(one) == first
    assert Ran(place, *words, DATABASE_URL=other).code == 0
    assert rows(other) == first


def test_seed_does_not_change_existing_rows(place: Path, migrated: Callable[[], str]) -> None:
    url = migrated()
    query(url, "INSERT INTO items (sku, name) VALUES ('SAMPLE-00000001', 'Mine')")
    ran = Ran(place, "seed", "--users", "0", "--items", "10", DATABASE_URL=url)
    assert ran.out == "0 users and 9 items are new\n"
    mine = query(url, "SELECT name FROM items WHERE sku = 'SAMPLE-00000001'")
    assert [record[0] for record in mine] == ["Mine"]


def test_the_next_seed_completes_an_interrupted_one(
    place: Path, migrated: Callable[[], str]
) -> None:
    url = migrated()
    total = 10 * seed.CHUNK
    words = ("seed", "--users", "10", "--items", str(total))
    with (
        # The third chunk waits for this transaction, which inserts one of its rows.
        holding(url, f"INSERT INTO items (name, sku) VALUES ('Mine', 'SAMPLE-{25_000:08}')"),
        subprocess.Popen(
            [sys.executable, "-m", "service", *words],
            cwd=place,
            env=environment(DATABASE_URL=url),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        waits = "SELECT FROM pg_locks WHERE NOT granted"
        until(lambda: process.poll() is not None or query(url, waits))
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "Traceback" not in errors
    there = query(url, "SELECT count(*) FROM items")[0][0]
    assert 0 < there < total
    assert there % seed.CHUNK == 0, "a chunk is written whole or not at all"
    ran = Ran(place, *words, DATABASE_URL=url)
    assert ran.out == f"0 users and {total - there} items are new\n"
    counts = query(url, "SELECT count(*), count(DISTINCT sku) FROM items")[0]
    assert tuple(counts) == (total, total)


def test_explain_shows_the_plan_of_a_read(place: Path, migrated: Callable[[], str]) -> None:
    url = migrated()
    planned = Ran(place, "explain", "items.by_id", "--param", "id=7", DATABASE_URL=url)
    assert planned.code == 0, planned.err
    assert "actual time" not in planned.out
    assert "(cost=" in planned.out
    analyzed = Ran(place, "explain", "items.by_id", "--analyze", DATABASE_URL=url)
    assert analyzed.code == 0, analyzed.err
    assert "actual " in analyzed.out


def test_explain_of_a_write_leaves_nothing_behind(place: Path, migrated: Callable[[], str]) -> None:
    url = migrated()
    given = ("--param", "role=user")
    ran = Ran(place, "explain", "users.add", *given, "--analyze", DATABASE_URL=url)
    assert ran.code == 0, ran.err
    assert "Insert on users" in ran.out
    assert "rows=1" in ran.out, "it ran"
    assert query(url, "SELECT FROM users") == []


def test_explain_of_many_rows_leaves_nothing_behind(
    place: Path, migrated: Callable[[], str]
) -> None:
    url = migrated()
    query(url, "INSERT INTO users (email, username) VALUES ('a@b.co', 'ada')")  # the sample owner
    for name, given in (("items.upsert", 'skus=["A"]'), ("items.remove_all", "ids=[1, 2]")):
        ran = Ran(place, "explain", name, "--param", given, "--analyze", DATABASE_URL=url)
        assert ran.code == 0, ran.err
        assert "LockRows" in ran.out
    assert query(url, "SELECT count(*) FROM items")[0][0] == 0


def test_explain_with_a_value_of_the_wrong_type_is_wrong_usage(
    place: Path, migrated: Callable[[], str]
) -> None:
    ran = Ran(place, "explain", "items.by_id", "--param", "id=seven", DATABASE_URL=migrated())
    assert "id must be bigint" in ran.refused(2)


def test_a_public_host_needs_keys_or_an_explicit_setting(place: Path) -> None:
    (place / "keyless.py").write_text(
        "from service.app import create_app\n"
        "from service.settings import Settings\n"
        "app = create_app(Settings.load())\n"
    )
    options = ("serve", "--host", "0.0.0.0", "--app", "keyless:app")
    line = Ran(place, *options, DATABASE_URL=NOBODYS).refused(2)
    assert "SERVICE_AUTH=off" in line
    assert not (place / ".data").exists()


@pytest.mark.parametrize("server", ("granian", "uvicorn"))
@pytest.mark.parametrize("shared", (False, True), ids=("taken", "taken by one who would share"))
def test_a_port_in_use_is_one_line(place: Path, server: str, shared: bool) -> None:
    with socket.socket() as other:
        if shared:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        ran = Ran(
            place,
            *("serve", "--port", port, "--server", server),
            DATABASE_URL=NOBODYS,
            REDIS_URL="off",
        )
    line = ran.refused(1)
    assert port in line
    assert "--port" in line


def alive(*marks: str) -> dict[int, str]:
    """Return processes with one of the marks in their command line or environment."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            about = command + (entry / "environ").read_bytes().decode(errors="replace")
        except OSError:
            continue  # it has just ended
        if any(mark in about for mark in marks):  # zombies have neither
            found[int(entry.name)] = command
    return found


def left_after(seconds: float, *marks: str) -> dict[int, str]:
    """Return the processes that are still alive after at most so many seconds."""
    give_up = time.monotonic() + seconds
    while (left := alive(*marks)) and time.monotonic() < give_up:
        time.sleep(0.05)
    return left


def until(test: Callable[[], object]) -> None:
    """Wait until `test` is true, up to 60 s."""
    give_up = time.monotonic() + 60
    while not test():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def family(pid: int) -> set[int]:
    """Return all descendants, with stores that overwrite the mark by a process title."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(entry.read_text().rpartition(")")[2].split()[1]) == pid:
                child = int(entry.parent.name)
                found |= {child} | family(child)
    return found


def gone_after(seconds: float, processes: set[int]) -> bool:
    """Return whether all have ended after at most so many seconds."""
    give_up = time.monotonic() + seconds
    while left := {pid for pid in processes if _lives(pid)}:
        if time.monotonic() > give_up:
            return not left
        time.sleep(0.05)
    return True


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"  # a zombie has ended


class Serving:
    """`swiftlet serve` in a directory; all its processes have `mark` in their environment."""

    def __init__(self, place: Path, *options: str) -> None:
        self.place = place
        self.mark = f"TEST_MARK={place.name}-{time.monotonic_ns()}"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        with (place / "stdout").open("wb") as output, (place / "stderr").open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "service", "serve", "--port", str(self.port), *options],
                cwd=place,
                # libpq's variables mean other servers than the embedded one.
                env=environment(
                    TEST_MARK=self.mark.partition("=")[2],
                    SERVICE_LOG="text",
                    PGSSLMODE="verify-full",
                    PGTARGETSESSIONATTRS="read-only",
                ),
                stdout=output,
                stderr=errors,
            )

    def banner(self) -> dict[str, str]:
        """Return the start banner, once the address answers."""
        give_up = time.monotonic() + 60
        while not re.search(
            r"^ *Stop .*\n", text := (self.place / "stdout").read_text(), re.MULTILINE
        ):
            assert self.process.poll() is None, self.errors()
            assert time.monotonic() < give_up, text + self.errors()
            time.sleep(0.02)
        return {
            name: told.strip()
            for name, told in (line.split(maxsplit=1) for line in text.splitlines())
        }

    def errors(self) -> str:
        return (self.place / "stderr").read_text()

    def stop(self, number: int) -> float:
        """Stop the service; return the seconds until its end."""
        started = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(60)
        return time.monotonic() - started


@contextmanager
def serving(place: Path, *options: str) -> Iterator[Serving]:
    one = Serving(place, *options)
    try:
        yield one
    finally:
        one.process.kill()
        one.process.wait()
        assert not left_after(10, one.mark)


COMBINATIONS = pytest.mark.parametrize(
    "options",
    (
        pytest.param(("--server", "granian"), marks=pytest.mark.slow),
        ("--server", "uvicorn"),
        ("--server", "granian", "--workers", "2"),
        pytest.param(("--server", "uvicorn", "--workers", "2"), marks=pytest.mark.slow),
    ),
    ids=" ".join,
)


@on_linux
@COMBINATIONS
def test_serve_starts_embedded_stores_and_keeps_the_data(
    place: Path, options: tuple[str, ...]
) -> None:
    # Each signal with each server, and with one worker and two.
    number = signal.SIGINT if ("2" in options) == ("uvicorn" in options) else signal.SIGTERM
    with serving(place, *options) as first:
        banner = first.banner()
        assert banner["API"] == first.url
        assert banner["Docs"] == f"{first.url}/docs"
        assert banner["Console"] == f"{first.url}/console"
        assert banner["Data"] == str(place / ".data")
        assert "Ctrl-C" in banner["Stop"]
        assert re.fullmatch(r"PostgreSQL 1\d(\.\d+)?, embedded", banner["Database"])
        assert re.fullmatch(r"(Valkey|Redis) \d+\.\d+\.\d+, embedded", banner["Redis"])
        steps = [line.split(maxsplit=2)[2] for line in first.errors().splitlines()]
        begun = ("making a new database in ", "starting PostgreSQL 1", "starting ", "migrating ")
        assert all(map(str.startswith, steps, begun)), steps
        assert "starting 2 workers" in steps or "2" not in options
        assert httpx.get(banner["Docs"]).status_code == 200
        assert httpx.get(f"{first.url}/health/ready").json()["status"] == "ok"
        created = httpx.post(f"{first.url}/items", json={"name": "Kept", "price": 29.99})
        assert created.status_code == 201
        path = created.headers["location"]
        children = family(first.process.pid)
        assert len(children) >= 3
        assert first.stop(number) < 10, "nothing is left to drain (DRAIN_SECONDS is 20)"
        assert first.process.returncode == 0
        assert gone_after(5, children)
        assert not left_after(5, first.mark, str(place))
        assert "Traceback" not in first.errors()
    with serving(place, *options) as second:
        second.banner()
        # Without a migration, Alembic (half a second of CPU) is not imported.
        assert "making" not in second.errors()
        assert "migrating" not in second.errors()
        assert httpx.get(second.url + path).json() == created.json()
        assert second.stop(number) < 10
        assert second.process.returncode == 0


@on_linux
@pytest.mark.parametrize(
    "options", (("--server", "uvicorn"), ("--server", "granian", "--workers", "2")), ids=" ".join
)
def test_a_killed_serve_leaves_no_process(place: Path, options: tuple[str, ...]) -> None:
    with serving(place, *options) as one:
        one.banner()
        children = family(one.process.pid)
        assert len(children) >= 3  # PostgreSQL, one of its own, and Redis
        one.stop(signal.SIGKILL)
        assert gone_after(30, children)
        assert not left_after(30, one.mark, str(place), f":{one.port}")
        with socket.socket() as again:
            assert again.connect_ex(("127.0.0.1", one.port)) != 0
    with serving(place, *options) as second:
        second.banner()
        assert httpx.get(f"{second.url}/items").json()["total"] == 0


@on_linux
@pytest.mark.parametrize("step", ("making a new database", "starting PostgreSQL", "migrating"))
def test_ctrl_c_at_any_step_of_the_first_start_ends_cleanly(place: Path, step: str) -> None:
    with serving(place) as one:
        give_up = time.monotonic() + 30
        while step not in one.errors():
            assert time.monotonic() < give_up, one.errors()
            time.sleep(0.005)
        children = family(one.process.pid)
        one.stop(signal.SIGINT)
        assert one.process.returncode == 0
        assert "Traceback" not in one.errors()
        assert gone_after(5, children)
        run = (place / ".data/lock").read_text().split("\n")[1]
        assert not Path(run).exists()


@on_linux
def test_ctrl_c_during_the_imports_shows_no_traceback(place: Path) -> None:
    with serving(place) as one:
        maps = Path(f"/proc/{one.process.pid}/maps")
        until(lambda: "uvloop" in maps.read_text() or "asyncpg" in maps.read_text())
        one.stop(signal.SIGINT)
        assert one.process.returncode in (0, -signal.SIGINT)
        assert "Traceback" not in one.errors()


@pytest.mark.parametrize(
    ("url", "told"),
    (
        ("postgresql://app:secret@db.example:5432/app", "db.example:5432/app"),
        ("postgresql://app@[::1]:5432,other/app?sslmode=disable", "[::1]:5432,other/app"),
        ("postgresql:///app?host=/run/postgresql&user=x&password=secret", "/run/postgresql/app"),
        ("postgresql://app:sec/ret@db/app", "a hidden address"),
        ("postgresql://app:secret", "a hidden address"),
        ("postgresql://app:secret@[x/app", "a hidden address"),
        ("redis://:secret@cache:6379/1", "cache:6379/1"),
        ("redis+sentinel://u:secret@a:1,b:2/main/0", "a:1,b:2/main/0"),
        ("unix://user:secret@/run/redis.sock?db=1", "/run/redis.sock"),
    ),
)
def test_an_address_is_shown_without_its_password(url: str, told: str) -> None:
    assert address(url) == told


@on_linux
def test_other_commands_use_the_stores_of_a_running_serve(place: Path) -> None:
    with serving(place) as one:
        one.banner()
        ran = Ran(place, "seed", "--users", "5", "--items", "7")
        assert ran.out == "5 users and 7 items are new\n"
        assert httpx.get(f"{one.url}/items").json()["total"] == 7
        assert Ran(place, "migrate", "check").code == 0
        assert "in use by process" in Ran(place, "serve", "--port", "0").refused(1)
        assert one.stop(signal.SIGINT) < 10
    assert Ran(place, "seed", "--users", "5", "--items", "8").out == (
        "0 users and 1 items are new\n"
    )


@on_linux
@pytest.mark.slow
@pytest.mark.parametrize("options", ((), ("--server", "granian", "--workers", "2")), ids=" ".join)
def test_serve_starts_its_postgres_again(place: Path, options: tuple[str, ...]) -> None:
    with serving(place, *options) as one:
        address = one.banner()["API"]
        assert "\nok    embedded-stores     running in" in Ran(place, "doctor").out
        assert httpx.post(f"{address}/items", json={"name": "Lamp"}).status_code == 201
        pid = (place / ".data" / "postgres" / "postmaster.pid").read_text().split("\n")[0]
        os.kill(int(pid), signal.SIGKILL)
        seen: set[int] = set()
        give_up = time.monotonic() + 60
        while 201 not in seen and time.monotonic() < give_up:
            seen.add(httpx.post(f"{address}/items", json={"name": "Chair"}).status_code)
        assert 201 in seen
        assert seen <= {201, 503}
        one.process.send_signal(signal.SIGTERM)
        assert one.process.wait(30) == 0
        assert "PostgreSQL has ended, and is started again" in one.errors()


@on_linux
def test_port_0_chooses_a_free_port_and_prints_it(place: Path) -> None:
    with serving(place, "--port", "0") as one:
        address = one.banner()["API"]
        assert address != "http://127.0.0.1:0"
        assert httpx.get(f"{address}/health").status_code == 200


@pytest.mark.parametrize(
    "words",
    (
        ("granian", "--interface", "asgi", "--port", "{port}", "service.asgi:app"),
        ("uvicorn", "--port", "{port}", "service.asgi:app"),
    ),
    ids=("granian", "uvicorn"),
)
def test_any_asgi_server_serves_the_application(
    place: Path, migrated: Callable[[], str], words: tuple[str, ...]
) -> None:
    port = free_port()
    log = place / "log"
    program, *options = (word.format(port=port) for word in words)
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [PROGRAMS / program, *options],
            cwd=place,
            env=environment(DATABASE_URL=migrated()),
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            asyncio.run(_answers(f"http://127.0.0.1:{port}/items?q=only-the-client-knows"))
        finally:
            process.terminate()
            process.wait(60)
    assert "Traceback" not in log.read_text()
    assert "only-the-client-knows" not in log.read_text()


async def _answers(url: str) -> None:
    async with httpx.AsyncClient() as client, asyncio.timeout(60):
        while True:
            try:
                answer = await client.get(url)
            except httpx.TransportError:
                await asyncio.sleep(0.05)
            else:
                break
    assert answer.status_code == 200
    assert answer.json()["items"] == []
