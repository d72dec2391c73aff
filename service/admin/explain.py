"""The plan of a named statement, as PostgreSQL would run it for the service.

Nothing is changed for good. A statement that only reads runs in a read-only transaction, and every
transaction is rolled back, also by PostgreSQL itself when this process is killed. Triggers that run
at once run too, and what they write or notify is rolled back with the rest.
"""

import re
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple

import asyncpg
import msgspec
from msgspec import Meta, Struct

from service.admin import arguments
from service.admin.catalogue import check_names, is_staging
from service.db.arrays import of_texts
from service.db.statement import Statement
from service.resource import Resource

# `auto`: what a connection of the pool uses after RUNS runs with these values.
Plan = Literal["auto", "custom", "generic"]
Format = Literal["text", "json"]
# Returns the value of a parameter, by its name and type.
Value = Callable[[str, str], object]
# PostgreSQL decides after so many runs of a prepared statement whether one plan is for all values.
RUNS = 5

# Reads that a read-only transaction does not allow.
_LOCKS = re.compile(r"\bFOR (?:NO KEY |KEY )?(?:UPDATE|SHARE)\b|\bnextval\(")
# The tables whose ids a statement takes.
_INSERTS = re.compile(r"\bINSERT INTO ((?:\"[^\"]+\"|[\w.])+)|pg_get_serial_sequence\('([^']+)'")
_IDENTITIES = """
SELECT attrelid::regclass::text FROM pg_attribute
WHERE attrelid = ANY ($1::text[]::regclass[]) AND attidentity <> '' ORDER BY 1
"""


class Question(NamedTuple):
    """What to explain.

    Args:
        statement: the statement.
        resource: of the statement; None for one of the library.
        given: the values of parameters; the others get examples.
        analyze: whether to run it.
        plan: which plan to show.
        format: of the plan.
    """

    statement: Statement[Any]
    resource: Resource[Any] | None = None
    given: Mapping[str, Value] = MappingProxyType({})
    analyze: bool = False
    plan: Plan = "auto"
    format: Format = "text"


class Parameter(Struct, frozen=True):
    """A parameter of a statement; `given` is false if the value is only an example."""

    name: Annotated[str, Meta(examples=["id"])]
    type: Annotated[str, Meta(examples=["bigint"])]
    value: Annotated[Any, Meta(examples=[7])]
    given: bool


class Explained(Struct, frozen=True):
    """A plan, and how it was made.

    Args:
        statement: its name.
        sql: its text.
        changes: whether it writes, or locks rows.
        analyzed: whether it ran; then it was rolled back.
        planned: for these values alone, or one plan for all values.
        parameters: in the order of their numbers in the text.
        notes: what else to know.
        lines: the plan as text; empty with the format `json`.
        plan: the plan as PostgreSQL's JSON; null with the format `text`.
    """

    statement: Annotated[str, Meta(examples=["notes.by_id"])]
    sql: Annotated[str, Meta(examples=["SELECT ... WHERE notes.id = $1"])]
    changes: bool
    analyzed: bool
    planned: Literal["custom", "generic"]
    parameters: list[Parameter]
    notes: list[str]
    lines: Annotated[list[str], Meta(examples=[["Index Scan using notes_pkey on notes  (...)"]])]
    plan: Any = None


def changes(statement: Statement[Any]) -> bool:
    """Return whether a statement writes, locks rows or takes numbers of a sequence."""
    return statement.writes or _LOCKS.search(statement.sql) is not None


async def explain(connection: asyncpg.Connection, asked: Question) -> Explained:
    """Return PostgreSQL's plan; with `analyze` run the statement, and roll it back.

    Args:
        connection: outside of a transaction, with a statement_timeout. Close it afterwards.
        asked: what to explain.

    Raises:
        ValueError: a parameter is unknown, or its value has the wrong type.
        asyncpg.PostgresError: PostgreSQL refuses the statement with these values.
    """
    resource, statement = asked.resource, asked.statement
    check_names(statement, asked.given)
    transaction = connection.transaction()
    await transaction.start()
    name = f"explained_{secrets.token_hex(4)}"
    try:
        if resource is not None and is_staging(resource, statement):
            await connection.execute(resource.stage.create)
        if not (asked.analyze and changes(statement)):
            await connection.execute("SET TRANSACTION READ ONLY")
        # A savepoint, so that the name can be removed after an error: behind a pooler the
        # connection to PostgreSQL goes on.
        await connection.execute("SAVEPOINT before")
        await connection.execute(f"PREPARE {name} AS {statement.sql}")
        try:
            return await _explained(connection, name, asked)
        finally:
            if not connection.is_closed():
                await connection.execute("ROLLBACK TO SAVEPOINT before")
                await connection.execute(f"DEALLOCATE {name}")
    finally:
        if not connection.is_closed():
            await transaction.rollback()


