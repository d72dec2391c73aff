"""What the schema of every application has: the totals, the functions and triggers of its tables.

The tables themselves are given: an application names them through its resources.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from sqlalchemy import BigInteger, Column, MetaData, PrimaryKeyConstraint, Text
from sqlalchemy import Table as Table  # noqa: PLC0414 - for rooms that only name it in types
from sqlalchemy.schema import sort_tables

from service.db import change_log, job_table
from service.db.names import CHANNEL, INTERNAL, SILENT
from service.db.quoting import literal, quoted
from service.db.shape import CONVENTION, shape_of

# Where tables are declared that refer to each other by name.
metadata = MetaData()

# `info` of a table whose rows are counted by triggers, so that a list knows its total at once.
COUNTED: Mapping[str, Any] = {"counted": True}
# The column of a soft delete, if a table does not say otherwise: its active rows are counted too.
ACTIVE = CONVENTION["active"][0]
Tables = Collection[Table]
# An index that a database may lack: it needs an extension. `swiftlet migrate` says how to add it.
OPTIONAL = {"optional": True}


def trigrams(*names: str) -> dict[str, Any]:
    """What makes an Index one of trigrams, over expressions that are labelled so."""
    operators = dict.fromkeys(names, "gin_trgm_ops")
    return {"postgresql_using": "gin", "postgresql_ops": operators, "info": OPTIONAL}


# How many rows a table has, and how many of them are active: the sum over its slots. Only one
# transaction at a time uses a slot, so that no writer waits for another. A reader adds up all slots
# in its own snapshot, so the total is exact whatever else commits, rolls back or crashes.
totals = Table(
    "totals",
    metadata,
    Column("name", Text, nullable=False),
    Column("slot", BigInteger, nullable=False),
    Column("total", BigInteger, nullable=False),
    Column("active", BigInteger, nullable=False),
    PrimaryKeyConstraint("name", "slot", name="totals_pkey"),
    info=INTERNAL,
)

# Every writer updates the totals, by one call per statement however many rows it has. The change
# goes to the lowest slot that no other transaction holds. Two kinds of writers use a slot of their
# own, named by the transaction: the seventeenth at a time, and one whose snapshot is older than the
# slots (its update would fail). Now and then such slots are added to slot 0. An advisory lock costs
# a tenth of FOR UPDATE SKIP LOCKED.
# TRUNCATE removes rows that an old snapshot does not see, and so would leave wrong totals. It is
# refused unless the snapshot is surely the newest, with no transaction before or after it.
# It runs with its owner's rights, so that a role that may write items needs none on the totals. So
# names in it are looked up only where other roles can't create objects, and other roles can't use
# it in a trigger of their own.
KEEP_TOTALS = """
CREATE OR REPLACE FUNCTION keep_totals() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    more bigint := 0;
    more_active bigint := 0;
    place bigint;
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        IF current_setting('transaction_isolation') <> 'read committed' THEN
            place := pg_current_xact_id()::text::bigint;
            IF pg_snapshot_xmin(pg_current_snapshot())::text::bigint = place
                AND pg_snapshot_xmax(pg_current_snapshot())::text::bigint = place
            THEN
                BEGIN
                    PERFORM pg_xact_status((place + 1)::text::xid8);
                    place := 0;
                EXCEPTION WHEN invalid_parameter_value THEN
                    NULL;
                END;
            ELSE
                place := 0;
            END IF;
            IF place = 0 THEN
                RAISE serialization_failure USING MESSAGE =
                    'to TRUNCATE ' || TG_TABLE_NAME || ' while others write needs READ COMMITTED';
            END IF;
        END IF;
        DELETE FROM {schema}.totals WHERE name = TG_TABLE_NAME;
        RETURN NULL;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        SELECT count(*), ACTIVE_ROWS INTO more, more_active FROM come;
    END IF;
    IF TG_OP <> 'INSERT' THEN
        SELECT more - count(*), more_active - ACTIVE_ROWS
        INTO more, more_active FROM gone;
    END IF;
    IF more = 0 AND more_active = 0 THEN
        RETURN NULL;
    END IF;
    place := 16 + pg_current_xact_id()::text::bigint;
    IF current_setting('transaction_isolation') = 'read committed' THEN
        FOR n IN 0..15 LOOP
            IF pg_try_advisory_xact_lock(TG_RELID::integer, n) THEN
                place := n;
                EXIT;
            END IF;
        END LOOP;
    END IF;
    IF place = 0 AND random() < 0.02 THEN
        WITH surplus AS (
            DELETE FROM {schema}.totals WHERE name = TG_TABLE_NAME AND slot >= 16
            RETURNING total, active
        )
        SELECT more + coalesce(sum(total), 0), more_active + coalesce(sum(active), 0)
        INTO more, more_active FROM surplus;
    END IF;
    INSERT INTO {schema}.totals AS kept VALUES (TG_TABLE_NAME, place, more, more_active)
    ON CONFLICT (name, slot) DO UPDATE
    SET total = kept.total + excluded.total, active = kept.active + excluded.active;
    RETURN NULL;
