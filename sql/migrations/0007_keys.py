"""API keys of users."""

from alembic import op

revision = "0007"
down_revision = "0006"

TABLE = """
CREATE TABLE keys (
    id bigint GENERATED ALWAYS AS IDENTITY,
    user_id bigint NOT NULL,
    name text NOT NULL,
    prefix text NOT NULL,
    secret_hash bytea NOT NULL,
    scopes text[] NOT NULL,
    expires_at timestamptz,
    last_used_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT keys_pkey PRIMARY KEY (id),
    CONSTRAINT keys_prefix_key UNIQUE (prefix),
    CONSTRAINT keys_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id),
    CONSTRAINT keys_name_check CHECK (length(name) BETWEEN 1 AND 100),
    CONSTRAINT keys_expires_at_check CHECK (isfinite(expires_at)),
    CONSTRAINT keys_secret_hash_check CHECK (octet_length(secret_hash) = 32),
    CONSTRAINT keys_scopes_check
        CHECK (cardinality(scopes) >= 1 AND scopes <@ ARRAY['read', 'write', 'admin'])
) WITH (fillfactor = 90)
"""
INDEXES = (
    "CREATE INDEX keys_created_at_idx ON keys (created_at, id)",
    "CREATE INDEX keys_user_id_idx ON keys (user_id, id)",
)
TRIGGER = """
CREATE TRIGGER keys_told AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON keys
    FOR EACH STATEMENT WHEN (current_setting('application_name') <> 'swiftlet')
    EXECUTE FUNCTION tell_writes()
"""


def upgrade() -> None:
    for statement in (TABLE, *INDEXES, TRIGGER):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE keys")