def _array_text(bind: str, given: Value, literal: Callable[[list[Any]], str]) -> object:
    """Return an argument that is sent as the text of an array, from JSON or such a text.

    Raises:
        ValueError: it is neither.
    """
    kinds = ("text[]",) if literal is of_texts else ("numeric[]", "boolean[]")
    for kind in kinds:
        with suppress(ValueError):
            value: Any = given(bind, kind)
            return None if value is None else literal(value)
    text = given(bind, "text")
    if not isinstance(text, str) or not text.startswith("{"):
        raise ValueError(f"{bind}: give an array, as JSON")
    return text


async def _explained(connection: asyncpg.Connection, name: str, asked: Question) -> Explained:
    resource, statement, given = asked.resource, asked.statement, asked.given
    types: list[str] = await connection.fetchval(
        "SELECT parameter_types::text[] FROM pg_prepared_statements WHERE name = $1", name
    )
    samples = {} if resource is None else resource.samples
    parameters: list[Parameter] = []
    values: list[str] = []
    for bind, kind in zip(statement.names, types, strict=True):
        if bind in given and bind in statement.as_text:
            value = _array_text(bind, given[bind], statement.as_text[bind])
        elif bind in given:
            value = given[bind](bind, kind)
        else:
            field = statement.arrays.get(bind, bind).removeprefix("new_")
            value = arguments.example(kind, samples.get(bind, samples.get(field)))
            if bind in statement.as_text:
                literal = statement.as_text[bind]
                # A boolean may be 1, too.
                kind_of = "text" if literal is of_texts else "integer"
                value = literal([arguments.example(kind_of, samples.get(field))])
        values.append(await _bind(connection, len(values), bind, kind, value))
        parameters.append(Parameter(bind, kind, arguments.shown(kind, value), given=bind in given))
    execute = f"EXECUTE {name}" + (f"({', '.join(values)})" if values else "")
    await _choose(connection, asked, execute)
    before = await _generic_plans(connection, name)
    options = [f"FORMAT {asked.format}"]
    if asked.analyze:
        options += ["ANALYZE", "BUFFERS", *(["WAL"] if statement.writes else [])]
    records = await connection.fetch(f"EXPLAIN ({', '.join(options)}) {execute}")
    generic = await _generic_plans(connection, name) > before
    return Explained(
        statement.name,
        statement.sql,
        changes(statement),
        asked.analyze,
        "generic" if generic else "custom",
        parameters,
        await _notes(connection, statement, analyze=asked.analyze),
        [record[0] for record in records] if asked.format == "text" else [],
        msgspec.json.decode(records[0][0])[0] if asked.format == "json" else None,
    )


async def _bind(
    connection: asyncpg.Connection, place: int, name: str, kind: str, value: object
) -> str:
    """Send a value as the service does, as an argument of its type, and keep it in a setting.

    EXECUTE takes expressions but no arguments. So no value is ever a part of the SQL text.

    Returns:
        The expression that returns the value.

    Raises:
        ValueError: the value is out of the range of its type.
    """
    if value is None:
        return f"NULL::{kind}"
    inner = kind.removesuffix("[]")
    known = inner in arguments.KINDS or kind in arguments.DOCUMENTS
    argument = f"$1::{kind}" if known or kind.endswith("[]") else f"$1::text::{kind}"
    setting = f"explained.argument_{place}"
    try:
        await connection.fetchval(
            f"SELECT set_config('{setting}', ({argument})::text, true)", value
        )
    except (ValueError, asyncpg.DataError) as error:  # by asyncpg before it is sent, or PostgreSQL
        reason = str(error).partition("\n")[0].rpartition("argument $1: ")[2]
        raise ValueError(f"{name} must be {kind}: {reason}") from None
    return f"current_setting('{setting}')::{kind}"


async def _choose(connection: asyncpg.Connection, asked: Question, execute: str) -> None:
    """Let PostgreSQL choose the kind of plan; by default as for a connection of the pool."""
    if asked.plan == "auto" and not asked.statement.by_values:
        for _ in range(RUNS):
            await connection.execute(f"EXPLAIN {execute}")
        return
    mode = "generic" if asked.plan == "generic" else "custom"
    await connection.execute(f"SET LOCAL plan_cache_mode = force_{mode}_plan")


async def _generic_plans(connection: asyncpg.Connection, name: str) -> int:
    found: int = await connection.fetchval(
        "SELECT generic_plans FROM pg_prepared_statements WHERE name = $1", name
    )
    return found


async def _notes(
    connection: asyncpg.Connection, statement: Statement[Any], *, analyze: bool
) -> list[str]:
    if not analyze:
        return []
    if not changes(statement):
        return ["it ran in a read-only transaction"]
    found = ["it ran with its triggers in a transaction that was rolled back: nothing was changed"]
    tables = [inserted or drawn for inserted, drawn in _INSERTS.findall(statement.sql)]
    numbered = [record[0] for record in await connection.fetch(_IDENTITIES, tables)]
    if numbered:
        found.append(
            f"ids that it took are not given back: those of {', '.join(numbered)} have a gap now"
        )
    return found
