"""Search by lower(), which finds the same as ILIKE in less CPU where there is no index."""

from alembic import op

revision = "0003"
down_revision = "0002"

REBUILD = """
DO $$
BEGIN
    IF EXISTS (SELECT 1 FROM pg_extension WHERE extname = 'pg_trgm') THEN
        DROP INDEX IF EXISTS items_search_idx;
        DROP INDEX IF EXISTS users_search_idx;
        CREATE INDEX items_search_idx ON items USING gin ({name} gin_trgm_ops);
        CREATE INDEX users_search_idx ON users
            USING gin ({username} gin_trgm_ops, {email} gin_trgm_ops, {full_name} gin_trgm_ops);
    END IF;
EXCEPTION
    WHEN undefined_object THEN
        RAISE NOTICE 'pg_trgm is not on the search_path: searching without an index';
END
$$
"""
FIELDS = ("name", "username", "email", "full_name")


def upgrade() -> None:
    op.execute(REBUILD.format(**{field: f"lower({field})" for field in FIELDS}))


def downgrade() -> None:
    op.execute(REBUILD.format(**{field: field for field in FIELDS}))
