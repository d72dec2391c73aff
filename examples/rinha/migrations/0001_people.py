"""People."""

from alembic import op

revision = "0001"
down_revision = None

UP = [
    """
    DO $$
    BEGIN
        CREATE EXTENSION IF NOT EXISTS pg_trgm;
    EXCEPTION
        WHEN OTHERS THEN
            RAISE NOTICE 'no pg_trgm, searches read every row: %', SQLERRM;
    END
    $$
    """,
    """
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
    """,
    """
    CREATE TABLE people (
        id bigint GENERATED ALWAYS AS IDENTITY NOT NULL,
        apelido text NOT NULL,
        nome text NOT NULL,
        nascimento date NOT NULL,
        stack text,
        searched text GENERATED ALWAYS AS (((((apelido || chr(31)) || nome) || chr(31)) ||
            COALESCE(stack, ''::text))) STORED,
        CONSTRAINT people_apelido_key UNIQUE (apelido),
        CONSTRAINT people_pkey PRIMARY KEY (id),
        CONSTRAINT people_apelido_check CHECK ((length(apelido) <= 32)),
        CONSTRAINT people_nome_check CHECK ((length(nome) <= 100))
    )
    """,
    "CREATE INDEX idempotency_keys_created_at_idx ON idempotency_keys USING btree (created_at)",
    """
CREATE OR REPLACE FUNCTION {schema}.tell_writes()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
BEGIN
    PERFORM pg_notify('swiftlet', TG_TABLE_NAME);
    RETURN NULL;
END $function$

    """,
    """
    CREATE TRIGGER people_told AFTER INSERT OR DELETE OR UPDATE OR TRUNCATE ON people FOR
        EACH STATEMENT WHEN ((current_setting('application_name'::text) <>
        'swiftlet'::text)) EXECUTE FUNCTION tell_writes()
    """,
    """
    DO $$
    BEGIN
        IF EXISTS (
            SELECT FROM pg_opclass WHERE opcname = 'gin_trgm_ops' AND
                pg_opclass_is_visible(oid)
        ) THEN
            CREATE INDEX people_search_idx ON people USING gin (lower(searched)
                gin_trgm_ops);
        END IF;
    END
    $$
    """,
]

DOWN = [
    "DROP INDEX IF EXISTS people_search_idx",
    # The rows of people are lost.
    "DROP TABLE people",
    # The rows of idempotency_keys are lost.
    "DROP TABLE idempotency_keys",
    "DROP FUNCTION tell_writes()",
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