END $$
"""

# Corrects the totals after writes without the triggers; writers wait for it, and caches are
# invalidated. An empty table has no totals, so that a dump with rows and totals can be restored.
RECOUNT_TOTALS = """
CREATE OR REPLACE FUNCTION recount_totals() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    LOCK TABLE {locked} IN SHARE ROW EXCLUSIVE MODE;
    DELETE FROM {{schema}}.totals;
    INSERT INTO {{schema}}.totals
{counted};
    PERFORM pg_notify('CHANNEL', 'totals');
END $$
""".replace("CHANNEL", CHANNEL)
RECOUNT_ONE = """\
    SELECT {table}, 0, count(*), {active}
    FROM {{schema}}.{on} HAVING count(*) > 0"""

WAYS = ("inserted", "updated", "deleted", "truncated")
TOTALS_TRIGGERS = """
CREATE TRIGGER {inserted} AFTER INSERT ON {on}
    REFERENCING NEW TABLE AS come FOR EACH STATEMENT EXECUTE FUNCTION {keeper}();
CREATE TRIGGER {updated} AFTER UPDATE ON {on}
    REFERENCING OLD TABLE AS gone NEW TABLE AS come
    FOR EACH STATEMENT EXECUTE FUNCTION {keeper}();
CREATE TRIGGER {deleted} AFTER DELETE ON {on}
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION {keeper}();
CREATE TRIGGER {truncated} AFTER TRUNCATE ON {on}
    FOR EACH STATEMENT EXECUTE FUNCTION {keeper}()
"""

# Writes by other programs, as psql and migrations, are reported to the caches. The service's own
# connections, known by their name, use Redis instead: NOTIFY takes a lock that all committing
# transactions share.
TELL_WRITES = f"""
CREATE FUNCTION tell_writes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('{CHANNEL}', TG_TABLE_NAME);
    RETURN NULL;
END $$
"""

WRITES_TRIGGER = f"""
CREATE TRIGGER {{told}} AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON {{on}}
    FOR EACH STATEMENT WHEN (current_setting('application_name') <> '{SILENT}')
    EXECUTE FUNCTION tell_writes()
"""


def with_internal(tables: Iterable[Table]) -> tuple[Table, ...]:
    """All tables of an application: those given, what they refer to, the totals and the changes.

    A table comes after those that it refers to.

    Raises:
        ValueError: two tables have one name.
    """
    found: dict[str, Table] = {}
    waiting = list(tables)
    while waiting:
        one = waiting.pop()
        if one.name not in found:
            waiting += [key.column.table for key in one.foreign_keys]
        if found.setdefault(one.name, one) is not one:
            raise ValueError(f"two tables are named {one.name}")
    if counted(found.values()):
        found[totals.name] = totals
    if change_log.logged(found.values()):
        found |= {one.name: one for one in change_log.TABLES}
    return tuple(sort_tables([found[name] for name in sorted(found)]))


def counted(tables: Tables) -> list[Table]:
    """The tables whose rows are counted in the totals, by name."""
    return sorted((one for one in tables if one.info.get("counted")), key=lambda one: one.name)


def active_rows(table: Table) -> str:
    """SQL of how many rows are active, as an aggregate; 0 for a table that does not tell."""
    active = shape_of(table).active
    return "0" if active is None else f"count(*) FILTER (WHERE {quoted(active.name)})"


def functions(tables: Tables) -> list[str]:
    """The SQL that creates the functions; `{schema}` in it is the schema of the tables."""
    return [
        *_totals_functions(tables),
        TELL_WRITES,
        *job_table.functions(tables),
        *change_log.functions(tables),
    ]


def _totals_functions(tables: Tables) -> list[str]:
    these = counted(tables)
    if not these:
        return []
    recount = RECOUNT_TOTALS.format(
        locked=", ".join(f"{{schema}}.{quoted(one.name)}" for one in these),
        counted="\n    UNION ALL\n".join(
            RECOUNT_ONE.format(
                table=literal(one.name), active=active_rows(one), on=quoted(one.name)
            )
            for one in these
        ),
    )
    keepers = {
        _keeper(one): KEEP_TOTALS.replace("keep_totals", quoted(_keeper(one))).replace(
            "ACTIVE_ROWS", active_rows(one)
        )
        for one in these
    }
    return [*(keepers[name] for name in sorted(keepers)), recount]


def triggers(tables: Tables) -> list[str]:
    """The SQL that creates the triggers; every table but the totals reports writes by others."""
    return [
        *(
            TOTALS_TRIGGERS.format(
                **{way: quoted(f"{one.name}_{way}") for way in WAYS},
                on=quoted(one.name),
                keeper=quoted(_keeper(one)),
            )
            for one in counted(tables)
        ),
        *(
            WRITES_TRIGGER.format(told=quoted(f"{one.name}_told"), on=quoted(one.name))
            for one in tables
            if not one.info.get("internal")
        ),
        *job_table.triggers(tables),
        *change_log.triggers(tables),
    ]


def _keeper(table: Table) -> str:
    """The name of the function that counts a table, by the column of its soft delete."""
    active = shape_of(table).active
    if active is None:
        return "keep_row_totals"
    return "keep_totals" if active.name == ACTIVE else f"keep_totals_by_{active.name}"
