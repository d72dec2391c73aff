"""Users and notes."""

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
    CREATE TABLE notes (
        id bigint GENERATED ALWAYS AS IDENTITY NOT NULL,
        slug text,
        title text NOT NULL,
        body text,
        owner_id bigint,
        pinned boolean DEFAULT false NOT NULL,
        version bigint DEFAULT 1 NOT NULL,
        created_at timestamp with time zone DEFAULT now() NOT NULL,
        updated_at timestamp with time zone,
        CONSTRAINT notes_pkey PRIMARY KEY (id),
        CONSTRAINT notes_slug_key UNIQUE (slug),
        CONSTRAINT notes_slug_check CHECK (((length(slug) >= 1) AND (length(slug) <= 64))),
        CONSTRAINT notes_title_check CHECK (((length(title) >= 1) AND (length(title) <=
            200)))
    ) WITH (fillfactor = '90')
    """,
    """
    CREATE TABLE totals (
        name text NOT NULL,
        slot bigint NOT NULL,
        total bigint NOT NULL,
        active bigint NOT NULL,
        CONSTRAINT totals_pkey PRIMARY KEY (name, slot)
    )
    """,
    """
    CREATE TABLE users (
        id bigint GENERATED ALWAYS AS IDENTITY NOT NULL,
        email text NOT NULL,
        username text NOT NULL,
        full_name text,
        role text DEFAULT 'user'::text NOT NULL,
        is_active boolean DEFAULT true NOT NULL,
        version bigint DEFAULT 1 NOT NULL,
        created_at timestamp with time zone DEFAULT now() NOT NULL,
        updated_at timestamp with time zone,
        CONSTRAINT users_pkey PRIMARY KEY (id),
        CONSTRAINT users_email_check CHECK ((length(email) <= 254)),
        CONSTRAINT users_full_name_check CHECK (((length(full_name) >= 1) AND
            (length(full_name) <= 200))),
        CONSTRAINT users_role_check CHECK ((role = ANY (ARRAY['user'::text,
            'admin'::text]))),
        CONSTRAINT users_username_check CHECK (((length(username) >= 3) AND
            (length(username) <= 50)))
    )
    """,
    "CREATE INDEX idempotency_keys_created_at_idx ON idempotency_keys USING btree (created_at)",
    """
    CREATE INDEX jobs_finished_idx ON jobs USING btree (state, finished_at) WHERE
        (finished_at IS NOT NULL)
    """,
    "CREATE INDEX jobs_place_idx ON jobs USING btree (place) WHERE (place IS NOT NULL)",
    """
    CREATE INDEX jobs_queued_idx ON jobs USING btree (kind, run_at, id) WHERE (state =
        'queued'::text)
    """,
    """
    CREATE INDEX jobs_running_idx ON jobs USING btree (leased_until) WHERE (state =
        'running'::text)
    """,
    "CREATE INDEX notes_created_at_idx ON notes USING btree (created_at, id)",
    """
    CREATE INDEX notes_owner_id_idx ON notes USING btree (owner_id, id) WHERE (owner_id IS
        NOT NULL)
    """,
    "CREATE INDEX notes_pinned_idx ON notes USING btree (id) WHERE pinned",
    """
    CREATE INDEX notes_title_idx ON notes USING btree (title COLLATE "C", id)
    """,
    "CREATE INDEX users_admin_idx ON users USING btree (id) WHERE (role = 'admin'::text)",
    "CREATE INDEX users_created_at_idx ON users USING btree (created_at, id)",
    # It fails where two rows have the same values.
    "CREATE UNIQUE INDEX users_email_key ON users USING btree (lower(email))",
    "CREATE INDEX users_inactive_idx ON users USING btree (id) WHERE (NOT is_active)",
    """
    CREATE INDEX users_username_idx ON users USING btree (username COLLATE "C", id)
    """,
    # It fails where two rows have the same values.
    "CREATE UNIQUE INDEX users_username_key ON users USING btree (lower(username))",
    """
    ALTER TABLE notes ADD CONSTRAINT notes_owner_id_fkey FOREIGN KEY (owner_id) REFERENCES
        users(id)
    """,
    """
