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


def upgrade() -> None:
    op.execute(TELL)
    for table in ("items", "users"):
        op.execute(TRIGGER.format(table=table))


def downgrade() -> None:
    for table in ("items", "users"):
        op.execute(f"DROP TRIGGER {table}_told ON {table}")
    op.execute("DROP FUNCTION tell_writes")
