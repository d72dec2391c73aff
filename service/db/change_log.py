"""The log of changes: what each statement changed, and the order in which transactions committed.

A trigger writes one entry per statement, with its rows as JSON, in the transaction of the change.
So the log has the changes of every writer. Its place in the order is only known at the commit: a
deferred trigger takes a lock there, and draws the next position. So positions grow in the order of
the commits, and no reader ever sees a position before a smaller one. A transaction that stays open
long holds the lock only while it commits.
"""

from collections.abc import Iterable

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Identity,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSON

from service.db.names import CHANGES_CHANNEL, INTERNAL
from service.db.quoting import quoted

# In `info` of a table whose changes are logged.
LOGGED = "logged"
metadata = MetaData()

change_log = Table(
    "change_log",
    metadata,
    Column("id", BigInteger, Identity(always=True), nullable=False),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    # At most 1,000 of them; see MOST.
    Column("rows", JSON, nullable=False),
    PrimaryKeyConstraint("id", name="change_log_pkey"),
    info=INTERNAL,
)
change_positions = Table(
    "change_positions",
    metadata,
    Column("position", BigInteger, Identity(always=True), nullable=False),
    Column("entry", BigInteger, nullable=False),
    Column(
        "committed_at",
        DateTime(timezone=True),
        nullable=False,
        server_default=text("clock_timestamp()"),
    ),
    PrimaryKeyConstraint("position", name="change_positions_pkey"),
    info=INTERNAL,
)
# One row: up to where the log was trimmed.
change_horizon = Table(
    "change_horizon",
    metadata,
    Column("id", Integer, nullable=False, server_default=text("1")),
    Column("position", BigInteger, nullable=False),
    PrimaryKeyConstraint("id", name="change_horizon_pkey"),
    CheckConstraint("id = 1", name="change_horizon_id_check"),
    info=INTERNAL,
)
TABLES = (change_log, change_positions, change_horizon)

# TRUNCATE has no transition table, so its rows are logged before it.
LOG_CHANGES = """
CREATE FUNCTION log_changes() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO {schema}.change_log (name, kind, rows)
        SELECT TG_TABLE_NAME, 'created', json_agg(one) FROM (
            SELECT come AS one, (row_number() OVER () - 1) / 1000 AS part FROM come
        ) AS parts GROUP BY part ORDER BY part;
    ELSIF TG_OP = 'UPDATE' THEN
        INSERT INTO {schema}.change_log (name, kind, rows)
        SELECT TG_TABLE_NAME, 'updated', json_agg(one) FROM (
            SELECT come AS one, (row_number() OVER () - 1) / 1000 AS part FROM come
        ) AS parts GROUP BY part ORDER BY part;
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO {schema}.change_log (name, kind, rows)
        SELECT TG_TABLE_NAME, 'deleted', json_agg(one) FROM (
            SELECT gone AS one, (row_number() OVER () - 1) / 1000 AS part FROM gone
        ) AS parts GROUP BY part ORDER BY part;
    ELSE
        EXECUTE format($q$
            INSERT INTO {schema}.change_log (name, kind, rows)
            SELECT %L, 'deleted', json_agg(one) FROM (
                SELECT t AS one, (row_number() OVER () - 1) / 1000 AS part FROM %I.%I AS t
            ) AS parts GROUP BY part ORDER BY part$q$,
            TG_TABLE_NAME, TG_TABLE_SCHEMA, TG_TABLE_NAME);
    END IF;
    RETURN NULL;
END $$
"""
ORDER_CHANGES = """
CREATE FUNCTION order_changes() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(TG_RELID::integer, 0);
    INSERT INTO {schema}.change_positions (entry) VALUES (NEW.id);
    PERFORM pg_notify('CHANNEL', '');
    RETURN NULL;
END $$
""".replace("CHANNEL", CHANGES_CHANNEL)
ORDER_TRIGGER = """
CREATE CONSTRAINT TRIGGER change_log_order AFTER INSERT ON change_log
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION order_changes()
"""
LOG_TRIGGERS = """
CREATE TRIGGER {created} AFTER INSERT ON {on} REFERENCING NEW TABLE AS come
    FOR EACH STATEMENT EXECUTE FUNCTION log_changes();
CREATE TRIGGER {updated} AFTER UPDATE ON {on} REFERENCING NEW TABLE AS come
    FOR EACH STATEMENT EXECUTE FUNCTION log_changes();
CREATE TRIGGER {deleted} AFTER DELETE ON {on} REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION log_changes();
CREATE TRIGGER {truncated} BEFORE TRUNCATE ON {on}
    FOR EACH STATEMENT EXECUTE FUNCTION log_changes()
"""
WAYS = ("created", "updated", "deleted", "truncated")


def logged(tables: Iterable[Table]) -> list[Table]:
    """The tables whose changes are logged."""
    return [one for one in tables if one.info.get(LOGGED)]


def functions(tables: Iterable[Table]) -> list[str]:
    """The SQL that creates the functions; `{schema}` in it is the schema of the tables."""
    return [LOG_CHANGES, ORDER_CHANGES] if logged(tables) else []


def triggers(tables: Iterable[Table]) -> list[str]:
    """The SQL that creates the triggers."""
    these = logged(tables)
    if not these:
        return []
    return [
        ORDER_TRIGGER,
        *(
            LOG_TRIGGERS.format(
                **{way: quoted(f"{one.name}_log_{way}") for way in WAYS}, on=quoted(one.name)
            )
            for one in these
        ),
    ]
