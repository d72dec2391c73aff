"""The log of changes: what each statement changed, and the order in which transactions committed.

A trigger writes one entry per statement, with its rows as JSON, in the transaction of the change.
So the log has the changes of every writer. Its place in the order is only known at the commit:
there a deferred trigger draws the next position. So a transaction that stays open long delays no
change of another one.

Commits don't wait for each other, so a change may become visible after one with a larger position.
Therefore a transaction holds a shared advisory lock from before it draws a position until it has
ended. `settled_changes` reads the last position that was drawn, waits until the transactions that
hold the lock then have ended, and returns it: up to there, no change becomes visible any more. A
reader reads only so far. See docs/decisions/change-log.md.
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

from service.db.names import CHANGES_CHANNEL, INTERNAL, SILENT
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
    Column("number", Integer, nullable=False),
    # A JSON array of so many rows; as text, so that its length is known without reading it.
    Column("rows", Text, nullable=False),
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
# One row, or none: the position of the last change that was trimmed.
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

# The position of a change is that of its entry times WIDTH, plus its index in the entry.
WIDTH = 1024
# Of one entry, so that a reader needs little memory; only a single row may have more bytes.
ROWS, BYTES = 1000, 1_000_000

# Each statement costs two small queries here. A statement with more rows or bytes than an entry may
# have is read row by row, so the memory is bounded. A row may be compressed, so its bytes are known
# only as JSON. TRUNCATE has no transition table, so its rows
# are read before it. The settings give values one form, whatever the session has set.
LOG_CHANGES = (
    """
CREATE FUNCTION log_changes() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET "TimeZone" = 'UTC'
SET extra_float_digits = 1 SET bytea_output = hex SET "IntervalStyle" = iso_8601 AS $$
#variable_conflict use_variable
DECLARE
    number bigint;
    bytes bigint;
    one text;
    parts text[] := '{}';
    source text := 'changed';
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        source := format('%I.%I', TG_TABLE_SCHEMA, TG_TABLE_NAME);
    ELSE
        SELECT count(*), sum(pg_column_size(t.*)) INTO number, bytes
        FROM (SELECT * FROM changed LIMIT MORE_THAN_ROWS) AS t;
        IF number = 0 THEN
            RETURN NULL;
        ELSIF number <= MOST_ROWS AND bytes <= MOST_BYTES THEN
            INSERT INTO {schema}.change_log (name, kind, number, rows)
            SELECT TG_TABLE_NAME, TG_ARGV[0], number, t.rows
            FROM (SELECT json_agg(t.*)::text AS rows FROM changed AS t) AS t
            WHERE octet_length(t.rows) <= MOST_BYTES;
            IF FOUND THEN
                RETURN NULL;
            END IF;
        END IF;
    END IF;
    bytes := 0;
    FOR one IN EXECUTE 'SELECT row_to_json(t.*)::text FROM ' || source || ' AS t' LOOP
        IF bytes > 0 AND
            (cardinality(parts) = MOST_ROWS OR bytes + octet_length(one) > MOST_BYTES)
        THEN
            INSERT INTO {schema}.change_log (name, kind, number, rows) VALUES (
                TG_TABLE_NAME, TG_ARGV[0], cardinality(parts),
                '[' || array_to_string(parts, ',') || ']'
            );
            parts := '{}';
            bytes := 0;
        END IF;
        parts := parts || one;
        bytes := bytes + octet_length(one);
    END LOOP;
    IF cardinality(parts) > 0 THEN
        INSERT INTO {schema}.change_log (name, kind, number, rows) VALUES (
            TG_TABLE_NAME, TG_ARGV[0], cardinality(parts),
            '[' || array_to_string(parts, ',') || ']'
        );
    END IF;
    RETURN NULL;
