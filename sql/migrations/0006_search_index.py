"""The indexes of searches, for databases that had no pg_trgm when 0001 asked for it.

All databases of the embedded PostgreSQL were such until it came with contrib.

The indexes are not built CONCURRENTLY: that can't be in a transaction, and the lock that keeps
several starts apart is held by one. So writes wait, 4 to 6 s for a million short names. Who can't
let them wait builds the indexes before, as docs/deployment.md says; then this changes nothing.
"""

from alembic import op

revision = "0006"
down_revision = "0005"

# Whatever refuses it (the programs, the rights, a provider's list), searches work without.
EXTENSION = """
DO $$
BEGIN
    CREATE EXTENSION IF NOT EXISTS pg_trgm;
EXCEPTION
    WHEN OTHERS THEN
        RAISE NOTICE 'no pg_trgm, searches read every row: %', SQLERRM;
END
$$
"""
# ANALYZE, because the planner knows nothing of lower(name) before, and autovacuum may take long
# to see a reason for it.
INDEX = """
DO $$
BEGIN
    IF to_regclass('{table}_search_idx') IS NULL AND EXISTS (
        SELECT FROM pg_opclass WHERE opcname = 'gin_trgm_ops' AND pg_opclass_is_visible(oid)
    ) THEN
        CREATE INDEX {table}_search_idx ON {table} USING gin ({columns});
        IF EXISTS (SELECT FROM {table}) THEN
            ANALYZE {table};
        END IF;
    END IF;
END
$$
"""
SEARCHED = {"items": ("name",), "users": ("username", "email", "full_name")}


def upgrade() -> None:
    op.execute(EXTENSION)
    for table, columns in SEARCHED.items():
        trigrams = ", ".join(f"lower({column}) gin_trgm_ops" for column in columns)
        op.execute(INDEX.format(table=table, columns=trigrams))


def downgrade() -> None:
    # The indexes stay: 0005 has the same ones where there is pg_trgm. So does the extension.
    pass
