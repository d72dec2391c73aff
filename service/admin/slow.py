"""Which statements cost the most, from the figures of all workers since they started."""

from collections.abc import Iterable
from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from service.metrics.families import DB_DURATION, DB_QUERIES, DB_ROWS
from service.metrics.slots import Slot

Order = Literal["total", "mean", "max", "calls", "rows", "errors", "timeouts"]


class InDatabase(Struct, frozen=True):
    """What pg_stat_statements has about a statement, from all programs and since its own reset.

    Args:
        calls: that succeeded.
        total_ms: in the executor, in milliseconds.
        mean_ms: of one call.
        max_ms: of the slowest call.
        rows: returned or changed.
        blocks_hit: found in PostgreSQL's cache.
        blocks_read: read from a file.
        temp_blocks_written: written to temporary files: work_mem was too small.
        wal_bytes: written to the log.
    """

    calls: int
    total_ms: float
    mean_ms: float
    max_ms: float
    rows: int
    blocks_hit: int
    blocks_read: int
    temp_blocks_written: int
    wal_bytes: int


class SlowStatement(Struct, frozen=True, kw_only=True):
    """The figures of one statement; the times are on its connection, as the service sees them.

    Args:
        statement: its name, for `GET /admin/explain/{statement}`.
        calls: all of them.
        errors: that failed for another reason than a timeout.
        timeouts: that failed by a timeout.
        rows: returned.
        total_ms: in milliseconds.
        mean_ms: of one call.
        max_ms: of the slowest call.
        in_database: from pg_stat_statements; missing if that has nothing about it.
    """

    statement: Annotated[str, Meta(examples=["notes.by_id"])]
    calls: Annotated[int, Meta(examples=[1200])]
    errors: int
    timeouts: int
    rows: int
    total_ms: Annotated[float, Meta(examples=[240.5])]
    mean_ms: Annotated[float, Meta(examples=[0.2])]
    max_ms: Annotated[float, Meta(examples=[6.75])]
    in_database: InDatabase | UnsetType = UNSET


class _Sum:
    """The figures of one statement, while they are added."""

    __slots__ = ("calls", "errors", "longest", "rows", "seconds", "timeouts")

    def __init__(self) -> None:
        self.calls = self.errors = self.timeouts = self.rows = 0
        self.seconds = self.longest = 0.0


def slowest(slots: Iterable[Slot], order: Order, limit: int) -> list[SlowStatement]:
    """Return the worst statements, the worst first.

    Args:
        slots: of all workers, also of those that have ended.
        order: by which figure.
        limit: how many.
    """
    sums: dict[str, _Sum] = {}
    buckets = len(DB_DURATION.buckets) + 1
    for slot in slots:
        for family, labels, values in slot.series:
            if family.name not in {DB_DURATION.name, DB_QUERIES.name, DB_ROWS.name}:
                continue
            found = sums.setdefault(labels[0], _Sum())
            if family.name == DB_ROWS.name:
                found.rows += int(values[0])
            elif family.name == DB_DURATION.name:
                found.calls += int(sum(values[:buckets]))
                found.seconds += values[buckets]
                found.longest = max(found.longest, values[buckets + 1])
            elif labels[1] == "error":
                found.errors += int(values[0])
            elif labels[1] == "timeout":
                found.timeouts += int(values[0])
    rows = [_row(name, one) for name, one in sums.items() if one.calls]
    member = f"{order}_ms" if order in {"total", "mean", "max"} else order
    rows.sort(key=lambda row: (-getattr(row, member), row.statement))
    return rows[:limit]


def _row(name: str, one: _Sum) -> SlowStatement:
    return SlowStatement(
        statement=name,
        calls=one.calls,
        errors=one.errors,
        timeouts=one.timeouts,
        rows=one.rows,
        total_ms=round(one.seconds * 1000, 3),
        mean_ms=round(one.seconds * 1000 / one.calls, 3),
        max_ms=round(one.longest * 1000, 3),
    )
