"""Totals: TRUNCATE under an old snapshot, and the rights with which they are kept."""

from alembic import op

revision = "0004"
down_revision = "0003"

KEEP = """
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


def upgrade() -> None:
    op.execute(KEEP.format(schema=_schema()))
    op.execute("REVOKE EXECUTE ON FUNCTION keep_totals() FROM PUBLIC")


def downgrade() -> None:
    script = op.get_context().script
    assert script is not None  # noqa: S101 - Alembic runs us from one
    before = script.get_revision("0002").module.KEEP
    op.execute(before.format(schema=_schema()).replace("CREATE", "CREATE OR REPLACE", 1))
    op.execute("GRANT EXECUTE ON FUNCTION keep_totals() TO PUBLIC")


def _schema() -> str:
    found: str = op.get_bind().exec_driver_sql("SELECT quote_ident(current_schema())").scalar_one()
    return found
