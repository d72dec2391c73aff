"""Idempotency keys: the stored answers to POSTs."""

from alembic import op

revision = "0008"
down_revision = "0007"

TABLE = """
CREATE TABLE idempotency_keys (
    principal text NOT NULL,
    key text NOT NULL,
    fingerprint bytea NOT NULL,
    status integer NOT NULL,
    headers bytea NOT NULL,
    body bytea,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT idempotency_keys_pkey PRIMARY KEY (principal, key)
)
"""


def upgrade() -> None:
    op.execute(TABLE)
    op.execute("CREATE INDEX idempotency_keys_created_at_idx ON idempotency_keys (created_at)")


def downgrade() -> None:
    op.execute("DROP TABLE idempotency_keys")
