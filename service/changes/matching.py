"""Whether a change matches the filters of a list, exactly as the list's SQL decides."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from service.changes.change import Change
from service.db.letter_case import lower

Test = Callable[[Change], bool]


class Equal(NamedTuple):
    """A field and the value that it must have."""

    field: str
    value: Any


class Matcher:
    """The filters of one subscriber; those with an equal `key` match the same changes.

    Attributes:
        key: what it filters.
        first: an equality by which it is found in a dictionary; None without one.
        tests: the other conditions.
    """

    def __init__(self, name: str, equal: Sequence[Equal], tests: Mapping[Any, Test]) -> None:
        self.key = (name, tuple(equal), tuple(tests))
        self.first = equal[0] if equal else None
        self.tests = (*(_equal(*one) for one in equal[1:]), *tests.values())
        self._all = tuple(self.tests) if not equal else (_equal(*equal[0]), *self.tests)

    def rest(self, change: Change) -> bool:
        """Whether a change that was found by `first` matches."""
        return all(test(change) for test in self.tests)

    def matches(self, change: Change) -> bool:
        """Whether a change matches."""
        return all(test(change) for test in self._all)


def _equal(field: str, value: Any) -> Test:
    return lambda change: bool(getattr(change.row, field) == value)


def at_least(field: str, bound: Any) -> Test:
    """`min_<field>`; null never matches."""

    def test(change: Change) -> bool:
        value = getattr(change.row, field)
        return value is not None and bool(value >= bound)

    return test


def at_most(field: str, bound: Any) -> Test:
    """`max_<field>`; null never matches."""

    def test(change: Change) -> bool:
        value = getattr(change.row, field)
        return value is not None and bool(value <= bound)

    return test


def holding(fields: Sequence[str], text: str, table: Mapping[int, str]) -> Test:
    """`q`: a field holds the text, in whatever case; `table` is of letter_case.lower_case."""
    wanted = lower(text, table)

    def test(change: Change) -> bool:
        lowered = change.lowered
        if lowered is None:
            lowered = change.lowered = {}
        for field in fields:
            found = lowered.get(field)
            if found is None:
                value = getattr(change.row, field)
                found = lowered[field] = "" if value is None else lower(value, table)
            if wanted in found:
                return True
        return False

    return test
