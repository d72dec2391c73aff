"""What pg_stat_statements, an extension of PostgreSQL, has about our statements."""

import secrets
from collections.abc import Iterable, Mapping
from typing import Any

import asyncpg
import msgspec
from msgspec import Struct

from service.admin.catalogue import Sources, find, is_staging
from service.admin.slow import InDatabase
from service.db.statement import Statement

_SCHEMA = """
SELECT quote_ident(nspname) FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace
WHERE extname = 'pg_stat_statements'
"""
# One statement may have several entries: of several roles.
_FIGURES = """
SELECT queryid, sum(calls)::int8, sum(total_exec_time), max(max_exec_time), sum(rows)::int8,
  sum(shared_blks_hit)::int8, sum(shared_blks_read)::int8, sum(temp_blks_written)::int8,
  sum(wal_bytes)::int8
FROM {schema}.pg_stat_statements JOIN pg_database d ON d.oid = dbid
WHERE datname = current_database() AND queryid = ANY ($1) GROUP BY queryid
"""
ABSENT = "not installed: run CREATE EXTENSION pg_stat_statements"
NOT_LOADED = "not loaded: add pg_stat_statements to shared_preload_libraries and restart PostgreSQL"
NO_RIGHT = "the role may not read it: run GRANT pg_read_all_stats"
NO_IDS = "PostgreSQL computes no query ids: set compute_query_id = auto"


class Source(Struct, frozen=True):
    """Whether pg_stat_statements could be read; `detail` says why not, and what to do."""

    available: bool
    detail: str = ""


class QueryIds:
    """The numbers that PostgreSQL gives to our statements, each found out once.

    Args:
        sources: of the statements of the application.
    """

    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        self._ids: dict[str, int] = {}

    async def figures(
        self, connection: asyncpg.Connection, names: Iterable[str]
    ) -> tuple[Mapping[str, InDatabase], Source]:
        """Return the figures of statements, by their names.

        Args:
            connection: outside of a transaction. Close it afterwards.
            names: of the statements.

        Raises:
            asyncpg.PostgresError: for a reason that is not about the extension.
        """
        names = list(names)
        async with connection.transaction(readonly=True):
            schema: str | None = await connection.fetchval(_SCHEMA)
            if schema is None:
                return {}, Source(available=False, detail=ABSENT)
            # A plan for all values needs none of them.
            await connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")
            ids = {name: found for name in names if (found := await self._id(connection, name))}
            try:
                async with connection.transaction():
                    sql = _FIGURES.format(schema=schema)
                    records = await connection.fetch(sql, [*ids.values()])
            except asyncpg.ObjectNotInPrerequisiteStateError:
                return {}, Source(available=False, detail=NOT_LOADED)
            except asyncpg.InsufficientPrivilegeError:
                return {}, Source(available=False, detail=NO_RIGHT)
        if names and not ids:
            return {}, Source(available=False, detail=NO_IDS)
        rows = {record["queryid"]: _figures(record) for record in records}
        return (
            {name: rows[found] for name, found in ids.items() if found in rows},
            Source(available=True),
        )

    async def _id(self, connection: asyncpg.Connection, name: str) -> int | None:
        known = self._ids.get(name)
        if known is not None:
            return known
        try:
            resource, statement = find(self.sources, name)
        except KeyError:
            return None
        if is_staging(resource, statement):  # its table is another one each time
            return None
        found = await _query_id(connection, statement)
        if found is not None:
            self._ids[name] = found
        return found


async def _query_id(connection: asyncpg.Connection, statement: Statement[Any]) -> int | None:
    """Return the number of a statement; None if PostgreSQL computes none, or refuses it."""
    prepared = f"numbered_{secrets.token_hex(4)}"
    nulls = ", ".join(["NULL"] * len(statement.names))
    execute = f"EXECUTE {prepared}" + (f"({nulls})" if nulls else "")
    try:
        async with connection.transaction():
            await connection.execute(f"PREPARE {prepared} AS {statement.sql}")
    except asyncpg.PostgresError:
        return None
    try:
        async with connection.transaction():
            text = await connection.fetchval(f"EXPLAIN (VERBOSE, FORMAT JSON) {execute}")
    except asyncpg.PostgresError:
        return None
    finally:
        await connection.execute(f"DEALLOCATE {prepared}")
    plan: dict[str, Any] = msgspec.json.decode(text)[0]
    found: int | None = plan.get("Query Identifier")
    return found


def _figures(record: asyncpg.Record) -> InDatabase:
    _, calls, total, longest, *counts = record
    mean = total / calls if calls else 0.0
    return InDatabase(calls, round(total, 3), round(mean, 3), round(longest, 3), *counts)
