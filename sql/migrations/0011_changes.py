"""The log of changes, and the triggers of items."""

from alembic import op

revision = "0011"
down_revision = "0010"

UP = [
    """
    CREATE TABLE change_horizon (
        id integer DEFAULT 1 NOT NULL,
        "position" bigint NOT NULL,
        CONSTRAINT change_horizon_pkey PRIMARY KEY (id),
        CONSTRAINT change_horizon_id_check CHECK ((id = 1))
    )
    """,
    """
    CREATE TABLE change_log (
        id bigint GENERATED ALWAYS AS IDENTITY NOT NULL,
        name text NOT NULL,
        kind text NOT NULL,
        rows json NOT NULL,
        CONSTRAINT change_log_pkey PRIMARY KEY (id)
    )
    """,
    """
    CREATE TABLE change_positions (
        "position" bigint GENERATED ALWAYS AS IDENTITY NOT NULL,
        entry bigint NOT NULL,
        committed_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
        CONSTRAINT change_positions_pkey PRIMARY KEY ("position")
    )
    """,
    """
CREATE OR REPLACE FUNCTION {schema}.log_changes()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
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
END $function$

    """,
    """
CREATE OR REPLACE FUNCTION {schema}.order_changes()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
BEGIN
    PERFORM pg_advisory_xact_lock(TG_RELID::integer, 0);
    INSERT INTO {schema}.change_positions (entry) VALUES (NEW.id);
    PERFORM pg_notify('swiftlet-changes', '');
    RETURN NULL;
END $function$

    """,
    """
    CREATE CONSTRAINT TRIGGER change_log_order AFTER INSERT ON change_log DEFERRABLE
        INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION order_changes()
    """,
    """
    CREATE TRIGGER items_log_created AFTER INSERT ON items REFERENCING NEW TABLE AS come FOR
        EACH STATEMENT EXECUTE FUNCTION log_changes()
    """,
    """
    CREATE TRIGGER items_log_deleted AFTER DELETE ON items REFERENCING OLD TABLE AS gone FOR
        EACH STATEMENT EXECUTE FUNCTION log_changes()
    """,
    """
    CREATE TRIGGER items_log_truncated BEFORE TRUNCATE ON items FOR EACH STATEMENT EXECUTE
        FUNCTION log_changes()
    """,
    """
    CREATE TRIGGER items_log_updated AFTER UPDATE ON items REFERENCING NEW TABLE AS come FOR
        EACH STATEMENT EXECUTE FUNCTION log_changes()
    """,
]

DOWN = [
    "DROP TRIGGER items_log_created ON items",
    "DROP TRIGGER items_log_deleted ON items",
    "DROP TRIGGER items_log_truncated ON items",
    "DROP TRIGGER items_log_updated ON items",
    # The rows of change_positions are lost.
    "DROP TABLE change_positions",
    # The rows of change_log are lost.
    "DROP TABLE change_log",
    # The rows of change_horizon are lost.
    "DROP TABLE change_horizon",
    "DROP FUNCTION log_changes()",
    "DROP FUNCTION order_changes()",
]


def upgrade() -> None:
    _run(UP)


def downgrade() -> None:
    _run(DOWN)


def _run(statements: list[str]) -> None:
    bind = op.get_bind()
    schema = bind.exec_driver_sql("SELECT quote_ident(current_schema())").scalar_one()
    for statement in statements:
        bind.exec_driver_sql(statement.replace("{schema}", schema))
