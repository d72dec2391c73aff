"""Describe a schema with PostgreSQL: tables, columns, constraints, indexes, triggers.

`swiftlet migrate check` compares two snapshots; `migrate new` writes the statements between them.
PostgreSQL writes each definition itself, so equal objects have equal definitions.
"""

import hashlib
import re
from collections.abc import Collection, Iterator
from typing import NamedTuple

import asyncpg
from sqlalchemy import Index
from sqlalchemy.schema import CreateIndex, CreateTable

from service.db.schema import Tables, functions, triggers
from service.db.statement import DIALECT

# Names are quoted if necessary, as in the definitions.
TABLES = """
SELECT quote_ident(relname), reloptions
FROM pg_class
WHERE relnamespace = $1::regnamespace AND relkind = 'r' AND relname <> 'alembic_version'
"""
COLUMNS = """
SELECT quote_ident(c.relname), quote_ident(a.attname), format_type(a.atttypid, a.atttypmod),
    CASE WHEN a.attcollation <> t.typcollation THEN quote_ident(l.collname) END,
    a.attnotnull, pg_get_expr(d.adbin, d.adrelid), a.attidentity::text, a.attgenerated::text,
    s.seqrelid IS NOT NULL,
    CASE WHEN a.attidentity <> '' THEN concat_ws(' ',
        CASE WHEN s.seqstart <> 1 THEN 'START WITH ' || s.seqstart END,
        CASE WHEN s.seqincrement <> 1 THEN 'INCREMENT BY ' || s.seqincrement END,
        CASE WHEN s.seqmin <> 1 THEN 'MINVALUE ' || s.seqmin END,
        CASE WHEN s.seqmax NOT IN (9223372036854775807, 2147483647, 32767)
            THEN 'MAXVALUE ' || s.seqmax END,
        CASE WHEN s.seqcache <> 1 THEN 'CACHE ' || s.seqcache END,
        CASE WHEN s.seqcycle THEN 'CYCLE' END) END
FROM pg_class c
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_collation l ON l.oid = a.attcollation
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
LEFT JOIN pg_sequence s ON s.seqrelid = pg_get_serial_sequence(
    format('%s.%I', c.relnamespace::regnamespace, c.relname), a.attname)::regclass
WHERE c.relnamespace = $1::regnamespace AND c.relkind = 'r' AND c.relname <> 'alembic_version'
ORDER BY c.relname, a.attnum
"""
CONSTRAINTS = """
SELECT quote_ident(c.relname), quote_ident(o.conname), o.contype::text,
    pg_get_constraintdef(o.oid), quote_ident(f.relname)
FROM pg_constraint o
JOIN pg_class c ON c.oid = o.conrelid
LEFT JOIN pg_class f ON f.oid = o.confrelid
WHERE o.connamespace = $1::regnamespace AND o.contype IN ('c', 'f', 'p', 'u', 'x')
    AND c.relname <> 'alembic_version'
ORDER BY c.relname, o.contype = 'c', o.conname
"""
# Without the indexes of constraints. An index is invalid after a failed CREATE INDEX CONCURRENTLY:
# writes maintain it, reads do not use it.
INDEXES = """
SELECT quote_ident(t.relname), quote_ident(c.relname), pg_get_indexdef(c.oid), i.indisvalid
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_class t ON t.oid = i.indrelid AND t.relkind = 'r'
WHERE c.relnamespace = $1::regnamespace
    AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = c.oid AND contype IN ('p', 'u', 'x'))
ORDER BY t.relname, c.relname
"""
FUNCTIONS = """
SELECT p.oid::regprocedure::text, pg_get_functiondef(p.oid)
FROM pg_proc p
JOIN pg_language l ON l.oid = p.prolang
WHERE p.pronamespace = $1::regnamespace AND l.lanname = 'plpgsql' AND NOT EXISTS (
    SELECT FROM pg_depend WHERE objid = p.oid AND deptype = 'e'
)
"""
TRIGGERS = """
SELECT quote_ident(c.relname), quote_ident(t.tgname), t.tgenabled::text, pg_get_triggerdef(t.oid)
FROM pg_trigger t
JOIN pg_class c ON c.oid = t.tgrelid
WHERE c.relnamespace = $1::regnamespace AND NOT t.tgisinternal
ORDER BY c.relname, t.tgname
"""


class Column(NamedTuple):
    """A column; missing properties are None."""

    type: str
    collation: str | None
    not_null: bool
    default: str | None
    identity: str | None  # ALWAYS or BY DEFAULT
    generated: str | None
    serial: bool  # it owns the sequence of its default
    sequence: str | None  # options of its identity's sequence that are not default

    def definition(self) -> str:
        """Return the definition as in CREATE TABLE, without the name."""
        kind = self.type
        if self.serial:
            kind = {"bigint": "bigserial", "integer": "serial", "smallint": "smallserial"}[kind]
        parts = [kind]
        if self.collation:
            parts.append(f"COLLATE {self.collation}")
        if self.identity:
            parts.append(self.identity_definition())
        if self.generated:
            parts.append(f"GENERATED ALWAYS AS ({self.generated}) STORED")
        if self.default and not self.serial:
            parts.append(f"DEFAULT {self.default}")
        if self.not_null and not self.serial:
            parts.append("NOT NULL")
        return " ".join(parts)

    def identity_definition(self) -> str:
        """Return GENERATED … AS IDENTITY."""
        options = f" ({self.sequence})" if self.sequence else ""
        return f"GENERATED {self.identity} AS IDENTITY{options}"


