"""Writes by others tell the caches of the service."""

from alembic import op

revision = "0005"
down_revision = "0004"

TELL = """
CREATE FUNCTION tell_writes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('swiftlet', TG_TABLE_NAME);
    RETURN NULL;
END $$
"""
TRIGGER = """
CREATE TRIGGER {table}_told AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON {table}
    FOR EACH STATEMENT WHEN (current_setting('application_name') <> 'swiftlet')
    EXECUTE FUNCTION tell_writes()
"""
RECOUNT = """
CREATE OR REPLACE FUNCTION recount_totals() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    LOCK TABLE {schema}.items, {schema}.users IN SHARE ROW EXCLUSIVE MODE;
    DELETE FROM {schema}.totals;
    INSERT INTO {schema}.totals
    SELECT 'items', 0, count(*), count(*) FILTER (WHERE is_active)
    FROM {schema}.items HAVING count(*) > 0
    UNION ALL
    SELECT 'users', 0, count(*), count(*) FILTER (WHERE is_active)
    FROM {schema}.users HAVING count(*) > 0;
    PERFORM pg_notify('swiftlet', 'totals');
END $$
"""


def upgrade() -> None:
    op.execute(TELL)
    op.execute(RECOUNT.format(schema=_schema()))
    for table in ("items", "users"):
        op.execute(TRIGGER.format(table=table))


def downgrade() -> None:
    for table in ("items", "users"):
        op.execute(f"DROP TRIGGER {table}_told ON {table}")
    op.execute("DROP FUNCTION tell_writes")
    script = op.get_context().script
    assert script is not None  # noqa: S101 - Alembic runs us from one
    before = script.get_revision("0002").module.RECOUNT
    op.execute(before.format(schema=_schema()).replace("CREATE", "CREATE OR REPLACE", 1))


def _schema() -> str:
    found: str = op.get_bind().exec_driver_sql("SELECT quote_ident(current_schema())").scalar_one()
    return found
