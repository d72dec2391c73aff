"""`GET /admin/explain/{statement}` and `GET /admin/slow`, for admins."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Annotated

import asyncpg
from msgspec import Meta, Struct, structs

from service.admin import arguments, catalogue
from service.admin.explain import (
    Explained,
    Format,
    Plan,
    Question,
    Value,
    changes,
    explain,
)
from service.admin.query_ids import QueryIds, Source
from service.admin.slow import Order, SlowStatement, slowest
from service.db.database import Database
from service.db.pooled_connection import LOST, connect
from service.errors import (
    Conflict,
    FieldError,
    Forbidden,
    Invalid,
    NotFound,
    Problem,
    Unavailable,
    from_database,
)
from service.web.codec import Query, Reply, encode
from service.web.endpoint import Operation, Tag
from service.web.request import Request

# A plan is given up so many seconds after the statement_timeout: a database that does not answer at
# all does not keep that time.
GRACE_SECONDS = 3.0
TAG = Tag("admin", "For operators: plans of statements, and which cost the most")


class ExplainQuery(Struct, frozen=True):
    """The parameters of an explanation."""

    arguments: Annotated[
        str,
        Meta(
            description="Arguments of the statement, as a JSON object; the others get examples",
            examples=['{"id": 7}'],
        ),
    ] = "{}"
    analyze: Annotated[bool, Meta(description="Run the statement too, and roll it back")] = False
    plan: Annotated[
        Plan,
        Meta(
            title="PlanKind",
            description="For these values, or one for all; auto: as a connection of the pool",
        ),
    ] = "auto"
    format: Annotated[Format, Meta(title="PlanFormat", description="Of the plan")] = "text"


class SlowQuery(Struct, frozen=True):
    """The parameters of the slowest statements."""

    sort: Annotated[
        Order, Meta(title="SlowOrder", description="By which figure; the largest comes first")
    ] = "total"
    limit: Annotated[int, Meta(ge=1, le=100, description="How many statements")] = 20


class Slow(Struct, frozen=True):
    """The statements that cost the most since the workers started, the worst first."""

    statements: list[SlowStatement]
    pg_stat_statements: Source


_explain_query, _slow_query = Query(ExplainQuery), Query(SlowQuery)


class Admin:
    """The handlers, of one application in one worker.

    Args:
        sources: of the statements of the application.
    """

    def __init__(self, sources: catalogue.Sources) -> None:
        self.sources = sources
        self.ids = QueryIds(sources)
        self._busy = False

    async def explain_statement(self, request: Request) -> Reply:
        """Return PostgreSQL's plan of a named statement; `swiftlet statements` lists the names.

        Nothing is changed for good: with `analyze` the statement runs in a transaction that is
        rolled back. To analyze a statement that writes or locks rows, a request needs the key of
        an admin even if authentication is off, because others wait for its locks. One plan at a
        time per worker; others get 503.
        """
        name: str = request.scope["path_params"]["statement"]
        query = request.query(_explain_query)
        try:
            resource, statement = catalogue.find(self.sources, name)
        except KeyError:
            raise NotFound(catalogue.unknown(self.sources, name)) from None
        principal = request.principal
        if query.analyze and changes(statement) and (principal is None or not principal.admin):
            raise Forbidden(
                f"{statement.name} writes or locks rows, so only an admin's key may analyze it"
                " (SERVICE_AUTH=on), or the command `swiftlet explain --analyze`"
            )
        with _as_problems(removes=statement.removes):
            given = _given(query.arguments)
            catalogue.check_names(statement, given)
            asked = Question(statement, resource, given, query.analyze, query.plan, query.format)
            async with self._connection(request.db) as connection:
                found = await explain(connection, asked)
        return Reply(encode(found))

    async def show_slow_statements(self, request: Request) -> Reply:
        """Return the statements that cost the most, summed over all workers since their start.

        Beside our own figures there are those of pg_stat_statements, where it is installed.
        """
        query = request.query(_slow_query)
        metrics = request.state["metrics"]
        if metrics is None:
            raise NotFound("there are no figures: SERVICE_METRICS=off")
        found = slowest(metrics.store.slots(), query.sort, query.limit)
        try:
            async with self._connection(request.db) as connection:
                names = [one.statement for one in found]
                with _as_problems():
                    figures, source = await self.ids.figures(connection, names)
        except Problem as problem:  # our own figures need no database
            figures, source = {}, Source(available=False, detail=problem.detail)
        found = [
            structs.replace(one, in_database=figures[one.statement])
            if one.statement in figures
            else one
            for one in found
        ]
        return Reply(encode(Slow(found, source)))

    @asynccontextmanager
    async def _connection(self, db: Database) -> AsyncIterator[asyncpg.Connection]:
        """A connection of its own, for one request at a time.

        Raises:
            Problem: 503, another request has one, or the database is away.
        """
        if self._busy:
            raise Unavailable("this worker explains another statement: try again")
        self._busy = True
        timeout = db.statement_timeout
        try:
            try:
                connection = await connect(
                    db.pool.url, statement_timeout=timeout, lock_timeout=timeout * 0.75
                )
            except Exception as error:
                raise db.refused(error) from error
            # Not by a cancellation: what runs in a `finally` would wait for the database too.
            limit = asyncio.get_running_loop().call_later(
                timeout + GRACE_SECONDS, connection.terminate
            )
            try:
                yield connection
            finally:
                limit.cancel()
                connection.terminate()
        finally:
            self._busy = False


@contextmanager
def _as_problems(*, removes: bool = False) -> Iterator[None]:
    """Turn errors of a wrong parameter, and of PostgreSQL, into Problems.

    `removes` says that the statement deletes rows, see errors.from_database.
    """
    try:
        yield
    except ValueError as error:
        raise Invalid(str(error), FieldError("arguments", str(error))) from None
    except asyncpg.PostgresConnectionError as error:
        raise Unavailable("the database is away") from error
    except asyncpg.PostgresError as error:
        raise from_database(error, removes=removes) from error
    except LOST as error:
        raise Unavailable("the database is away") from error


def _given(text: str) -> Mapping[str, Value]:
    """Return the arguments in a JSON object.

    Raises:
        ValueError: it is not a JSON object.
    """
    found = arguments.members("arguments", text)
    return {name: partial(arguments.from_json, value=value) for name, value in found.items()}


def routes(sources: catalogue.Sources) -> list[Operation]:
    """Return the operations, for these statements."""
    admin = Admin(sources)
    return [
        Operation(
            "GET",
            "/admin/slow",
            admin.show_slow_statements,
            "The statements that cost the most",
            query=SlowQuery,
            response=Slow,
            errors=(NotFound, Invalid),
            stored=False,
            tag=TAG,
            access="admin",
        ),
        Operation(
            "GET",
            "/admin/explain/{statement}",
            admin.explain_statement,
            "PostgreSQL's plan of a statement",
            query=ExplainQuery,
            response=Explained,
            errors=(Forbidden, NotFound, Conflict, Invalid),
            tag=TAG,
            access="admin",
        ),
    ]