CREATE OR REPLACE FUNCTION {schema}.keep_totals()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
DECLARE
    more bigint := 0;
    more_active bigint := 0;
    place bigint;
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        IF current_setting('transaction_isolation') <> 'read committed' THEN
            place := pg_current_xact_id()::text::bigint;
            IF pg_snapshot_xmin(pg_current_snapshot())::text::bigint = place
                AND pg_snapshot_xmax(pg_current_snapshot())::text::bigint = place
            THEN
                BEGIN
                    PERFORM pg_xact_status((place + 1)::text::xid8);
                    place := 0;
                EXCEPTION WHEN invalid_parameter_value THEN
                    NULL;
                END;
            ELSE
                place := 0;
            END IF;
            IF place = 0 THEN
                RAISE serialization_failure USING MESSAGE =
                    'to TRUNCATE ' || TG_TABLE_NAME || ' while others write needs READ COMMITTED';
            END IF;
        END IF;
        DELETE FROM {schema}.totals WHERE name = TG_TABLE_NAME;
        RETURN NULL;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        SELECT count(*), count(*) FILTER (WHERE is_active) INTO more, more_active FROM come;
    END IF;
    IF TG_OP <> 'INSERT' THEN
        SELECT more - count(*), more_active - count(*) FILTER (WHERE is_active)
        INTO more, more_active FROM gone;
    END IF;
    IF more = 0 AND more_active = 0 THEN
        RETURN NULL;
    END IF;
    place := 16 + pg_current_xact_id()::text::bigint;
    IF current_setting('transaction_isolation') = 'read committed' THEN
        FOR n IN 0..15 LOOP
            IF pg_try_advisory_xact_lock(TG_RELID::integer, n) THEN
                place := n;
                EXIT;
            END IF;
        END LOOP;
    END IF;
    IF place = 0 AND random() < 0.02 THEN
        WITH surplus AS (
            DELETE FROM {schema}.totals WHERE name = TG_TABLE_NAME AND slot >= 16
            RETURNING total, active
        )
        SELECT more + coalesce(sum(total), 0), more_active + coalesce(sum(active), 0)
        INTO more, more_active FROM surplus;
    END IF;
    INSERT INTO {schema}.totals AS kept VALUES (TG_TABLE_NAME, place, more, more_active)
    ON CONFLICT (name, slot) DO UPDATE
    SET total = kept.total + excluded.total, active = kept.active + excluded.active;
    RETURN NULL;
END $function$

    """,
    "REVOKE EXECUTE ON FUNCTION keep_totals() FROM PUBLIC",
    """
CREATE OR REPLACE FUNCTION {schema}.recount_totals()
 RETURNS void
 LANGUAGE plpgsql
AS $function$
BEGIN
    LOCK TABLE {schema}.users IN SHARE ROW EXCLUSIVE MODE;
    DELETE FROM {schema}.totals;
    INSERT INTO {schema}.totals
    SELECT 'users', 0, count(*), count(*) FILTER (WHERE is_active)
    FROM {schema}.users HAVING count(*) > 0;
    PERFORM pg_notify('swiftlet', 'totals');
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
    CREATE TRIGGER jobs_told AFTER INSERT ON jobs FOR EACH STATEMENT WHEN
        ((current_setting('application_name'::text) <> 'swiftlet'::text)) EXECUTE FUNCTION
        tell_jobs()
    """,
    """
    CREATE TRIGGER notes_told AFTER INSERT OR DELETE OR UPDATE OR TRUNCATE ON notes FOR EACH
        STATEMENT WHEN ((current_setting('application_name'::text) <> 'swiftlet'::text))
        EXECUTE FUNCTION tell_writes()
    """,
    """
    CREATE TRIGGER users_deleted AFTER DELETE ON users REFERENCING OLD TABLE AS gone FOR
        EACH STATEMENT EXECUTE FUNCTION keep_totals()
    """,
    """
    CREATE TRIGGER users_inserted AFTER INSERT ON users REFERENCING NEW TABLE AS come FOR
        EACH STATEMENT EXECUTE FUNCTION keep_totals()
    """,
    """
    CREATE TRIGGER users_told AFTER INSERT OR DELETE OR UPDATE OR TRUNCATE ON users FOR EACH
        STATEMENT WHEN ((current_setting('application_name'::text) <> 'swiftlet'::text))
        EXECUTE FUNCTION tell_writes()
    """,
    """
    CREATE TRIGGER users_truncated AFTER TRUNCATE ON users FOR EACH STATEMENT EXECUTE
        FUNCTION keep_totals()
    """,
    """
    CREATE TRIGGER users_updated AFTER UPDATE ON users REFERENCING OLD TABLE AS gone NEW
        TABLE AS come FOR EACH STATEMENT EXECUTE FUNCTION keep_totals()
    """,
    """
    DO $$
    BEGIN
        IF EXISTS (
            SELECT FROM pg_opclass WHERE opcname = 'gin_trgm_ops' AND
                pg_opclass_is_visible(oid)
        ) THEN
            CREATE INDEX notes_search_idx ON notes USING gin (lower(title) gin_trgm_ops,
                lower(body) gin_trgm_ops);
        END IF;
    END
    $$
    """,
    """
    DO $$
    BEGIN
        IF EXISTS (
            SELECT FROM pg_opclass WHERE opcname = 'gin_trgm_ops' AND
                pg_opclass_is_visible(oid)
        ) THEN
            CREATE INDEX users_search_idx ON users USING gin (lower(username) gin_trgm_ops,
                lower(email) gin_trgm_ops, lower(full_name) gin_trgm_ops);
        END IF;
    END
    $$
    """,
]

DOWN = [
    "DROP INDEX IF EXISTS users_search_idx",
    "DROP INDEX IF EXISTS notes_search_idx",
    # The rows of notes are lost.
    "DROP TABLE notes",
    # The rows of totals are lost.
    "DROP TABLE totals",
    # The rows of users are lost.
    "DROP TABLE users",
    # The rows of jobs are lost.
    "DROP TABLE jobs",
    # The rows of idempotency_keys are lost.
    "DROP TABLE idempotency_keys",
    "DROP FUNCTION keep_totals()",
    "DROP FUNCTION recount_totals()",
    "DROP FUNCTION tell_jobs()",
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
