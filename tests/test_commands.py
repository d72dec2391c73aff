"""Errors of commands: one line on stderr, the right exit code, no secret.

The commands run in this process, which takes milliseconds; a process would take a second.
tests/test_cli.py starts processes.
"""

import contextlib
import importlib.metadata
import io
import os
import re
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import pytest
from conftest import HEAD, query

from service.asgi import MIGRATIONS
from service.cli import main
from service.migrations import migrate

PASSWORD = "hunter2"
TLS_REQUEST = struct.pack("!ii", 8, 80877103)
# What `serve` and the other commands listen to.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
DATA = ("DATABASE_URL", "REDIS_URL", "DATABASE_REPLICA_URLS")


class Ran(NamedTuple):
    """A finished command."""

    code: int
    out: str
    err: str

    def refused(self, code: int) -> str:
        """Return the only line of the error."""
        assert self.code == code, self.err
        assert re.fullmatch(r"(service|swiftlet): [^\n]+\n", self.err), self.err
        assert "Traceback" not in self.err
        assert PASSWORD not in self.err
        assert self.out == ""
        return self.err


class Command:
    """Runs a command in a new directory, with only the given settings."""

    def __init__(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.place = place
        self.monkeypatch = monkeypatch

    def __call__(self, *words: str, name: str = "swiftlet", **environ: str) -> Ran:
        out, err = io.TextIOWrapper(io.BytesIO()), io.StringIO()
        before = {number: signal.getsignal(number) for number in SIGNALS}
        with self.monkeypatch.context() as patch:
            patch.chdir(self.place)
            for known in list(os.environ):
                if known in DATA or known.startswith(("SERVICE_", "PG")):
                    patch.delenv(known)
            for known, value in environ.items():
                patch.setenv(known, value)
            # The module loaded its settings at import; a separate process would load them again.
            patch.delitem(sys.modules, "service.asgi", raising=False)
            patch.setattr(sys, "path", list(sys.path))
            with (
                contextlib.redirect_stdout(out),
                contextlib.redirect_stderr(err),
                pytest.raises(SystemExit) as ended,
            ):
                main.main(list(words), prog_name=name)
        for number, handler in before.items():
            signal.signal(number, handler)
        code = ended.value.code
        out.seek(0)
        return Ran(code if isinstance(code, int) else 0, out.read(), err.getvalue())


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    (tmp_path / "items.csv").write_text("sku,name\n")
    return Command(tmp_path, monkeypatch)


@contextlib.contextmanager
def postgres_that_says(code: str, message: str = "no") -> Iterator[int]:
    """Yield the port of a server that answers each connection with this error."""
    fields = f"SFATAL\0VFATAL\0C{code}\0M{message}\0D{message} in detail\0\0".encode()
    error = b"E" + struct.pack("!i", len(fields) + 4) + fields

    def answer() -> None:
        while True:
            try:
                one, _ = listening.accept()
            except OSError:
                return
            one.settimeout(5)
            with one, contextlib.suppress(OSError):
                if one.recv(8) == TLS_REQUEST:
                    one.sendall(b"N")
                    one.recv(8)
                one.sendall(error)
                one.shutdown(socket.SHUT_WR)
                while one.recv(1000):
                    pass

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=answer)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
    thread.join()


# Each with whether it only reads, and whether it needs the tables.
READS, WRITES, MIGRATES = "reads", "writes", "migrates"
COMMANDS: dict[tuple[str, ...], str] = {
    ("migrate",): MIGRATES,
    ("migrate", "up"): MIGRATES,
    ("migrate", "status"): READS,
    ("migrate", "check"): READS,
    ("migrate", "new", "a change"): READS,
    ("seed", "--users", "1", "--items", "1"): WRITES,
    ("import", "items.csv"): WRITES,
    ("export", "-"): READS,
    ("export", "out.csv"): READS,
    ("explain", "items.by_id"): READS,
}
NEED_TABLES = [words for words in COMMANDS if words[0] != "migrate" or words[1:] == ("new",)]
SERVE = ("serve", "--port", "0")
all_commands = pytest.mark.parametrize("words", (*COMMANDS, SERVE), ids=" ".join)
all_but_serve = pytest.mark.parametrize("words", COMMANDS, ids=" ".join)


