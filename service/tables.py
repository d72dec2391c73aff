"""The schema's one truth in code: every table, index and constraint; Alembic compares it.

Constraints are named `<table>_<field>_<key|fkey|check>`: errors.py reads the field from the name.
Every index has a reader; tests/test_plans.py names it.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ColumnElement,
    DateTime,
    ForeignKeyConstraint,
    Identity,
    Index,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    collate,
    func,
    literal_column,
    text,
)
from sqlalchemy.dialects import postgresql

PREPARER = postgresql.dialect().identifier_preparer  # type: ignore[no-untyped-call]  # has none
metadata = MetaData()

# An index that a database may lack: it needs an extension. `swiftlet migrate` says how to add it.
OPTIONAL = {"optional": True}


def _trigrams(*names: str) -> dict[str, Any]:
    operators = dict.fromkeys(names, "gin_trgm_ops")
    return {"postgresql_using": "gin", "postgresql_ops": operators, "info": OPTIONAL}


# No price reaches this (the CHECK says so), so it can stand for "no price" in an order.
PRICE_LIMIT = "10000000000"

users = Table(
    "users",
    metadata,
    Column("id", BigInteger, Identity(always=True), nullable=False),
    Column("email", Text, nullable=False),
    Column("username", Text, nullable=False),
    Column("full_name", Text),
    Column("role", Text, nullable=False, server_default="user"),
    Column("is_active", Boolean, nullable=False, server_default=text("true")),
    Column("version", BigInteger, nullable=False, server_default=text("1")),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("updated_at", DateTime(timezone=True)),
    PrimaryKeyConstraint("id", name="users_pkey"),
    CheckConstraint("role IN ('user', 'admin')", name="users_role_check"),
    CheckConstraint("length(email) <= 254", name="users_email_check"),
    CheckConstraint("length(username) BETWEEN 3 AND 50", name="users_username_check"),
    CheckConstraint("length(full_name) BETWEEN 1 AND 200", name="users_full_name_check"),
)

items = Table(
    "items",
    metadata,
    Column("id", BigInteger, Identity(always=True), nullable=False),
    Column("sku", Text),
    Column("name", Text, nullable=False),
    Column("description", Text),
    Column("price", Numeric),
    Column("is_active", Boolean, nullable=False, server_default=text("true")),
    Column("owner_id", BigInteger),
    Column("version", BigInteger, nullable=False, server_default=text("1")),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("updated_at", DateTime(timezone=True)),
    PrimaryKeyConstraint("id", name="items_pkey"),
    UniqueConstraint("sku", name="items_sku_key"),
    ForeignKeyConstraint(["owner_id"], ["users.id"], name="items_owner_id_fkey"),
    CheckConstraint("length(sku) BETWEEN 1 AND 64", name="items_sku_check"),
    CheckConstraint("length(name) BETWEEN 1 AND 255", name="items_name_check"),
    # The bound above keeps NaN and Infinity out too: PostgreSQL sorts both above every number.
    CheckConstraint(
        f"price >= 0 AND price < {PRICE_LIMIT} AND price = round(price, 4)",
        name="items_price_check",
    ),
    # Room in each page for a changed row, so that an update stays beside its old version (HOT).
    postgresql_with={"fillfactor": "90"},
)

# Bytes, not a locale: the same order on every machine, and no index to rebuild after a libc update.
item_name: ColumnElement[str] = collate(items.c.name, "C")
username: ColumnElement[str] = collate(users.c.username, "C")

# Keyset columns must not be null: no price sorts after every price, as PostgreSQL's own order does.
item_price: ColumnElement[object] = func.coalesce(items.c.price, literal_column(PRICE_LIMIT))

# One order per sort, read forwards and backwards; `id` breaks ties. `id` alone is the primary key.
Index("items_created_at_idx", items.c.created_at, items.c.id)
Index("items_name_idx", item_name, items.c.id)
Index("items_price_idx", item_price, items.c.id)
Index("users_created_at_idx", users.c.created_at, users.c.id)
Index("users_username_idx", username, users.c.id)

# A user's items, their count as an index-only scan; items of nobody take no room in it.
Index(
    "items_owner_id_idx",
    items.c.owner_id,
    items.c.id,
    postgresql_where=text("owner_id IS NOT NULL"),
)
# The rare side of a filter: the common side is found at once in any other order.
Index("items_inactive_idx", items.c.id, postgresql_where=text("NOT is_active"))
Index("users_inactive_idx", users.c.id, postgresql_where=text("NOT is_active"))
Index("users_admin_idx", users.c.id, postgresql_where=text("role = 'admin'"))

# One person, one account: unique without regard to case.
Index("users_email_key", func.lower(users.c.email), unique=True)
Index("users_username_key", func.lower(users.c.username), unique=True)

# ILIKE lowers the pattern anew for every row; lower() LIKE finds the same in less time.
Index("items_search_idx", func.lower(items.c.name).label("name"), **_trigrams("name"))
Index(
    "users_search_idx",
    *(func.lower(users.c[name]).label(name) for name in ("username", "email", "full_name")),
    **_trigrams("username", "email", "full_name"),
)

# How many rows a table has, and how many of them are active: the sum over its slots. A slot is
# taken by who is alone on it, so that no writer waits for another; all are added up by each
# snapshot for itself, so the total is exact whatever commits, rolls back or crashes meanwhile.
totals = Table(
    "totals",
    metadata,
    Column("name", Text, nullable=False),
    Column("slot", BigInteger, nullable=False),
    Column("total", BigInteger, nullable=False),
    Column("active", BigInteger, nullable=False),
    PrimaryKeyConstraint("name", "slot", name="totals_pkey"),
)

# Who writes keeps the totals, whoever it is; one call per statement, however many rows it has.
# The lowest slot that no other transaction holds takes the difference. Two kinds of writers take
# a slot of their own, named by the transaction: the seventeenth at once, and one whose snapshot is
# older than the slots (an update of theirs would fail). Now and then such slots are folded into
# slot 0. An advisory lock is tried instead of FOR UPDATE SKIP LOCKED: it costs a tenth.
# TRUNCATE empties what an old snapshot does not see, and so would leave totals of nothing: it is
# refused unless the snapshot is surely the newest, with no transaction before or after it.
# The owner's rights: who may write items needs none on the totals. So the names in it are looked up
# where nobody else can put anything, and nobody else may hang it on a table of theirs.
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
        SELECT count(*), count(*) FILTER (WHERE is_active) INTO more, more_active FROM come;
    END IF;
    IF TG_OP <> 'INSERT' THEN
        SELECT more - count(*), more_active - count(*) FILTER (WHERE is_active)
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

# For who has written with the triggers off; writers wait meanwhile, and the caches are told. An
# empty table keeps nothing, so that a dump of rows and totals alike goes into a new database.
RECOUNT_TOTALS = """
CREATE OR REPLACE FUNCTION recount_totals() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    LOCK TABLE {locked} IN SHARE ROW EXCLUSIVE MODE;
    DELETE FROM {{schema}}.totals;
    INSERT INTO {{schema}}.totals
{counted};
    PERFORM pg_notify('swiftlet', 'totals');
