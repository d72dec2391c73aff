"""Generations: each invalidation has a number, and each tag the number of its last one.

A reader takes the newest number *before* it reads, and keeps it with the response, which is valid
while no tag of it has a higher one. A write raises the numbers of what it may have changed, after
its commit and before its response. So a response that was read too early is invalid by the time it
is kept, however late that is. Evicting a response changes no number.
"""

from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any
from zlib import crc32

from msgspec import UNSET

from service.logs import logger

# A tag is a place in a table: one for everything, then those of lists, then those of rows.
# Where two share one by chance, a response is loaded again without need; it is never too old.
EVERYTHING = 0
FIRST_ROW_TAG = 4096
TAG_COUNT = 65_536

Tags = tuple[int, ...]


def message(tags: Tags) -> str:
    """The tags as they are sent to other workers."""
    return ",".join(map(str, tags))


def parse(text: str) -> Tags:
    """The tags of a message; EVERYTHING if it is malformed."""
    try:
        tags = tuple(int(tag) for tag in text.split(","))
    except ValueError:
        tags = ()
    if tags and all(0 <= tag < TAG_COUNT for tag in tags):
        return tags
    logger.warning("malformed invalidation message: everything is invalidated")
    return (EVERYTHING,)


class Generations:
    """The numbers of one process.

    Attributes:
        newest: the number of the last invalidation.
        last: by tag, the number of its last one.
    """

    def __init__(self) -> None:
        self.newest = 0
        self.last = [0] * TAG_COUNT

    def current(self, tags: Tags | int, generation: int) -> bool:
        """Whether none of the tags was invalidated after this number was the newest.

        `tags` may be one tag: a tuple for each row that is kept takes more time and memory.
        """
        if generation == self.newest:
            return True
        last = self.last
        if last[EVERYTHING] > generation:
            return False
        if isinstance(tags, int):
            return last[tags] <= generation
        for tag in tags:  # noqa: SIM110 - a generator takes twice the time of a loop
            if last[tag] > generation:
                return False
        return True

    def advance(self, tags: Iterable[int]) -> None:
        """Invalidate what depends on any of these tags."""
        self.newest = newest = self.newest + 1
        for tag in tags:
            self.last[tag] = newest


class TableTags:
    """The tags of a table: what its rows and lists depend on, and what a write invalidates.

    A list filtered by one of `fields` is invalidated only by writes of rows that have its value,
    before or after; any other list by every write of the table.

    Args:
        table: its name.
        fields: those by which lists are told apart, the one with the most values first.
    """

    def __init__(self, table: str, *fields: str) -> None:
        self.table = table
        self.fields = fields
        self.salt = crc32(table.encode())
        self.lists: Tags = (_list_tag(table),)

    def row(self, row_id: int) -> Tags:
        """What the row with this id depends on."""
        return (self.row_tag(row_id),)

    def row_tag(self, row_id: int) -> int:
        """The only tag of `row`."""
        return FIRST_ROW_TAG + (self.salt + row_id) % (TAG_COUNT - FIRST_ROW_TAG)

    def listed(self, query: object) -> Tags:
        """What the list of a query depends on; filters that it does not set are UNSET."""
        for field in self.fields:
            value = getattr(query, field, UNSET)
            if value is not UNSET:
                return self.having(field, value)
        return self.lists

    def having(self, field: str, value: object) -> Tags:
        """What a response depends on that has rows with this value in one of `fields`."""
        return _list_tag(self.table, field, _same(value)), _list_tag(self.table, field)

    def many(self, row_ids: Iterable[int]) -> Tags:
        """What a write of many rows invalidates: these rows, and every list of the table."""
        first, many, salt = FIRST_ROW_TAG, TAG_COUNT - FIRST_ROW_TAG, self.salt
        rows = [first + (salt + row_id) % many for row_id in row_ids]  # as `row`, in half the time
        return (*rows, *self.lists, *(_list_tag(self.table, field) for field in self.fields))

    def written(self, row: Any, changed: Collection[str] = ()) -> Tags:
        """What a write of one row invalidates.

        Args:
            row: after the write; a removed row as it was before.
            changed: the fields that were set. Their old values are not known, so every list by one
                of these fields is invalidated.
        """
        tags = [*self.row(row.id), *self.lists]
        for field in self.fields:
            tags.append(_list_tag(self.table, field, _same(getattr(row, field))))
            if field in changed:
                tags.append(_list_tag(self.table, field))
        return tuple(tags)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _same(value: object) -> object:
    """Equal values as one object of the same form: 1.5 and 1.50, -0.0, a time in another zone."""
    if isinstance(value, datetime):
        return value - _EPOCH if value.tzinfo is not None else value
    if isinstance(value, float):
        return value + 0.0
    if isinstance(value, Decimal):
        return value.normalize() + 0
    return value


@lru_cache(maxsize=10_000, typed=True)
def _list_tag(*parts: object) -> int:
    return 1 + crc32(repr(parts).encode()) % (FIRST_ROW_TAG - 1)
