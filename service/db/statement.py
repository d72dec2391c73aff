"""Statements: SQLAlchemy Core compiled once, at import, to the SQL that asyncpg runs.

A statement that would run wrongly is refused here, when its module is imported, because the
compiled text skips SQLAlchemy's own execution: no defaults are filled in, no parameter list is
expanded, no value is converted.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Generic, Protocol, TypeVar

import asyncpg
from msgspec import Struct
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    CompoundSelect,
    FromClause,
    Select,
    Table,
    TextualSelect,
    bindparam,
    func,
    literal_column,
    select,
)
from sqlalchemy.dialects.postgresql import asyncpg as dialects
from sqlalchemy.sql.dml import UpdateBase

Row = TypeVar("Row")

# The name may be quoted, or have a schema before it.
_INSERT = re.compile(r"INSERT INTO [^(]+ \(id, [^)]*\)")


class Compiler(dialects.PGCompiler_asyncpg):
    """Remembers the tables: to find them in each tree took 3 % of a start's CPU."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.tables: set[str] = set()
        super().__init__(*args, **options)

    def visit_table(self, table: Any, *args: Any, **options: Any) -> Any:
        self.tables.add(table.name)
        return super().visit_table(table, *args, **options)  # type: ignore[no-untyped-call]

    def visit_insert(self, insert_stmt: Any, *args: Any, **options: Any) -> Any:
        self.tables.add(insert_stmt.table.name)
        return super().visit_insert(insert_stmt, *args, **options)  # type: ignore[no-untyped-call]


DIALECT = dialects.dialect(dbapi=dialects.dialect.import_dbapi())  # type: ignore[no-untyped-call]  # SQLAlchemy leaves both untyped
DIALECT.statement_compiler = Compiler
DIALECT.server_version_info = (15, 0)  # the oldest supported; normally taken from a connection


class Runner(Protocol):
    """Runs a statement with its arguments in order: a Database, or a DedicatedConnection."""

    def fetch(
        self, statement: "Statement[Any]", args: Sequence[object]
    ) -> Awaitable[list[asyncpg.Record]]: ...


class RefusedError(TypeError):
    """A statement that would run wrongly; the message says what to do instead."""


class UnannouncedWriteError(TypeError):
    """A statement that writes was run without a Writer, so no cache would be invalidated."""

    def __init__(self, statement: "Statement[Any]") -> None:
        super().__init__(
            f"{statement.name} writes: run it with `request.write` in a handler, elsewhere with"
            " `Writer(db).run`, so that the caches are invalidated"
        )


class Statement(Generic[Row]):
    """SQL text, the order of its arguments, and the type of a row.

    Args:
        name: `<slice>.<what>`, unique; the label in logs, timings and the listing.
        row: called with a record's values by position; a Struct's fields must be the selected
            columns in their order.
        core: a Core statement in which every value is a named `bindparam`.
        order: the arguments in order, if `get` or `only` is called with them by position.
        extra: selected columns after those of the row; only `records` returns them.
        prepare: whether it is prepared when the pool opens, which checks the schema.
        arrays: the field whose values an argument holds, by the argument's name.
        as_text: by the argument's name, what makes its text of these values; see arrays.py.
        numbered: whether its INSERT sets the ids, from `next_id`.
        by_values: whether PostgreSQL plans it at each use, for its values; else it may choose one
            plan for all values.

    Raises:
        RefusedError: at import, see the module's docstring.
    """

    __slots__ = (
        "arrays",
        "as_text",
        "by_values",
        "name",
        "names",
        "prepare",
        "removes",
        "row",
        "sql",
        "width",
        "writes",
    )

    def __init__(  # noqa: PLR0913 - each is a property of a statement; most have a default
        self,
        name: str,
        row: Callable[..., Row],
        core: Select[Any] | CompoundSelect[Any] | TextualSelect | UpdateBase,
        *,
        order: tuple[str, ...] | None = None,
        extra: tuple[str, ...] = (),
        arrays: Mapping[str, str] = MappingProxyType({}),
        as_text: Mapping[str, Callable[[list[Any]], str]] = MappingProxyType({}),
        prepare: bool = True,
        numbered: bool = False,
        by_values: bool = False,
    ) -> None:
        compiled = core.compile(dialect=DIALECT)
        assert isinstance(compiled, Compiler)  # noqa: S101 - narrows what compile() is typed as
        _refuse(name, compiled)
        self.name = name
        self.sql = str(compiled)
        if numbered:
            self.sql = _overriding(name, self.sql)
        self.names = tuple(compiled.positiontup or ())
        self.arrays = arrays
        self.as_text = as_text
        self.row = row
        self.prepare = prepare
        self.by_values = by_values
        # PostgreSQL takes a write at the top or in WITH, nowhere else.
        every = (core, *(cte.element for cte in compiled.ctes or ()))
        parts = [part for part in every if isinstance(part, UpdateBase)]
        self.writes = bool(parts)
        self.removes = any(part.is_delete for part in parts)
        selected = tuple(core.exported_columns.keys())
        self.width = len(selected) - len(extra)
        if isinstance(row, type) and issubclass(row, Struct):
            expected = (*row.__struct_fields__, *extra)
            if expected != selected:
                raise RefusedError(
                    f"{name}: {row.__name__} wants {expected}, selected are {selected}"
                )
        if order is not None and order != self.names:
            raise RefusedError(f"{name}: called with {order}, its arguments are {self.names}")

    async def get(self, db: Runner, *args: object) -> Row | None:
        """The row, or None; arguments by position in the order that `order` pinned."""
        records = await db.fetch(self, args)
        return self.row(*records[0]) if records else None

    async def only(self, db: Runner, *args: object) -> Row:
        """The row of a statement that always returns one; arguments as `get`."""
        records = await db.fetch(self, args)
        return self.row(*records[0])

    async def one(self, db: Runner, /, **values: object) -> Row | None:
        """The row, or None; arguments by name."""
        records = await self.records(db, **values)
        return self.row(*records[0]) if records else None

    async def records(self, db: Runner, /, **values: object) -> list[asyncpg.Record]:
        """Every record with the extra columns; arguments by name."""
        return await db.fetch(self, [values[name] for name in self.names])


