"""Jobs as clients see them."""

from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

Time = Annotated[datetime, Meta(tz=True)]
# The title names the enumeration in the OpenAPI document, and so in a generated client.
JobState = Annotated[Literal["queued", "running", "done", "failed"], Meta(title="JobState")]
Kind = Annotated[str, Meta(min_length=1, max_length=100, examples=["welcome"])]


class Progress(Struct, frozen=True):
    """How much of a job is done; `total` is null while that is not known."""

    done: Annotated[int, Meta(examples=[120])]
    total: Annotated[int | None, Meta(examples=[500])]


class Job(Struct, frozen=True):
    """A job; `error` says why the last attempt failed, and `result` depends on the kind."""

    id: int
    kind: Annotated[str, Meta(examples=["welcome"])]
    state: JobState
    progress: Progress
    attempts: Annotated[int, Meta(examples=[1])]
    result: Any
    error: str | None
    created_at: Time
    finished_at: Time | None
