"""The table of jobs, and the trigger that queues jobs for the new rows of a table.

A job is a row in the transaction of what caused it. A trigger writes it, so it costs no round trip,
and no writer can forget it: a group commit, an upsert, an import or psql.
"""

from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Identity,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSON, JSONB

from service.db.names import INTERNAL, JOBS_CHANNEL, SILENT
from service.db.quoting import literal, quoted

STATES = ("queued", "running", "done", "failed")
# In `info` of the table of an application: by table, the kinds of jobs that each new row queues.
QUEUES = "queues"
# A session that sets it to `off` queues no jobs for new rows, as `swiftlet seed` does.
SWITCH = "swiftlet.queue_jobs"

jobs = Table(
    "jobs",
    MetaData(),
    Column("id", BigInteger, Identity(always=True), nullable=False),
    Column("kind", Text, nullable=False),
    Column("argument", JSONB, nullable=False),
    Column("state", Text, nullable=False, server_default=text("'queued'")),
    # Who caused it, and may see it; null if only an admin may. No foreign key: a job outlives them.
    Column("user_id", BigInteger),
    # The folder that has its file (jobs/spool.py); null if any worker can run it.
    Column("place", Text),
    Column("run_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    # How often a worker took it, never reset: a worker that was given another number has lost it.
    Column("claims", BigInteger, nullable=False, server_default=text("0")),
    # A worker that has not renewed it by then is dead: another one may take the job.
    Column("leased_until", DateTime(timezone=True)),
    Column("done", BigInteger, nullable=False, server_default=text("0")),
    Column("total", BigInteger),
    # As text in the order of its fields, which jsonb does not keep.
    Column("result", JSON),
    Column("error", Text),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("finished_at", DateTime(timezone=True)),
    PrimaryKeyConstraint("id", name="jobs_pkey"),
    CheckConstraint("state IN ('queued', 'running', 'done', 'failed')", name="jobs_state_check"),
    info=INTERNAL,
    postgresql_with={"fillfactor": "80"},
)
Index(
    "jobs_queued_idx",
    jobs.c.kind,
    jobs.c.run_at,
    jobs.c.id,
    postgresql_where=text("state = 'queued'"),
)
Index("jobs_running_idx", jobs.c.leased_until, postgresql_where=text("state = 'running'"))
Index(
    "jobs_finished_idx",
    jobs.c.state,
    jobs.c.finished_at,
    postgresql_where=text("finished_at IS NOT NULL"),
)
# For the files of a place.
Index("jobs_place_idx", jobs.c.place, postgresql_where=text("place IS NOT NULL"))

QUEUE_JOBS = """
CREATE FUNCTION queue_jobs() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO {schema}.jobs (kind, argument)
    SELECT kind, jsonb_build_object('id', come.id) FROM come CROSS JOIN unnest(TG_ARGV) AS kind;
    RETURN NULL;
END $$
"""
TELL_JOBS = f"""
CREATE FUNCTION tell_jobs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('{JOBS_CHANNEL}', '');
    RETURN NULL;
END $$
"""
# A NOTIFY makes all commits of the server wait for each other, also while they write to disk. So
# the service itself announces the jobs of new rows after the commit (cache/writer.py).
TELL_TRIGGER = f"""
CREATE TRIGGER jobs_told AFTER INSERT ON jobs
    FOR EACH STATEMENT WHEN (current_setting('application_name') <> '{SILENT}')
    EXECUTE FUNCTION tell_jobs()
"""
QUEUE_TRIGGER = f"""
CREATE TRIGGER {{name}} AFTER INSERT ON {{on}} REFERENCING NEW TABLE AS come
    FOR EACH STATEMENT WHEN (current_setting('{SWITCH}', true) IS DISTINCT FROM 'off')
    EXECUTE FUNCTION queue_jobs({{kinds}})
"""


def of_application(queues: Mapping[str, Sequence[str]]) -> Table:
    """The table of jobs of an application, with the kinds that the rows of other tables queue."""
    made = jobs.to_metadata(MetaData())
    made.info.update({**INTERNAL, QUEUES: dict(queues)})
    return made


def functions(tables: Iterable[Table]) -> list[str]:
    """The SQL that creates the functions; `{schema}` in it is the schema of the tables."""
    return [
        sql
        for one in tables
        if QUEUES in one.info
        for sql in ([QUEUE_JOBS] if one.info[QUEUES] else []) + [TELL_JOBS]
    ]


def triggers(tables: Iterable[Table]) -> list[str]:
    """The SQL that creates the triggers."""
    found = []
    for one in tables:
        if QUEUES in one.info:
            found.append(TELL_TRIGGER)
            found += [
                QUEUE_TRIGGER.format(
                    name=quoted(f"{table}_queue_jobs"),
                    on=quoted(table),
                    kinds=", ".join(map(literal, sorted(kinds))),
                )
                for table, kinds in one.info[QUEUES].items()
            ]
    return found
