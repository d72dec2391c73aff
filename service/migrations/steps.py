"""Compute the statements from one snapshot of a schema to another, in a valid order."""

from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import NamedTuple

from service.db.access import DatabaseError
from service.migrations.snapshot import Column, Constraint, Snapshot, Table

# Part of the definition of an index that needs pg_trgm.
OPTIONAL = "gin_trgm_ops"
GUARDED = """\
DO $$
BEGIN
    IF EXISTS (
        SELECT FROM pg_opclass WHERE opcname = 'gin_trgm_ops' AND pg_opclass_is_visible(oid)
    ) THEN
        {index};
    END IF;
END
$$"""
# Whatever refuses it (the programs, the rights, a provider's list), searches work without.
EXTENSION = """\
DO $$
BEGIN
    CREATE EXTENSION IF NOT EXISTS pg_trgm;
EXCEPTION
    WHEN OTHERS THEN
        RAISE NOTICE 'no pg_trgm, searches read every row: %', SQLERRM;
END
$$"""
# In a function with its owner's rights: no other role may use it in a trigger of its own.
DEFINER = "RETURNS trigger\n LANGUAGE plpgsql\n SECURITY DEFINER"
CHANGES = "change_log"
# The default takes five times as long, more than all else of an entry; not every build has lz4.
COMPRESSED = """\
DO $$
BEGIN
    IF 'lz4' = ANY (
        ARRAY(SELECT unnest(enumvals) FROM pg_settings WHERE name = 'default_toast_compression')
    ) THEN
        ALTER TABLE change_log ALTER COLUMN rows SET COMPRESSION lz4;
    END IF;
END
$$"""
TOTALS = "totals"
COUNTS = "EXECUTE FUNCTION keep_"


class StepsError(DatabaseError):
    """A change must be written by hand; the message says which."""


class Step(NamedTuple):
    """A statement; `note` says what the author of the migration must check."""

    sql: str
    note: str = ""


Steps = Iterator[Step]


# Each table of the new snapshot by name, with its old state; a new table has the state NOTHING.
Pairs = list[tuple[str, Table, Table]]
NOTHING = Table(())


def steps(old: Snapshot, new: Snapshot) -> Steps:
    """Return the statements from `old` to `new`: drop dependent parts first, create them last.

    Raises:
        StepsError: a change must be written by hand.
    """
    pairs = [(name, old.tables.get(name, NOTHING), table) for name, table in new.tables.items()]
    yield from _drop_parts(pairs)
    yield from _drop_tables(
        {name: table for name, table in old.tables.items() if name not in new.tables}
    )
    for function in old.functions:
        if function not in new.functions:
            yield Step(f"DROP FUNCTION {function}")
    for name, before, after in pairs:
        yield from _create(name, after) if before is NOTHING else _change(name, before, after)
    yield from _make_parts(pairs)
    for function in _changed(new.functions, old.functions):
        yield Step(new.functions[function])
        if function not in old.functions and DEFINER in new.functions[function]:
            yield Step(f"REVOKE EXECUTE ON FUNCTION {function} FROM PUBLIC")
    yield from _make_triggers(pairs, totals=TOTALS in new.tables)


def _drop_parts(pairs: Pairs) -> Steps:
    for name, before, after in pairs:
        for trigger in _changed(before.triggers, after.triggers):
            yield Step(f"DROP TRIGGER {trigger} ON {name}")
    # A foreign key depends on the unique constraint or index that it references.
    for name, before, after in pairs:
        yield from _drop_constraints(name, before, after, foreign=True)
    for _, before, after in pairs:
        for index in _changed(before.indexes, after.indexes):
            yield drop_index(index, before.indexes[index])
    for name, before, after in pairs:
        yield from _drop_constraints(name, before, after, foreign=False)


def _make_parts(pairs: Pairs) -> Steps:
    for name, before, after in pairs:
        if before is not NOTHING:  # for a new table CREATE TABLE has them
            yield from _add_constraints(name, before, after, foreign=False)
    # Before foreign keys, which may reference a unique index.
    for _, before, after in pairs:
        for index in _changed(after.indexes, before.indexes):
            yield make_index(after.indexes[index])
    for name, before, after in pairs:
        yield from _add_constraints(name, before, after, foreign=True)


def _make_triggers(pairs: Pairs, *, totals: bool) -> Steps:
    for name, before, after in pairs:
        for trigger in _changed(after.triggers, before.triggers):
            yield Step(after.triggers[trigger])
        if _counted(after) and not _counted(before) and before is not NOTHING:
            yield Step("SELECT recount_totals()")
        elif _counted(before) and not _counted(after) and totals:
            yield Step(_forget(name))


def make_index(definition: str) -> Step:
    """Return CREATE INDEX; an optional one only if the database has the extension."""
    if OPTIONAL in definition:
        return Step(GUARDED.format(index=definition))
    unique = definition.startswith("CREATE UNIQUE")
    return Step(definition, "It fails where two rows have the same values." if unique else "")


def drop_index(name: str, definition: str) -> Step:
    """Return DROP INDEX; with IF EXISTS for an optional index."""
    return Step(f"DROP INDEX {'IF EXISTS ' if OPTIONAL in definition else ''}{name}")


def _changed(these: Mapping[str, object], others: Mapping[str, object]) -> list[str]:
    """Return names that the others lack or define differently."""
    return [name for name, one in these.items() if others.get(name) != one]


