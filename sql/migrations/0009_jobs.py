"""Jobs: work that outlives its request."""

from alembic import op

revision = "0009"
down_revision = "0008"

UP = [
    """
    CREATE TABLE jobs (
        id bigint GENERATED ALWAYS AS IDENTITY NOT NULL,
        kind text NOT NULL,
        argument jsonb NOT NULL,
        state text DEFAULT 'queued'::text NOT NULL,
        user_id bigint,
        place text,
        run_at timestamp with time zone DEFAULT now() NOT NULL,
        attempts integer DEFAULT 0 NOT NULL,
        claims bigint DEFAULT 0 NOT NULL,
        leased_until timestamp with time zone,
        done bigint DEFAULT 0 NOT NULL,
        total bigint,
        result json,
        error text,
        created_at timestamp with time zone DEFAULT now() NOT NULL,
        finished_at timestamp with time zone,
        CONSTRAINT jobs_pkey PRIMARY KEY (id),
        CONSTRAINT jobs_state_check CHECK ((state = ANY (ARRAY['queued'::text,
            'running'::text, 'done'::text, 'failed'::text])))
    ) WITH (fillfactor = '80')
    """,
    """
    CREATE INDEX jobs_finished_idx ON jobs USING btree (state, finished_at) WHERE
        (finished_at IS NOT NULL)
    """,
    """
    CREATE INDEX jobs_place_idx ON jobs USING btree (place) WHERE (place IS NOT NULL)
    """,
    """
    CREATE INDEX jobs_queued_idx ON jobs USING btree (kind, run_at, id) WHERE (state =
        'queued'::text)
    """,
    """
    CREATE INDEX jobs_running_idx ON jobs USING btree (leased_until) WHERE (state =
        'running'::text)
    """,
    """
CREATE OR REPLACE FUNCTION {schema}.queue_jobs()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
BEGIN
    INSERT INTO {schema}.jobs (kind, argument)
    SELECT kind, jsonb_build_object('id', come.id) FROM come CROSS JOIN unnest(TG_ARGV) AS kind;
    RETURN NULL;
END $function$

    """,
    """
CREATE OR REPLACE FUNCTION {schema}.tell_jobs()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
BEGIN
    PERFORM pg_notify('swiftlet-jobs', '');
    RETURN NULL;
END $function$

    """,
    """
    CREATE TRIGGER jobs_told AFTER INSERT ON jobs FOR EACH STATEMENT WHEN
        ((current_setting('application_name'::text) <> 'swiftlet'::text)) EXECUTE FUNCTION
        tell_jobs()
    """,
    """
    CREATE TRIGGER users_queue_jobs AFTER INSERT ON users REFERENCING NEW TABLE AS come FOR
        EACH STATEMENT WHEN ((current_setting('swiftlet.queue_jobs'::text, true) IS DISTINCT
        FROM 'off'::text)) EXECUTE FUNCTION queue_jobs('welcome')
    """,
]

DOWN = [
    "DROP TRIGGER users_queue_jobs ON users",
    # The rows of jobs are lost.
    "DROP TABLE jobs",
    "DROP FUNCTION queue_jobs()",
    "DROP FUNCTION tell_jobs()",
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
