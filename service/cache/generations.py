"""Generations: counters that a write increments. A response holds while its counters stand.

Whoever reads takes the stamp of what the answer depends on *before* it reads, and keeps the answer
with it. A write moves the counters of what it may have changed after its commit and before its
answer. So what was read too early is dead when it comes to be kept, however late that is, and no
fence can be forgotten: evicting an answer evicts nothing that protects it.
"""

from collections.abc import Collection, Iterable
from functools import lru_cache
from typing import Any
from zlib import crc32

from msgspec import UNSET

# One counter for everything; then those of lists; then those of rows. Who shares one by chance is
# read anew without need, never too late.
EVERYTHING = 0
LIST_TAGS = 4096
TAG_COUNT = 65_536

Tags = tuple[int, ...]


class Generations:
    """The counters of one process."""

    def __init__(self) -> None:
        self.counts = [0] * TAG_COUNT

    def stamp(self, tags: Tags) -> int:
        """A number that is the same as long as none of them has moved: counters only grow."""
        counts = self.counts
        total = counts[EVERYTHING]
        for tag in tags:
            total += counts[tag]
        return total

    def move(self, tags: Iterable[int]) -> None:
        """What depends on any of them holds no longer."""
        for tag in tags:
            self.counts[tag] += 1


class TableTags:
    """What the rows and the lists of a table depend on, and what a write of a row moves.

    A list filtered by one of `fields` is moved only by writes of rows that bear its value, before
    or after; any other list by every write of the table.

    Args:
        table: its name.
        fields: by which lists are told apart, the one with the most values first.
    """

    def __init__(self, table: str, *fields: str) -> None:
        self.table = table
        self.fields = fields
        self.salt = crc32(table.encode())
        self.lists: Tags = (_list_tag(table),)

    def row(self, row_id: int) -> Tags:
        """What the row with this id depends on."""
        return (LIST_TAGS + (self.salt + row_id) % (TAG_COUNT - LIST_TAGS),)

    def listed(self, query: object) -> Tags:
        """What the list that a query asks for depends on; filters it does not set are UNSET."""
        for field in self.fields:
            value = getattr(query, field, UNSET)
            if value is not UNSET:
                return _list_tag(self.table, field, value), _list_tag(self.table, field)
        return self.lists

    def many(self, row_ids: Iterable[int]) -> Tags:
        """What a write of many rows moves: these rows, and every list of the table."""
        rows = (tag for row_id in row_ids for tag in self.row(row_id))
        return (*rows, *self.lists, *(_list_tag(self.table, field) for field in self.fields))

    def written(self, row: Any, changed: Collection[str] = ()) -> Tags:
        """What a write moves: `row` as it is after it, or was; `changed` names what it has set.

        What a changed field was before is not known, so that every list by this field moves.
        """
        invalidate = [*self.row(row.id), *self.lists]
        for field in self.fields:
            invalidate.append(_list_tag(self.table, field, getattr(row, field)))
            if field in changed:
                invalidate.append(_list_tag(self.table, field))
        return tuple(invalidate)


@lru_cache(maxsize=10_000)
def _list_tag(*words: object) -> int:
    return 1 + crc32(repr(words).encode()) % (LIST_TAGS - 1)