END $$
""".replace("MORE_THAN_ROWS", str(ROWS + 1))
    .replace("MOST_ROWS", str(ROWS))
    .replace("MOST_BYTES", str(BYTES))
)
# The lock comes before the position. A NOTIFY makes all commits of the server wait for each other,
# also while they write to disk, so the service sends its own after the commit (cache/writer.py).
ORDER_CHANGES = """
CREATE FUNCTION order_changes() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(TG_RELID::integer, 0);
    INSERT INTO {schema}.change_positions (entry) VALUES (NEW.id);
    IF current_setting('application_name') <> 'SILENT' THEN
        PERFORM pg_notify('CHANNEL', '');
    END IF;
    RETURN NULL;
END $$
""".replace("SILENT", SILENT).replace("CHANNEL", CHANGES_CHANNEL)
# Null if a transaction has held the lock for longer than commits take. The position is read before
# the locks: who draws one later has a larger one. PREPARE TRANSACTION would hand the lock on, but
# is not possible after NOTIFY.
SETTLED_CHANGES = """
CREATE FUNCTION settled_changes() RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    drawn bigint;
    committing text[];
BEGIN
    SELECT CASE WHEN is_called THEN last_value ELSE 0 END INTO drawn
    FROM {schema}.change_positions_position_seq;
    FOR attempt IN 0..200 LOOP
        committing := ARRAY(
            SELECT virtualtransaction FROM pg_locks
            WHERE locktype = 'advisory' AND objid = 0 AND objsubid = 2
                AND classid = '{schema}.change_log'::regclass
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                AND (attempt = 0 OR virtualtransaction = ANY (committing))
        );
        IF cardinality(committing) = 0 THEN
            RETURN drawn;
        END IF;
        PERFORM pg_sleep(0.001);
    END LOOP;
    RETURN NULL;
END $$
"""
# A restore of the data alone would fill the log with ids and positions that the triggers also give
# to the rows that it restores. So the log takes only what triggers write.
SKIP_CHANGES = """
CREATE FUNCTION skip_changes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RETURN NULL;
END $$
"""
SKIP_TRIGGERS = """
CREATE TRIGGER change_log_skip BEFORE INSERT ON change_log
    FOR EACH ROW WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION skip_changes();
CREATE TRIGGER change_positions_skip BEFORE INSERT ON change_positions
    FOR EACH ROW WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION skip_changes()
"""
ORDER_TRIGGER = """
CREATE CONSTRAINT TRIGGER change_log_order AFTER INSERT ON change_log
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION order_changes()
"""
LOG_TRIGGERS = """
CREATE TRIGGER {created} AFTER INSERT ON {on} REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION log_changes('created');
CREATE TRIGGER {updated} AFTER UPDATE ON {on} REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION log_changes('updated');
CREATE TRIGGER {deleted} AFTER DELETE ON {on} REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION log_changes('deleted');
CREATE TRIGGER {truncated} BEFORE TRUNCATE ON {on}
    FOR EACH STATEMENT EXECUTE FUNCTION log_changes('deleted')
"""
WAYS = ("created", "updated", "deleted", "truncated")


def logged(tables: Iterable[Table]) -> list[Table]:
    """The tables whose changes are logged."""
    return [one for one in tables if one.info.get(LOGGED)]


def functions(tables: Iterable[Table]) -> list[str]:
    """The SQL that creates the functions; `{schema}` in it is the schema of the tables."""
    return [LOG_CHANGES, ORDER_CHANGES, SETTLED_CHANGES, SKIP_CHANGES] if logged(tables) else []


def triggers(tables: Iterable[Table]) -> list[str]:
    """The SQL that creates the triggers."""
    these = logged(tables)
    if not these:
        return []
    return [ORDER_TRIGGER, SKIP_TRIGGERS, *map(log_triggers, these)]


def log_triggers(table: Table) -> str:
    """The SQL that creates the triggers of one table."""
    names = {way: quoted(f"{table.name}_log_{way}") for way in WAYS}
    return LOG_TRIGGERS.format(**names, on=quoted(table.name))