END $$
"""
RECOUNT_ONE = """\
    SELECT '{table}', 0, count(*), count(*) FILTER (WHERE is_active)
    FROM {{schema}}.{on} HAVING count(*) > 0"""

TOTALS_TRIGGERS = """
CREATE TRIGGER {table}_inserted AFTER INSERT ON {on}
    REFERENCING NEW TABLE AS come FOR EACH STATEMENT EXECUTE FUNCTION keep_totals();
CREATE TRIGGER {table}_updated AFTER UPDATE ON {on}
    REFERENCING OLD TABLE AS gone NEW TABLE AS come
    FOR EACH STATEMENT EXECUTE FUNCTION keep_totals();
CREATE TRIGGER {table}_deleted AFTER DELETE ON {on}
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION keep_totals();
CREATE TRIGGER {table}_truncated AFTER TRUNCATE ON {on}
    FOR EACH STATEMENT EXECUTE FUNCTION keep_totals()
"""

# Whoever writes beside the service, psql and migrations among them, tells its caches. Its own
# connections, known by their name, tell each other over Redis: a NOTIFY takes a lock that all
# committing transactions share.
TELL_WRITES = """
CREATE FUNCTION tell_writes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('swiftlet', TG_TABLE_NAME);
    RETURN NULL;
END $$
"""

WRITES_TRIGGER = """
CREATE TRIGGER {table}_told AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON {on}
    FOR EACH STATEMENT WHEN (current_setting('application_name') <> 'swiftlet')
    EXECUTE FUNCTION tell_writes()
"""


def counted(tables: MetaData) -> list[Table]:
    """The tables whose rows are counted in the totals: those with `is_active`."""
    found = (table for table in tables.tables.values() if "is_active" in table.columns)
    return sorted(found, key=lambda table: table.name)


def functions(tables: MetaData) -> list[str]:
    """What makes the functions; `{schema}` in it stands for the schema of the tables."""
    names = {table.name: quoted(table.name) for table in counted(tables)}
    recount = RECOUNT_TOTALS.format(
        locked=", ".join(f"{{schema}}.{on}" for on in names.values()),
        counted="\n    UNION ALL\n".join(
            RECOUNT_ONE.format(table=name, on=on) for name, on in names.items()
        ),
    )
    return [KEEP_TOTALS, recount, TELL_WRITES]


def triggers(tables: MetaData) -> list[str]:
    """What makes the triggers: every table but the totals tells of writes by others."""
    told = (table for table in tables.sorted_tables if table.name != totals.name)
    return [
        *(TOTALS_TRIGGERS.format(table=one.name, on=quoted(one.name)) for one in counted(tables)),
        *(WRITES_TRIGGER.format(table=one.name, on=quoted(one.name)) for one in told),
    ]


def quoted(name: str) -> str:
    """The name as it stands in SQL."""
    return PREPARER.quote(name)