class Constraint(NamedTuple):
    """A constraint; `kind` is PostgreSQL's letter (c, f, p, u, x), `refers` the other table."""

    kind: str
    definition: str
    refers: str | None


class Table:
    """The parts of a table by name."""

    def __init__(self, options: Collection[str]) -> None:
        self.options: dict[str, str] = {
            name: value for name, _, value in (option.partition("=") for option in options)
        }
        self.columns: dict[str, Column] = {}
        self.constraints: dict[str, Constraint] = {}
        self.indexes: dict[str, str] = {}
        self.triggers: dict[str, str] = {}


class Snapshot:
    """Tables and functions by name; in functions, `{schema}` is a placeholder of the schema."""

    def __init__(self) -> None:
        self.tables: dict[str, Table] = {}
        self.functions: dict[str, str] = {}

    def lines(self) -> Iterator[str]:
        """Yield one line per part, for a readable comparison."""
        for name, table in self.tables.items():
            options = ", ".join(f"{option}={value}" for option, value in table.options.items())
            yield f"table {name}: {options or 'default options'}"
            for column, told in table.columns.items():
                yield f"column {name}.{column}: {told.definition()}"
            for constraint, (_, definition, _) in table.constraints.items():
                yield f"constraint {constraint}: {definition}"
            for index, definition in table.indexes.items():
                yield f"index {index}: {definition}"
            for trigger, definition in table.triggers.items():
                yield f"trigger {trigger}: {definition}"
        for function, definition in self.functions.items():
            yield f"function {function}: {hashlib.sha256(definition.encode()).hexdigest()[:12]}"


def differences(database: Snapshot, code: Snapshot) -> list[str]:
    """Return a line for each part that only one of the two has."""
    stands, wanted = set(database.lines()), set(code.lines())
    return [
        *(f"only in the database: {line}" for line in sorted(stands - wanted)),
        *(f"only in code: {line}" for line in sorted(wanted - stands)),
    ]


async def describe(connection: asyncpg.Connection, schema: str) -> Snapshot:
    """Describe a schema. It must be the first on the search path; else names would be qualified."""
    found = Snapshot()
    own = await connection.fetchval("SELECT quote_ident($1)", schema)

    def local(definition: str) -> str:
        # PostgreSQL writes the schema once into the definition of an index or a trigger.
        return re.sub(rf" ON (ONLY )?{re.escape(own)}\.", r" ON \1", definition, count=1)

    for name, options in await connection.fetch(TABLES, schema):
        found.tables[name] = Table(options or ())
    for name, column, kind, collation, not_null, default, *rest in await connection.fetch(
        COLUMNS, schema
    ):
        identity, generated, sequence, options = rest
        found.tables[name].columns[column] = Column(
            type=kind,
            collation=collation,
            not_null=not_null,
            default=None if generated else default,
            identity={"a": "ALWAYS", "d": "BY DEFAULT"}.get(identity),
            generated=default if generated else None,
            serial=sequence and not identity and (default or "").startswith("nextval("),
            sequence=options or None,
        )
    for name, constraint, *told in await connection.fetch(CONSTRAINTS, schema):
        found.tables[name].constraints[constraint] = Constraint(*told)
    for name, index, definition, valid in await connection.fetch(INDEXES, schema):
        text = local(definition)
        found.tables[name].indexes[index] = text if valid else f"{text} (invalid)"
    for name, trigger, enabled, definition in await connection.fetch(TRIGGERS, schema):
        text = local(definition)
        found.tables[name].triggers[trigger] = text if enabled == "O" else f"{text} ({enabled})"
    for function, definition in await connection.fetch(FUNCTIONS, schema):
        found.functions[function] = definition.replace(f"{own}.", "{schema}.")
    return found


async def describe_code(
    connection: asyncpg.Connection, tables: Tables, left_out: Collection[Index]
) -> Snapshot:
    """Describe the tables in code. The caller rolls the transaction back.

    They are created in a separate schema, which stays first on the search path.
    """
    await make_schema(connection, "as_in_code")
    for table in tables:
        await connection.execute(str(CreateTable(table).compile(dialect=DIALECT)))
        for index in sorted(table.indexes - set(left_out), key=lambda one: str(one.name)):
            await connection.execute(str(CreateIndex(index).compile(dialect=DIALECT)))
    for statement in (*functions(tables), *triggers(tables)):
        await connection.execute(statement.replace("{schema}", "as_in_code"))
    return await describe(connection, "as_in_code")


async def make_schema(connection: asyncpg.Connection, name: str) -> None:
    """Create a schema, and put it first on the search path for the rest of the transaction."""
    # The rest of the path stays, because pg_trgm may be in another schema.
    path = await connection.fetchval("SHOW search_path")
    await connection.execute(f"CREATE SCHEMA {name}")
    await connection.execute(f"SET LOCAL search_path TO {name}, {path}")
