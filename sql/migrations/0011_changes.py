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
        number integer NOT NULL,
        rows text NOT NULL,
        CONSTRAINT change_log_pkey PRIMARY KEY (id)
    )
    """,
    """
    DO $$
    BEGIN
        IF 'lz4' = ANY (
            ARRAY(SELECT unnest(enumvals) FROM pg_settings WHERE name = 'default_toast_compression')
        ) THEN
            ALTER TABLE change_log ALTER COLUMN rows SET COMPRESSION lz4;
        END IF;
    END
    $$
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
 SET "TimeZone" TO 'UTC'
 SET extra_float_digits TO '1'
 SET bytea_output TO 'hex'
 SET "IntervalStyle" TO 'iso_8601'
AS $function$
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
        FROM (SELECT * FROM changed LIMIT 1001) AS t;
        IF number = 0 THEN
            RETURN NULL;
        ELSIF number <= 1000 AND bytes <= 1000000 THEN
            INSERT INTO {schema}.change_log (name, kind, number, rows)
            SELECT TG_TABLE_NAME, TG_ARGV[0], number, t.rows
            FROM (SELECT json_agg(t.*)::text AS rows FROM changed AS t) AS t
            WHERE octet_length(t.rows) <= 1000000;
            IF FOUND THEN
                RETURN NULL;
            END IF;
        END IF;
    END IF;
    bytes := 0;
    FOR one IN EXECUTE 'SELECT row_to_json(t.*)::text FROM ' || source || ' AS t' LOOP
        IF bytes > 0 AND
            (cardinality(parts) = 1000 OR bytes + octet_length(one) > 1000000)
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
    PERFORM pg_advisory_xact_lock_shared(TG_RELID::integer, 0);
    INSERT INTO {schema}.change_positions (entry) VALUES (NEW.id);
    IF current_setting('application_name') <> 'swiftlet' THEN
        PERFORM pg_notify('swiftlet-changes', '');
    END IF;
    RETURN NULL;
END $function$

    """,
    """
CREATE OR REPLACE FUNCTION {schema}.settled_changes()
 RETURNS bigint
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
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
END $function$

    """,
    """
CREATE OR REPLACE FUNCTION {schema}.skip_changes()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
BEGIN
    RETURN NULL;
END $function$

    """,
    "REVOKE EXECUTE ON FUNCTION log_changes() FROM PUBLIC",
    "REVOKE EXECUTE ON FUNCTION order_changes() FROM PUBLIC",
    """
    CREATE CONSTRAINT TRIGGER change_log_order AFTER INSERT ON change_log DEFERRABLE
        INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION order_changes()
    """,
    """
    CREATE TRIGGER change_log_skip BEFORE INSERT ON change_log FOR EACH ROW
        WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION skip_changes()
    """,
    """
    CREATE TRIGGER change_positions_skip BEFORE INSERT ON change_positions FOR EACH ROW
        WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION skip_changes()
    """,
    """
    CREATE TRIGGER items_log_created AFTER INSERT ON items REFERENCING NEW TABLE AS changed
        FOR EACH STATEMENT EXECUTE FUNCTION log_changes('created')
    """,
    """
    CREATE TRIGGER items_log_deleted AFTER DELETE ON items REFERENCING OLD TABLE AS changed
        FOR EACH STATEMENT EXECUTE FUNCTION log_changes('deleted')
    """,
    """
    CREATE TRIGGER items_log_truncated BEFORE TRUNCATE ON items FOR EACH STATEMENT EXECUTE
        FUNCTION log_changes('deleted')
    """,
    """
    CREATE TRIGGER items_log_updated AFTER UPDATE ON items REFERENCING NEW TABLE AS changed
        FOR EACH STATEMENT EXECUTE FUNCTION log_changes('updated')
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
    "DROP FUNCTION settled_changes()",
    "DROP FUNCTION skip_changes()",
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
