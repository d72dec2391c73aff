"""Users and items: the tables, their constraints, and an index for each list."""

from alembic import op

revision = "0001"
down_revision = None

TABLES = """
CREATE TABLE users (
    id bigint GENERATED ALWAYS AS IDENTITY,
    email text NOT NULL,
    username text NOT NULL,
    full_name text,
    role text NOT NULL DEFAULT 'user',
    is_active boolean NOT NULL DEFAULT true,
    version bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz,
    CONSTRAINT users_pkey PRIMARY KEY (id),
    CONSTRAINT users_role_check CHECK (role IN ('user', 'admin')),
    CONSTRAINT users_email_check CHECK (length(email) <= 254),
    CONSTRAINT users_username_check CHECK (length(username) BETWEEN 3 AND 50),
    CONSTRAINT users_full_name_check CHECK (length(full_name) BETWEEN 1 AND 200)
);
CREATE TABLE items (
    id bigint GENERATED ALWAYS AS IDENTITY,
    sku text,
    name text NOT NULL,
    description text,
    price numeric,
    is_active boolean NOT NULL DEFAULT true,
    owner_id bigint,
    version bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz,
    CONSTRAINT items_pkey PRIMARY KEY (id),
    CONSTRAINT items_sku_key UNIQUE (sku),
    CONSTRAINT items_owner_id_fkey FOREIGN KEY (owner_id) REFERENCES users (id),
    CONSTRAINT items_sku_check CHECK (length(sku) BETWEEN 1 AND 64),
    CONSTRAINT items_name_check CHECK (length(name) BETWEEN 1 AND 255),
    CONSTRAINT items_price_check
        CHECK (price >= 0 AND price < 10000000000 AND price = round(price, 4))
) WITH (fillfactor = 90)
"""

INDEXES = """
CREATE INDEX users_created_at_idx ON users (created_at, id);
CREATE INDEX users_username_idx ON users (username COLLATE "C", id);
CREATE INDEX users_inactive_idx ON users (id) WHERE NOT is_active;
CREATE INDEX users_admin_idx ON users (id) WHERE role = 'admin';
CREATE UNIQUE INDEX users_email_key ON users (lower(email));
CREATE UNIQUE INDEX users_username_key ON users (lower(username));
CREATE INDEX items_created_at_idx ON items (created_at, id);
CREATE INDEX items_name_idx ON items (name COLLATE "C", id);
CREATE INDEX items_price_idx ON items (coalesce(price, 10000000000), id);
CREATE INDEX items_owner_id_idx ON items (owner_id, id) WHERE owner_id IS NOT NULL;
CREATE INDEX items_inactive_idx ON items (id) WHERE NOT is_active
"""

# Only where the extension is to be had and allowed (it is trusted: the database's owner may make
# it); without it the search works, by reading every row.
TRIGRAM = """
DO $$
BEGIN
    CREATE EXTENSION IF NOT EXISTS pg_trgm;
    CREATE INDEX items_search_idx ON items USING gin (name gin_trgm_ops);
    CREATE INDEX users_search_idx
        ON users USING gin (username gin_trgm_ops, email gin_trgm_ops, full_name gin_trgm_ops);
EXCEPTION
    WHEN undefined_file OR undefined_object OR feature_not_supported
        OR insufficient_privilege THEN
        RAISE NOTICE 'pg_trgm is not to be had: searching without an index';
END
$$
"""


def upgrade() -> None:
    for statement in (*TABLES.split(";"), *INDEXES.split(";"), TRIGRAM):
        op.execute(statement)


def downgrade() -> None:
    # The extension stays: others may use it.
    op.execute("DROP TABLE items")
    op.execute("DROP TABLE users")
