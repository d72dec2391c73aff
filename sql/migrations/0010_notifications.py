"""Notifications of users."""

from alembic import op

revision = "0010"
down_revision = "0009"

UP = [
    """
    CREATE TABLE notifications (
        id bigint GENERATED ALWAYS AS IDENTITY NOT NULL,
        user_id bigint,
        kind text NOT NULL,
        message text NOT NULL,
        data jsonb DEFAULT '{}'::jsonb NOT NULL,
        unread boolean DEFAULT true NOT NULL,
        read_at timestamp with time zone,
        created_at timestamp with time zone DEFAULT now() NOT NULL,
        source text,
        CONSTRAINT notifications_pkey PRIMARY KEY (id),
        CONSTRAINT notifications_source_key UNIQUE (source)
    ) WITH (fillfactor = '90')
    """,
    "CREATE INDEX notifications_created_at_idx ON notifications USING btree (created_at, id)",
    """
    CREATE INDEX notifications_unread_idx ON notifications USING btree (user_id, id) WHERE
        unread
    """,
    "CREATE INDEX notifications_user_id_idx ON notifications USING btree (user_id, id)",
    """
    ALTER TABLE notifications ADD CONSTRAINT notifications_user_id_fkey FOREIGN KEY
        (user_id) REFERENCES users(id) ON DELETE CASCADE
    """,
    """
    CREATE TRIGGER notifications_told AFTER INSERT OR DELETE OR UPDATE OR TRUNCATE ON
        notifications FOR EACH STATEMENT WHEN ((current_setting('application_name'::text) <>
        'swiftlet'::text)) EXECUTE FUNCTION tell_writes()
    """,
]

DOWN = [
    # The rows of notifications are lost.
    "DROP TABLE notifications",
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