@all_commands
@pytest.mark.parametrize(
    ("environ", "said"),
    (
        ({"DATABASE_URL": "postgresql://app:hunter2/x@host/app"}, "DATABASE_URL=(hidden)"),
        ({"DATABASE_URL": "postgresql://app:hunter2@host:port/app"}, "the port"),
        ({"REDIS_URL": "redis://host:abc"}, "REDIS_URL=(hidden)"),
        ({"REDIS_URL": "redis://:hunter2@host/zero"}, "REDIS_URL=(hidden)"),
        ({"SERVICE_PROT": "1"}, "did you mean SERVICE_PORT?"),
        ({"SERVICE_POOL": "many"}, "SERVICE_POOL='many'"),
    ),
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_setting_is_one_line(
    command: Command, words: tuple[str, ...], environ: dict[str, str], said: str
) -> None:
    assert said in command(*words, **environ).refused(2)
    assert [path.name for path in command.place.iterdir()] == ["items.csv"]


@all_commands
def test_a_wrong_line_of_dotenv_is_named_by_its_number(
    command: Command, words: tuple[str, ...]
) -> None:
    (command.place / ".env").write_text("REDIS_URL=off\n\nPASSWORD hunter2\n")
    assert command(*words).refused(2) == "swiftlet: .env, line 3: expected NAME=value\n"


# Errors of PostgreSQL and PgBouncer that do not end by waiting.
REFUSALS = (
    ("28P01", 'password authentication failed for user "app"'),
    ("28000", 'no pg_hba.conf entry for host "127.0.0.1"'),
    ("28000", 'role "app" is not permitted to log in'),
    ("3D000", 'database "app" does not exist'),
    ("42501", 'permission denied for database "app"'),
    ("42704", 'unrecognized configuration parameter "connect_timeout"'),
    ("22023", 'invalid value for parameter "work_mem": "much"'),
    ("55P02", 'parameter "ssl" cannot be changed now'),
    ("55000", 'database "app" is not currently accepting connections'),
    ("08P01", "no such database: app"),
    ("0A000", "unsupported frontend protocol 3.0"),
)
# Errors that may end soon.
PASSING = (
    ("57P03", "the database system is starting up"),
    ("57P01", "terminating connection due to administrator command"),
    ("53300", "sorry, too many clients already"),
    ("08006", "the connection failed"),
    ("08P01", "unsupported startup parameter: jit"),
    ("08P01", "server login has been failing, cached error: connect failed"),
    ("58000", "could not read the file"),
)


def url_of(port: int) -> str:
    return f"postgresql://app:{PASSWORD}@127.0.0.1:{port}/app"


@all_commands
def test_a_database_that_refuses_the_connection_is_one_line(
    command: Command, words: tuple[str, ...]
) -> None:
    with postgres_that_says(*REFUSALS[0]) as port:
        line = command(*words, DATABASE_URL=url_of(port), REDIS_URL="off").refused(1)
    assert "refuses the connection: password authentication failed" in line
    assert "in detail" not in line
    assert [path.name for path in command.place.iterdir()] == ["items.csv"]


@pytest.mark.parametrize(("code", "message"), REFUSALS)
@pytest.mark.parametrize(
    "options",
    ((), ("--server", "granian"), ("--workers", "2"), ("--server", "granian", "--workers", "2")),
    ids=lambda options: " ".join(options) or "one uvicorn",
)
def test_serve_does_not_start_when_waiting_cannot_help(
    command: Command, code: str, message: str, options: tuple[str, ...]
) -> None:
    with postgres_that_says(code, message) as port:
        ran = command(*SERVE, *options, DATABASE_URL=url_of(port), REDIS_URL="off")
    assert message in ran.refused(1)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Collect the settings of started servers; these tests start none."""
    seen: list[object] = []
    monkeypatch.setattr("service.server.run", lambda settings, *_, **__: seen.append(settings))
    return seen


@pytest.mark.parametrize(("code", "message"), PASSING)
def test_serve_starts_when_the_database_may_become_available(
    command: Command, started: list[object], code: str, message: str
) -> None:
    with postgres_that_says(code, message) as port:
        ran = command(*SERVE, DATABASE_URL=url_of(port), REDIS_URL="off")
    assert (ran.code, len(started)) == (0, 1), ran.err


@pytest.mark.parametrize(
    "address",
    ("127.0.0.1:1", "127.0.0.1:1,127.0.0.1:2", "no-such-host.invalid"),
)
def test_serve_starts_when_the_database_does_not_answer(
    command: Command, started: list[object], address: str
) -> None:
    url = f"postgresql://app:{PASSWORD}@{address}/app"
    ran = command(*SERVE, DATABASE_URL=url, REDIS_URL="off")
    assert (ran.code, len(started)) == (0, 1), ran.err


@all_but_serve
def test_a_database_that_is_not_available_is_one_line(
    command: Command, words: tuple[str, ...]
) -> None:
    line = command(*words, DATABASE_URL=url_of(1)).refused(1)
    assert "the database is away" in line
    assert "DATABASE_URL" in line


@all_but_serve
def test_a_database_that_is_starting_is_one_line(command: Command, words: tuple[str, ...]) -> None:
    with postgres_that_says(*PASSING[0]) as port:
        line = command(*words, DATABASE_URL=url_of(port)).refused(1)
    assert "the database is away: the database system is starting up" in line


@all_commands
@pytest.mark.parametrize(
    ("parameters", "said"),
    (
        ("sslmode=require", "does not speak TLS"),
        ("sslmode=verify-full", "root certificate file"),
        ("sslnegotiation=maybe", "sslnegotiation"),
    ),
)
def test_a_wrong_tls_parameter_is_one_line(
    command: Command, words: tuple[str, ...], parameters: str, said: str
) -> None:
    with postgres_that_says("57P03") as port:
        url = f"{url_of(port)}?{parameters}"
        nowhere = str(command.place)  # no certificate of ours
        line = command(*words, DATABASE_URL=url, REDIS_URL="off", HOME=nowhere).refused(1)
    assert said in line


@all_commands
def test_a_wrong_variable_of_libpq_is_one_line(command: Command, words: tuple[str, ...]) -> None:
    line = command(*words, DATABASE_URL="postgresql:///app", REDIS_URL="off", PGPORT="abc")
    assert "PGPORT" in line.refused(1)


@all_commands
@pytest.mark.parametrize(
    ("change", "said"),
    (
        (("/test_", "/none_"), "does not exist"),
        (("?", "?connect_timeout=5&"), '"connect_timeout"'),
        (("user=service", "user=nosuchrole"), "authentication failed"),
    ),
    ids=("no database", "connect_timeout", "no role"),
)
def test_a_refusal_of_a_real_server_is_one_line(
    command: Command,
    new_database: Callable[[], str],
    words: tuple[str, ...],
    change: tuple[str, str],
    said: str,
) -> None:
    url = _one_of(new_database).replace(*change)
    assert said in command(*words, DATABASE_URL=url, REDIS_URL="off").refused(1)


_made: list[str] = []


def _one_of(new_database: Callable[[], str]) -> str:
    """One empty database for all tests that change nothing in it."""
    if not _made:
        _made.append(new_database())
    return _made[0]


@pytest.mark.parametrize("words", NEED_TABLES, ids=" ".join)
def test_commands_that_need_the_tables_say_how_to_migrate(
    command: Command, new_database: Callable[[], str], words: tuple[str, ...]
) -> None:
    line = command(*words, DATABASE_URL=_one_of(new_database)).refused(1)
    assert line.endswith("the database is not migrated: run `swiftlet migrate`\n")
    assert [path.name for path in command.place.iterdir()] == ["items.csv"]


def test_tables_that_are_too_old_or_unknown_are_one_line(
    command: Command, new_database: Callable[[], str]
) -> None:
    url = new_database()
    migrate.up(url, MIGRATIONS, "0004")
    newest = HEAD
    line = command("export", "-", DATABASE_URL=url).refused(1)
    assert f"is at revision 0004, and this code needs {newest}: run `swiftlet migrate`" in line
    query(url, "UPDATE alembic_version SET version_num = '9999'")
    assert "9999" in command("migrate", DATABASE_URL=url).refused(1)
    # Older code may run on newer tables, as during a deploy.
    migrate_back = "UPDATE alembic_version SET version_num = '0004'"
    query(url, migrate_back)
    migrate.up(url, MIGRATIONS)
    query(url, "UPDATE alembic_version SET version_num = '9999'")
    assert command("export", "out.csv", DATABASE_URL=url).code == 0


def test_missing_rights_on_tables_are_one_line(
    command: Command, new_database: Callable[[], str]
) -> None:
    url = new_database()
    role = f"stranger_{os.getpid()}"
    query(url, f"CREATE ROLE {role}")
    stranger = f"{url}&options=-crole%3D{role}"
    try:
        assert "permission denied for" in command("migrate", DATABASE_URL=stranger).refused(1)
        migrate.up(url, MIGRATIONS)
        for words, kind in COMMANDS.items():
            if kind == MIGRATES or words[:2] in {("migrate", "check"), ("migrate", "new")}:
                continue
            line = command(*words, DATABASE_URL=stranger).refused(1)
            assert "permission denied for" in line, words
    finally:
        query(url, f"DROP OWNED BY {role}")
        query(url, f"DROP ROLE {role}")


@pytest.mark.parametrize(
    "words", [words for words, kind in COMMANDS.items() if kind == READS], ids=" ".join
)
@pytest.mark.parametrize("data", (None, "empty"))
def test_commands_that_only_read_create_no_database(
    command: Command, words: tuple[str, ...], data: str | None
) -> None:
    if data:
        (command.place / ".data").mkdir()
    before = sorted(command.place.rglob("*"))
    line = command(*words).refused(1)
    assert "there is no database in .data, and DATABASE_URL is not set" in line
    assert sorted(command.place.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "said"),
    (
        (("export", "foo.xlsx"), ".xlsx is not a supported format"),
        (("export", "foo.json"), ".json is not a supported format"),
        (("export", "foo.csv.zip"), ".zip is not a supported format"),
        (("import", "items.tsv"), ".tsv is not a supported format"),
        (("export", "out.CSV", "--format", "ndjson"), "out.CSV is named as csv"),
        (("export", "out.ndjson.GZ", "--format", "csv"), "out.ndjson.GZ is named as ndjson"),
        (("import", "items.csv", "--format", "ndjson"), "items.csv is named as csv"),
        (("export", "out.CSV", "--trailer"), "no trailer"),
        (("import", "none.csv"), "none.csv"),
        (("openapi", "."), "'.'"),
        (("explain", "items.by_id", "--param", "x=1"), "no parameter x"),
        (("migrate", "new", " "), "a message has 1 to 80 characters"),
        (("migrate", "new"), "MESSAGE"),
    ),
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_a_wrong_file_or_name_is_wrong_usage(
    command: Command, words: tuple[str, ...], said: str
) -> None:
    (command.place / "items.tsv").write_text("")
    assert said in command(*words).refused(2)
    assert not (command.place / ".data").exists()


@pytest.mark.parametrize(
    "words",
    (("openapi", "no/such/dir/x"), ("export", "no/such/dir/x.csv"), ("openapi", "/dev/full")),
    ids=" ".join,
)
def test_a_file_that_cannot_be_written_is_named(
    command: Command, database_url: str, words: tuple[str, ...]
) -> None:
    line = command(*words, DATABASE_URL=database_url).refused(1)
    assert f"{words[1]}: " in line
    assert "DATABASE_URL" not in line


@pytest.mark.parametrize(
    ("host", "said"),
    (
        ("x" * 80, "not a host name); try --host"),
        ("a..b", "not a host name); try --host"),
        ("no-such-host.invalid", "try --host"),
        ("203.0.113.9", "try --host"),
    ),
    ids=("a long label", "an empty label", "an unknown name", "another machine"),
)
def test_a_host_that_cannot_be_bound_is_one_line(command: Command, host: str, said: str) -> None:
    line = command("serve", "--port", "0", "--host", host, SERVICE_AUTH="off").refused(1)
    assert f"can't listen on {host}:0" in line
    assert said in line


def test_a_connection_lost_during_a_transaction_is_one_line(
    command: Command, new_database: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """asyncpg then raises only an error of the transaction's __aexit__."""
    url = new_database()
    migrate.up(url, MIGRATIONS)
    copy = asyncpg.Connection.copy_records_to_table

    async def lose(self: asyncpg.Connection, *args: Any, **options: Any) -> Any:
        other = await asyncpg.connect(url)
        await other.execute("SELECT pg_terminate_backend($1)", self.get_server_pid())
        await other.close()
        return await copy(self, *args, **options)

    monkeypatch.setattr(asyncpg.Connection, "copy_records_to_table", lose)
    ran = command("seed", "--users", "1", "--items", "0", DATABASE_URL=url)
    assert "the connection to the database is lost" in ran.refused(1)


def test_a_file_extension_selects_the_format_in_any_case(
    command: Command, database_url: str
) -> None:
    query(database_url, "TRUNCATE items, users, keys, notifications RESTART IDENTITY")
    (command.place / "ITEMS.CSV").write_text("sku,name\nA,Lamp\n")
    (command.place / "MORE.JSONL").write_text('{"sku": "B", "name": "Chair"}\n')
    for name in ("ITEMS.CSV", "MORE.JSONL"):
        ran = command("import", name, DATABASE_URL=database_url)
        assert "1 created" in ran.out, ran.err
    for name, begin in (
        ("OUT.CSV", b"id,sku,"),
        ("OUT.CSV.GZ", b"\x1f\x8b"),
        ("out.Ndjson", b'{"id":'),
        ("out", b'{"id":'),
        ("out.txt", b"id,sku,"),
    ):
        options = ("--format", "csv") if name == "out.txt" else ()
        assert command("export", name, *options, DATABASE_URL=database_url).code == 0
        assert (command.place / name).read_bytes().startswith(begin)
    ran = command("import", "OUT.CSV.GZ", DATABASE_URL=database_url)
    assert "2 rows read: 0 created, 0 updated, 2 unchanged" in ran.out


def test_the_command_has_two_names() -> None:
    scripts = {
        one.name: one.value
        for one in importlib.metadata.distribution("swiftlet").entry_points
        if one.group == "console_scripts"
    }
    assert scripts.keys() == {"service", "swiftlet"}
    assert len(set(scripts.values())) == 1


@pytest.mark.parametrize("name", ("service", "swiftlet"))
def test_a_command_shows_the_name_it_was_called_by(command: Command, name: str) -> None:
    assert command("srve", name=name).refused(2).startswith(f"{name}: No such command 'srve'")
    told = command("migrate", "check", "--help", name=name).out
    assert told.startswith(f"Usage: {name} migrate check ")
    assert f"  {name} migrate check\n" in told
