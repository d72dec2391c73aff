"""A job in a response."""

from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

JobState = Annotated[Literal["queued", "running", "done", "failed"], Meta(title="JobState")]


class JobProgress(Struct, frozen=True):
    """How far a job is; `total` is null if it is not known."""

    done: Annotated[int, Meta(examples=[0])]
    total: int | None


class JobShown(Struct, frozen=True):
    """A job in a response; `result` is what it returned, `error` is why it failed."""

    id: Annotated[int, Meta(examples=[1])]
    kind: Annotated[str, Meta(examples=["import"])]
    state: JobState
    progress: JobProgress
    attempts: int
    result: Any
    error: str | None
    created_at: datetime
    finished_at: datetime | None
