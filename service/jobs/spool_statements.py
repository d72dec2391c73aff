"""The statement that finds the jobs of files."""

from sqlalchemy import bindparam, func, literal_column, select

from service.db.job_table import jobs
from service.db.statement import Statement

_file = func.jsonb_extract_path_text(jobs.c.argument, literal_column("'file'"))
# The files of the jobs of a place, and the states of these jobs.
spooled = Statement(
    "jobs.spooled",
    tuple,
    select(_file.label("file"), jobs.c.state).where(
        jobs.c.place == bindparam("place", type_=jobs.c.place.type)
    ),
    order=("place",),
    prepare=False,
)
