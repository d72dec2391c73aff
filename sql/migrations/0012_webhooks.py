"""Webhooks, and what could not be delivered."""

from alembic import op

revision = "0012"
down_revision = "0011"

UP = [
    """
    CREATE TABLE webhook_failures (
        id bigint GENERATED ALWAYS AS IDENTITY NOT NULL,
        webhook_id bigint NOT NULL,
        "position" bigint NOT NULL,
        body text,
        lost_to bigint,
        attempts integer NOT NULL,
        error text NOT NULL,
        created_at timestamp with time zone DEFAULT now() NOT NULL,
        CONSTRAINT webhook_failures_pkey PRIMARY KEY (id)
    )
    """,
    """
    CREATE TABLE webhooks (
        id bigint GENERATED ALWAYS AS IDENTITY NOT NULL,
        url text NOT NULL,
        resource text NOT NULL,
        "position" bigint NOT NULL,
        error text,
        created_at timestamp with time zone DEFAULT now() NOT NULL,
        CONSTRAINT webhooks_pkey PRIMARY KEY (id)
    ) WITH (fillfactor = '50')
    """,
    # It fails where two rows have the same values.
    """
    CREATE UNIQUE INDEX webhook_failures_webhook_id_idx ON webhook_failures USING btree
        (webhook_id, "position")
    """,
    """
    ALTER TABLE webhook_failures ADD CONSTRAINT webhook_failures_webhook_id_fkey FOREIGN KEY
        (webhook_id) REFERENCES webhooks(id) ON DELETE CASCADE
    """,
]

DOWN = [
    # The rows of webhook_failures are lost.
    "DROP TABLE webhook_failures",
    # The rows of webhooks are lost.
    "DROP TABLE webhooks",
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
