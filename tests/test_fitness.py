"""A database in an unexpected state: responses, log lines and recovery."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import msgspec
import pytest
from conftest import HEAD

from service import health
from service.asgi import MIGRATIONS, app
from service.db import rights
from service.db.copy import dedicated
from service.db.database import Database
from service.db.guarded import Guard
from service.db.pooled_connection import unhandled
from service.db.writable import WritableDatabase
from service.errors import (
    Conflict,
    Failed,
    Invalid,
    Locked,
    OutcomeUnknown,
    Problem,
    Taken,
    TimedOut,
    Unavailable,
    from_database,
)
from service.items import items
from service.items.structs import NewItem
from service.logs import logger
from service.migrations import migrate
from service.users import users
from service.web.row_readers import NdjsonReader

pytestmark = pytest.mark.anyio
NEEDS = rights.needs(app.tables)

NEW = (None, "Widget", None, None, True, None)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """Use uvloop, like the servers: it raises its own errors when a connection is lost."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture
def url(new_database: Callable[[], str]) -> str:
    found = new_database()
    migrate.up(found, MIGRATIONS)
    return found


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """Collect the messages of the log."""
    found: list[str] = []

    class EncodedBodies(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    handler, level = EncodedBodies(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield found
    logger.removeHandler(handler)
    logger.setLevel(level)


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[Database]:
    db = Database(url, statements=(*items.prepared, *users.prepared), **options)
    await db.open()
    try:
        yield db
    finally:
        await db.close()


async def outcome(work: Any) -> Any:
    """Return the result, or the Problem."""
    try:
        return await work
    except Problem as problem:
        return problem


async def until(work: Callable[[], Any], fine: Callable[[Any], bool]) -> Any:
    """Repeat until the outcome is right; fail after a time limit."""
    async with asyncio.timeout(60):
        while not fine(found := await outcome(work())):  # noqa: ASYNC110 - no code sets an event
            await asyncio.sleep(0.02)
    return found


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection that is closed also when the test fails.

    uvloop warns of one that is open when the loop is closed. In tests the warning is an exception:
    uvloop drops it, does not close the connection, and the end of the loop hangs.
    """
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        connection.terminate()


async def run_in(url: str, *statements: str) -> None:
    """Run statements on a new connection."""
    async with connected(url) as connection:
        for sql in statements:
            await connection.execute(sql)


async def run(url: str, *statements: str) -> None:
    """Run statements on a new connection to the database `postgres`."""
    await run_in(url.replace(f"///{name_of(url)}?", "///postgres?"), *statements)


def name_of(url: str) -> str:
    return url.partition("///")[2].partition("?")[0]


def hang_up(url: str) -> str:
    return (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        f" WHERE datname = '{name_of(url)}' AND pid <> pg_backend_pid()"
    )


async def file(*rows: bytes) -> AsyncIterator[bytes]:
    yield b"\n".join(rows)


def importing(db: Database, *rows: bytes) -> Any:
    return items.import_(
        WritableDatabase(db), file(*rows), NdjsonReader(NewItem, 10_000), skip=False
    )


def changing(db: Database, row_id: int) -> Any:
    given = items.change(name="Changed")
    return items.writes.change.run(WritableDatabase(db), None, id=row_id, given=given)


# Read-only: a database, a role or a server that rejects writes.


@pytest.mark.parametrize("size", (2, None))
async def test_a_read_only_database_is_logged_once_and_recovery_needs_no_restart(
    url: str, size: int | None, lines: list[str]
) -> None:
    async with opened(url, size=size) as db:
        made = await items.add.run(WritableDatabase(db), NEW)
        opened_ = _count_connections(db)
        off = f"ALTER DATABASE {name_of(url)} SET default_transaction_read_only = on"
        await run(url, off, hang_up(url))
        refused = await until(
            lambda: items.add.run(WritableDatabase(db), NEW), lambda one: one.status == 503
        )
        refused = await until(
            lambda: items.add.run(WritableDatabase(db), NEW), lambda one: "read-only" in one.detail
        )
        assert isinstance(refused, Unavailable)
        key = (msgspec.convert({"sku": "A", "name": "B"}, items.keyed),)
        for work in (
            changing(db, made.id),
            items.writes.remove.run(WritableDatabase(db), None, id=made.id),
            items.adds.run(WritableDatabase(db), key),
            items.upsert.run(WritableDatabase(db), key),
            importing(db, b'{"name": "Lamp"}'),
        ):
            problem = await outcome(work)
            assert (problem.status, problem.detail) == (503, "the database is read-only")
        # Reads continue; writes neither wait nor open a connection each.
        before = len(opened_)
        for _ in range(300):
            assert isinstance(await outcome(items.add.run(WritableDatabase(db), NEW)), Unavailable)
        assert len(opened_) - before <= 10
        assert (await items.by_id.get(db, made.id)) == made
        assert lines.count("the database is read-only") == 1
        assert "the database takes writes again" not in lines

        # Connections opened in the read-only time can't write, even after the setting is changed.
        await run(url, f"ALTER DATABASE {name_of(url)} RESET default_transaction_read_only")
        await until(
            lambda: items.add.run(WritableDatabase(db), NEW),
            lambda one: not isinstance(one, Problem),
        )
        done = await asyncio.gather(*(outcome(changing(db, made.id)) for _ in range(20)))
        assert not [one for one in done if isinstance(one, Problem)]
        assert lines.count("the database is read-only") == 1
        assert lines.count("the database takes writes again") == 1


def _count_connections(db: Database) -> list[str]:
    found: list[str] = []
    connect = db.pool.connect

    async def counted(name: str) -> Any:
        found.append(name)
        return await connect(name)

    db.pool.connect = counted  # type: ignore[method-assign]  # to count
    return found


async def test_connections_to_a_server_that_becomes_read_only_are_replaced(
    url: str, lines: list[str]
) -> None:
    """After a failover: the connections are open, but their server rejects writes."""
    async with opened(url, size=2) as db:
        made = await items.add.run(WritableDatabase(db), NEW)
        # In every existing session, and in no later one.
        for link in (*db.pool._idle,):
            await link.connection.execute("SET default_transaction_read_only = on")
        assert (
            await outcome(items.add.run(WritableDatabase(db), NEW))
        ).detail == "the database is read-only"
        assert await items.by_id.get(db, made.id) == made
        await until(
            lambda: items.add.run(WritableDatabase(db), NEW),
            lambda one: not isinstance(one, Problem),
        )
        done = await asyncio.gather(*(outcome(changing(db, made.id)) for _ in range(20)))
        assert not [one for one in done if isinstance(one, Problem)]
    assert lines.count("the database is read-only") == 1
    assert lines.count("the database takes writes again") == 1


async def test_a_start_on_a_read_only_database_logs_it_at_once(url: str, lines: list[str]) -> None:
    await run(url, f"ALTER DATABASE {name_of(url)} SET default_transaction_read_only = on")
    async with opened(url, size=2) as db:
        assert lines.count("the database is read-only") == 1
        assert await items.by_id.get(db, 1) is None
        await run(url, f"ALTER DATABASE {name_of(url)} RESET default_transaction_read_only")
        await until(
            lambda: items.add.run(WritableDatabase(db), NEW),
            lambda one: not isinstance(one, Problem),
        )


# No connection is possible.


@pytest.mark.parametrize("size", (2, None))
async def test_a_dropped_database_is_503_and_logged_once(
    url: str, size: int | None, lines: list[str]
) -> None:
    async with opened(url, size=size) as db:
        assert await items.by_id.get(db, 1) is None
        moved = f"{name_of(url)}_moved"
        # No connection may be open then, and the pool connects again at once.
        refuse = f"ALTER DATABASE {name_of(url)} ALLOW_CONNECTIONS false"
        await run(url, refuse, hang_up(url), f"ALTER DATABASE {name_of(url)} RENAME TO {moved}")
        await until(
            lambda: items.by_id.get(db, 1),
            lambda one: one is not None and one.detail == "the database does not exist",
        )
        for work in (items.add.run(WritableDatabase(db), NEW), changing(db, 1)):
            assert (await outcome(work)).status == 503
        assert (await outcome(importing(db, b'{"name": "Lamp"}'))).status == 503
        assert lines.count("the database is away") == 1
        allow = f"ALTER DATABASE {moved} ALLOW_CONNECTIONS true"
        await run(url, allow, f"ALTER DATABASE {moved} RENAME TO {name_of(url)}")
        await until(lambda: items.by_id.get(db, 1), lambda one: one is None)
        assert lines.count("the database is away") == lines.count("the database is back") == 1


def _errors() -> list[type[asyncpg.PostgresError]]:
    names = (getattr(asyncpg.exceptions, name) for name in asyncpg.exceptions.__all__)
    return [
        one
        for one in names
        if isinstance(one, type)
        and issubclass(one, asyncpg.PostgresError)
        and getattr(one, "sqlstate", None)
    ]


def test_no_error_of_a_database_state_is_a_500() -> None:
    """Only errors of a statement itself are: syntax, ambiguity, wrong type of object."""
    conditions = {"42501", "42P01", "42703", "42883", "42704", "42804"}
    found: dict[str, set[type[Problem]]] = {}
    for error in _errors():
        problem = from_database(error("in any language"))
        assert "language" not in problem.detail
        state = str(error.sqlstate)
        kind = state if state[:2] not in {"21", "42"} or state in conditions else "bug"
        found.setdefault(kind, set()).add(type(problem))
    assert found.pop("bug") == {Failed}
    for state, kinds in found.items():
        if state[:2] == "23":
            assert kinds <= {Conflict, Taken, Invalid}, state
        elif state[:2] in {"22", "44", "54"} or state == "P0001":
            assert kinds == {Unavailable if state == "2200H" else Invalid}, state
        elif state in {"57014", "25P04", "55P03"}:
            assert kinds == {Locked if state == "55P03" else TimedOut}, state
        else:
            assert kinds == {Unavailable}, state


async def test_any_error_of_a_connection_is_a_503(
    lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    others = (
        OSError,
        TimeoutError,
        ValueError,
        asyncpg.InterfaceError,
        asyncpg.InternalClientError,
        asyncpg.ClientConfigurationError,
    )
    for error in (*_errors(), *others):

        async def connect(*_: object, error: type[Exception] = error, **__: object) -> None:
            raise error("se/cret")

        monkeypatch.setattr(asyncpg, "connect", connect)
        db = Database("postgresql://nowhere", size=None)
        lines.clear()
        for _ in range(2):
            problem = await outcome(items.by_id.get(db, 1))
            assert isinstance(problem, Unavailable), error
            assert "cret" not in problem.detail
        assert lines == ["the database is away"]


async def test_readiness_stays_ok_at_the_connection_limit_of_the_server(url: str) -> None:
    """At the connection limit of the server, open connections still serve."""

    async def connect(_: str) -> None:
        raise asyncpg.TooManyConnectionsError("sorry, too many clients already")

    async with opened(url, size=1) as db:
        db.pool.connect = connect  # type: ignore[method-assign,assignment]  # as a server that is full
        link = db.pool.take()
        assert link is not None
        database, migrations = await health._database(db, NEEDS, HEAD)
        assert (database.state, migrations.state) == ("ok", "ok")
        assert "no free connection" in str(database.detail)
        link.deadline = 0.0  # its server does not answer
        database, _ = await health._database(db, NEEDS, HEAD)
        assert (database.state, database.detail) == ("away", "the database has no free connection")
        db.pool.release(link)


async def test_readiness_answers_in_time_on_a_connection_that_hangs(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "CHECK_SECONDS", 0.2)
    async with opened(url, size=1) as db:
        async with connected(url) as other:
            await other.execute("BEGIN; LOCK TABLE alembic_version IN ACCESS EXCLUSIVE MODE")
            database, _ = await health._database(db, NEEDS, HEAD)
            assert (database.state, database.detail) == ("away", "no answer within 0.2 s")
        # The late answer must not reach a later request, so the connection was replaced.
        assert await until(lambda: items.by_id.get(db, 1), lambda one: one is None) is None
        database, _ = await health._database(db, NEEDS, HEAD)
        assert database.state == "ok"


# The schema does not match the statements.


async def test_a_missing_column_means_not_migrated_and_is_logged_once(
    url: str, lines: list[str]
) -> None:
    await run_in(url, "ALTER TABLE items RENAME COLUMN description TO descr")
    async with opened(url, size=2) as db:
        for _ in range(5):
            for work in (items.by_id.get(db, 1), items.add.run(WritableDatabase(db), NEW)):
                problem = await outcome(work)
                assert isinstance(problem, Unavailable)
                assert "run `swiftlet migrate`" in problem.detail
        assert await users.by_id.get(db, 1) is None  # statements without that column still work
        assert [line for line in lines if "migrate" in line] == [
            "the database is not migrated: run `swiftlet migrate`"
        ]
        await run_in(url, "ALTER TABLE items RENAME COLUMN descr TO description")
        await until(lambda: items.by_id.get(db, 1), lambda one: one is None)
        await until(_is_over(db), bool)
        assert lines.count("the database is migrated") == 1
        # Like after a start: a connection prepares each statement at its first use.
        await until(_idle(db, 2), bool)
        assert [len(link.prepared) for link in db.pool._idle] == [0, 0]


async def test_without_statements_to_prepare_a_new_connection_ends_it(url: str) -> None:
    db = Database(url, size=1)
    await db.open()
    try:
        db.problem(asyncpg.UndefinedTableError("of a COPY, which is no statement"))
        await until(_is_over(db), bool)
    finally:
        await db.close()


def _is_over(db: Database) -> Callable[[], Any]:
    async def look() -> bool:
        return not db.pool.fitness.outdated.active

    return look


def _idle(db: Database, size: int) -> Callable[[], Any]:
    async def look() -> bool:
        return len(db.pool._idle) == size

    return look


@pytest.mark.parametrize("name", ("totals", "items"))
async def test_a_missing_table_ends_when_its_statement_can_run(
    url: str, lines: list[str], name: str
) -> None:
    """Also if no prepared statement uses the table; otherwise each check would succeed."""
    async with opened(url, size=1) as db:
        query_ = items.count
        await run_in(url, f"ALTER TABLE {name} RENAME TO gone")
        assert (await outcome(query_.only(db))).status == 503 if name == "totals" else True
        assert name == "totals" or (await outcome(items.by_id.get(db, 1))).status == 503
        await asyncio.sleep(1.2)  # two checks
        assert lines == ["the database is not migrated: run `swiftlet migrate`"]
        await run_in(url, f"ALTER TABLE gone RENAME TO {name}")
        await until(_is_over(db), bool)
        assert await query_.only(db) == 0


# Errors are recognised by SQLSTATE, table and constraint.


@pytest.mark.parametrize("message", ("is still referenced", "wird noch verwendet", "", None))
def test_a_foreign_key_error_does_not_depend_on_the_language_of_the_database(
    message: str | None,
) -> None:
    error = asyncpg.ForeignKeyViolationError("verletzt Fremdschlüssel-Constraint")
    error.detail = message
    error.table_name, error.constraint_name = "items", "items_owner_id_fkey"
    removed, added = from_database(error, removes=True), from_database(error)
    assert (removed.status, removed.errors[0].field) == (409, "items")
    assert (added.status, added.errors[0].field) == (409, "owner_id")


async def test_statements_know_whether_they_delete_rows() -> None:
    removing = {
        statement.name for statement in (*items.prepared, *users.prepared) if statement.removes
    }
    assert removing == {
        f"{one}{own}"
        for one in ("items.remove", "items.remove_if", "users.remove", "users.remove_if")
        for own in ("", "_own")
    } | {"items.remove_all", "items.remove_all_own"}


async def test_a_user_with_items_is_not_deleted_in_any_language_of_the_database(url: str) -> None:
    async with opened(url, size=1) as db:
        user = await users.add.run(
            WritableDatabase(db), ("a@example.com", "ada", None, "user", True)
        )
        await items.add.run(WritableDatabase(db), (None, "Lamp", None, None, True, user.id))
        for guard in (None, Guard([1])):
            problem = await outcome(
                users.writes.remove.run(WritableDatabase(db), guard, id=user.id)
            )
            assert [error.field for error in problem.errors] == ["items"]
        problem = await outcome(
            items.add.run(WritableDatabase(db), (None, "Lamp", None, None, True, 99))
        )
        assert [error.field for error in problem.errors] == ["owner_id"]


# A lost connection outside of the pool.


@pytest.mark.parametrize("when", ("staging", "merging"))
async def test_an_import_whose_backend_is_killed_is_503(url: str, when: str) -> None:
    async with opened(url, size=1) as db:
        row = b'{"name": "Lamp", "description": "%b"}' % (b"x" * 1000)
        rest = asyncio.Event()

        async def slowly() -> AsyncIterator[bytes]:
            for n in range(3000):
                if n == 1500 and when == "staging":
                    await run(url, f"{hang_up(url)} AND application_name = 'swiftlet-audible'")
                yield row + b"\n"
            rest.set()

        work = asyncio.create_task(
            outcome(
                items.import_(
                    WritableDatabase(db), slowly(), NdjsonReader(NewItem, 10_000), skip=False
                )
            )
        )
        if when == "merging":
            async with connected(url) as other:
                await other.execute("BEGIN; LOCK TABLE items IN ACCESS EXCLUSIVE MODE")
                await rest.wait()
                waits = "SELECT count(*) FROM pg_locks WHERE NOT granted"
                await until(lambda: other.fetchval(waits), bool)
                await run(url, f"{hang_up(url)} AND application_name = 'swiftlet-audible'")
                await other.execute("ROLLBACK")
        problem = await work
        assert isinstance(problem, Unavailable), problem
        assert not isinstance(problem, OutcomeUnknown)
        assert await items.count.only(db) == 0
        done = await importing(db, b'{"name": "Lamp"}')
        assert done.created == 1


async def test_a_write_to_a_transport_that_has_just_been_closed_is_a_lost_connection(
    url: str,
) -> None:
    """uvloop raises RuntimeError, which asyncpg does not translate during a COPY."""
    # asyncpg drops a future with the error; a service ignores it in the same way.
    asyncio.get_running_loop().set_exception_handler(unhandled)
    async with opened(url, size=1) as db, dedicated(db) as one:
        await items.stage.open(one)

        async def rows() -> AsyncIterator[tuple[object, ...]]:
            for n in range(20_000):
                if n == 1000:
                    _transport(one.connection).close()
                if n % 100 == 0:
                    await asyncio.sleep(0)
                yield (n, None, "Lamp", "x" * 100, None, True, None)

        with pytest.raises(Unavailable), one.watched():
            await one.connection.copy_records_to_table(
                "items_stage", records=rows(), columns=items.stage.columns
            )
        _transport(db.pool._idle[0].connection).close()
        assert isinstance(await outcome(items.add.run(WritableDatabase(db), NEW)), OutcomeUnknown)
        assert await until(lambda: items.by_id.get(db, 1), lambda one: one is None) is None
        link = db.pool._idle[0]
        _transport(link.connection).close()
        assert await outcome(items.by_id.get(db, 1)) is None  # a read is retried once


def _transport(connection: Any) -> Any:
    return connection._transport