def columns(row: type[Struct], table: FromClause) -> list[ColumnElement[Any]]:
    """The columns of a Struct, in the order of its fields: what to select and return."""
    return [table.c[field] for field in row.__struct_fields__]


def binds(row: type[Struct], table: Table) -> dict[str, ColumnElement[Any]]:
    """Values for INSERT: each field of the Struct as a bind of the same name."""
    return {name: bindparam(name, type_=table.c[name].type) for name in row.__struct_fields__}


def next_id(table: Table) -> ColumnElement[int]:
    """The next id of a table, for rows that are not inserted in the order of their ids.

    A subquery, so that the sequence is looked up once per statement and not for each row.
    """
    sequence: ColumnElement[Any] = literal_column(f"{sequence_of(table)}::regclass")
    found = select(sequence.label("sequence")).scalar_subquery()
    return func.nextval(found, type_=BigInteger)


def sequence_of(table: Table) -> str:
    """The SQL that gives the name of the sequence behind the ids, whatever it is called."""
    return "pg_get_serial_sequence('{}', 'id')".format(quoted(table).replace("'", "''"))


def quoted(table: Table) -> str:
    """The name of a table in SQL, with its schema if it has one."""
    name: str = DIALECT.identifier_preparer.format_table(table)
    return name


def _overriding(name: str, sql: str) -> str:
    """The INSERT with OVERRIDING SYSTEM VALUE, for which SQLAlchemy has no construct."""
    changed, count = _INSERT.subn(r"\g<0> OVERRIDING SYSTEM VALUE", sql)
    if count != 1:
        raise RefusedError(
            f"{name}: numbered, so exactly one INSERT must give the id as its first column;"
            f" {count} do"
        )
    return changed


def _refuse(name: str, compiled: Compiler) -> None:
    if compiled.post_compile_params or compiled.literal_execute_params:
        raise RefusedError(
            f"{name}: expanding IN or literal_execute; use = ANY(array) or a literal"
        )
    if compiled.insert_prefetch or compiled.update_prefetch:
        raise RefusedError(
            f"{name}: a Python-side default would be NULL; use server_default or a bind"
        )
    unnamed = sorted(
        compiled.bind_names[bind] for bind in compiled.binds.values() if not bind.required
    )
    if unnamed:
        raise RefusedError(f"{name}: a value is in the statement ({unnamed}); bind it by name")
    if shadowed := {cte.name for cte in compiled.ctes or ()} & compiled.tables:
        raise RefusedError(f"{name}: a WITH query has the name of a table, {sorted(shadowed)}")
    if isinstance(compiled.statement, UpdateBase) and compiled.isinsert:
        table = compiled.statement.table
        if isinstance(table, Table) and set(compiled.positiontup or ()) >= set(table.c.keys()):
            raise RefusedError(
                f"{name}: INSERT binds every column, the identity too; give .values()"
            )