def _drop_tables(gone: dict[str, Table]) -> Steps:
    refers = {
        name: {
            constraint.refers
            for constraint in table.constraints.values()
            if constraint.refers in gone and constraint.refers != name
        }
        for name, table in gone.items()
    }
    try:
        order = list(TopologicalSorter(refers).static_order())
    except CycleError:
        raise StepsError(
            f"the tables {', '.join(sorted(gone))} refer to each other: drop them by hand"
        ) from None
    for name in reversed(order):
        yield Step(f"DROP TABLE {name}", f"The rows of {name} are lost.")
        if _counted(gone[name]) and TOTALS not in gone:
            yield Step(_forget(name))


def _create(name: str, table: Table) -> Steps:
    parts = [f"    {column} {told.definition()}" for column, told in table.columns.items()]
    parts += [
        f"    CONSTRAINT {constraint} {told.definition}"
        for constraint, told in table.constraints.items()
        if told.kind != "f"
    ]
    columns = ",\n".join(parts)
    options = f" WITH ({_options(table.options)})" if table.options else ""
    yield Step(f"CREATE TABLE {name} (\n{columns}\n){options}")
    if name == CHANGES:
        yield Step(COMPRESSED)


def _change(name: str, before: Table, after: Table) -> Steps:
    alter = f"ALTER TABLE {name}"
    come = {column: told for column, told in after.columns.items() if column not in before.columns}
    for column, told in before.columns.items():
        if column not in after.columns:
            note = f"The values of {name}.{column} are lost."
            for other in (other for other, new in come.items() if new.type == told.type):
                note += f" If it is now {other}, write RENAME COLUMN instead."
            yield Step(f"{alter} DROP COLUMN {column}", note)
    for column, told in come.items():
        filled = told.default or told.identity or told.generated or told.serial
        yield Step(
            f"{alter} ADD COLUMN {column} {told.definition()}",
            "It fails where the table has rows: add it without NOT NULL, fill it, SET NOT NULL."
            if told.not_null and not filled
            else "",
        )
    for column in _changed(after.columns, before.columns):
        if column in before.columns:
            yield from _change_column(name, column, before.columns[column], after.columns[column])
    if changed := _changed(after.options, before.options):
        chosen = _options({option: after.options[option] for option in changed})
        yield Step(f"{alter} SET ({chosen})")
    if reset := [option for option in before.options if option not in after.options]:
        yield Step(f"{alter} RESET ({', '.join(reset)})")


def _change_column(table: str, name: str, old: Column, new: Column) -> Steps:
    """Change a column; drop a default or identity first, which could prevent a change of type."""
    alter = f"ALTER TABLE {table} ALTER COLUMN {name}"
    if old.serial != new.serial:
        raise StepsError(f"{table}.{name}: adding or removing a sequence must be written by hand")
    if new.generated != old.generated:
        if new.generated is not None:
            yield Step(f"ALTER TABLE {table} DROP COLUMN {name}", "The values are computed again.")
            yield Step(f"ALTER TABLE {table} ADD COLUMN {name} {new.definition()}")
            return
        yield Step(f"{alter} DROP EXPRESSION")
    retyped = (old.type, old.collation) != (new.type, new.collation)
    if old.default and (retyped or not new.default):
        yield Step(f"{alter} DROP DEFAULT")
    if retyped:
        collation = f" COLLATE {new.collation}" if new.collation else ""
        yield Step(
            f"{alter} TYPE {new.type}{collation} USING {name}::{new.type}",
            f"Is the cast from {old.type} right for each value? The table is locked until it ends.",
        )
    again = new.identity is not None and old.sequence != new.sequence
    if old.identity and (again or not new.identity):
        yield Step(f"{alter} DROP IDENTITY")
    if new.not_null and not old.not_null:
        yield Step(f"{alter} SET NOT NULL", "It fails where a row has no value: fill it before.")
    if old.not_null and not new.not_null:
        yield Step(f"{alter} DROP NOT NULL")
    if new.identity and (again or not old.identity):
        yield Step(
            f"{alter} ADD {new.identity_definition()}",
            "The sequence starts again: move it after the existing values with setval().",
        )
    elif new.identity != old.identity and new.identity:
        yield Step(f"{alter} SET GENERATED {new.identity}")
    if new.default and (retyped or new.default != old.default) and not new.serial:
        yield Step(f"{alter} SET DEFAULT {new.default}")


def _drop_constraints(name: str, before: Table, after: Table, *, foreign: bool) -> Steps:
    for constraint in _changed(before.constraints, after.constraints):
        if (before.constraints[constraint].kind == "f") is foreign:
            yield Step(f"ALTER TABLE {name} DROP CONSTRAINT {constraint}")


def _add_constraints(name: str, before: Table, after: Table, *, foreign: bool) -> Steps:
    note = "It fails where a row breaks it." if before.columns else ""
    for constraint in _changed(after.constraints, before.constraints):
        told: Constraint = after.constraints[constraint]
        if (told.kind == "f") is foreign:
            yield Step(f"ALTER TABLE {name} ADD CONSTRAINT {constraint} {told.definition}", note)


def _options(options: Mapping[str, str]) -> str:
    return ", ".join(f"{name} = '{value}'" for name, value in options.items())


def _counted(table: Table) -> bool:
    return any(COUNTS in trigger for trigger in table.triggers.values())


def _forget(name: str) -> str:
    text = name.strip('"').replace('""', '"').replace("'", "''")
    return f"DELETE FROM totals WHERE name = '{text}'"  # noqa: S608 - a table of the schema
