"""Lists: the page and cursor statements of a table, one per combination of sort and filters.

A page is OFFSET and LIMIT with its total in the same statement; a cursor goes on after the last
row by comparing (key, id) as a row, which PostgreSQL answers from the index at any depth
(https://use-the-index-luke.com/no-offset). Both select one row more than asked, which tells
whether there is more. Statements are compiled when first met: the combinations are a closed set.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, Generic, Literal, NamedTuple, TypeVar, get_args
from urllib.parse import parse_qsl

from msgspec import UNSET, Struct
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    Table,
    Text,
    bindparam,
    cast,
    func,
    literal_column,
    or_,
    select,
    true,
    tuple_,
)

from service.db.statement import Statement, columns

Row = TypeVar("Row", bound=Struct)
Total = Literal["exact", "estimated", "none"]


class Choice(NamedTuple):
    """A filter of few values, each written into the text, so that a partial index can match."""

    clauses: Mapping[object, ColumnElement[bool]]


class Bound(NamedTuple):
    """A filter that binds its value by its own name, after `encode`."""

    clause: ColumnElement[bool]
    encode: Callable[[Any], object] = lambda value: value


Filter = Choice | Bound
# What is chosen of a filter: its name, and the value of a Choice.
Chosen = tuple[tuple[str, object], ...]

# An estimate under a filter counts no further than this: 1 ms on the machine that chose it.
ESTIMATE_LIMIT = 10_000


class Order(NamedTuple):
    """A key that rows are sorted by, with `id` behind it, and the direction of both."""

    key: ColumnElement[Any]
    descending: bool


class Listing(Generic[Row]):
    """What can be listed of a table, and how.

    Args:
        name: of its statements: `<name>.page…`, `<name>.after…`.
        row: the Struct that a row becomes.
        table: has a column `id`.
        keys: the sorts by name; each key must not be null and need an index (key, id).
        filters: the conditions by name, as in the query.
        totals: where every writer keeps the table's totals, so that neither all rows nor those of
            `is_active` are counted.
    """

    def __init__(
        self,
        name: str,
        row: type[Row],
        table: Table,
        keys: Mapping[str, ColumnElement[Any]],
        filters: Mapping[str, Filter],
        totals: Table,
    ) -> None:
        self.name = name
        self.row = row
        self.table = table
        self.filters = filters
        total, active = (func.sum(totals.c[name]) for name in ("total", "active"))
        self.totals: dict[Chosen, Select[Any]] = {
            chosen: select(
                cast(func.coalesce(kept, literal_column("0")), BigInteger).label("total")
            ).where(totals.c.name == literal_column(f"'{table.name}'"))
            for chosen, kept in {
                (): total,
                (("is_active", True),): active,
                (("is_active", False),): total - active,
            }.items()
        }
        self.orders = {
            sign + sort: Order(key, sign == "-") for sort, key in keys.items() for sign in ("", "-")
        }
        self.page = cache(self._page)
        self.after = cache(self._after)

    def choose(self, query: object) -> tuple[Chosen, dict[str, object]]:
        """The filters that a query sets, and the values to bind for them."""
        chosen, values = [], {}
        for name, one in self.filters.items():
            value = getattr(query, name)
            if value is UNSET:
                continue
            if isinstance(one, Choice):
                chosen.append((name, value))
            else:
                chosen.append((name, None))
                values[name] = one.encode(value)
        return tuple(chosen), values

    def named(self, name: str) -> Statement[Row]:
        """The statement of a name as `_name` writes it.

        Raises:
            KeyError: no such statement.
        """
        start, _, query = name.partition("?")
        what = start.removeprefix(f"{self.name}.")
        given = dict(parse_qsl(query, keep_blank_values=True))
        sort = given.pop("sort", "id")
        total: Any = given.pop("total", "exact" if what == "page" else "none")
        chosen = self.chosen(given)
        if sort not in self.orders or total not in get_args(Total):
            raise KeyError(name)
        if what == "page":
            return self.page(sort, chosen, total)
        return self.after(sort, chosen, total, start={"start": True, "after": False}[what])

    def chosen(self, given: Mapping[str, str]) -> Chosen:
        """The filters as a name writes them; raises as `named`."""
        chosen: list[tuple[str, object]] = []
        for name, value in given.items():
            one = self.filters[name]
            values = (
                {str(known).lower(): known for known in one.clauses}
                if isinstance(one, Choice)
                else {"": None}
            )
            chosen.append((name, values[value]))
        return tuple(chosen)

    def samples(self) -> Iterator[Statement[Row]]:
        """Enough to read: every sort each way, then every filter and total in the default sort."""
        for sort in self.orders:
            yield self.page(sort, (), "exact")
            yield self.after(sort, (), "none", start=True)
            yield self.after(sort, (), "none", start=False)
        for name, one in self.filters.items():
            for value in one.clauses if isinstance(one, Choice) else (None,):
                yield self.page("id", ((name, value),), "exact")
        searched = next(name for name, one in self.filters.items() if isinstance(one, Bound))
        yield self.page("id", ((searched, None),), "estimated")
        yield self.page("id", (), "none")

    def clauses(self, chosen: Chosen) -> list[ColumnElement[bool]]:
        """The conditions of what was chosen."""
        found = ((self.filters[name], value) for name, value in chosen)
        return [
            one.clauses[value] if isinstance(one, Choice) else one.clause for one, value in found
        ]

    def _page(self, sort: str, chosen: Chosen, total: Total) -> Statement[Row]:
        """Arguments: the filters' own, `limit`, `offset`. Extra columns: `sort_key`, `total`."""
        rows = self._rows(sort, chosen).offset(_number("offset"))
        return self._statement("page", sort, chosen, total, rows)

    def _after(self, sort: str, chosen: Chosen, total: Total, *, start: bool) -> Statement[Row]:
        """Arguments: those of the filters, `limit`, and unless at the start `key` and `id`."""
        rows = self._rows(sort, chosen)
        if not start:
            key, descending = self.orders[sort]
            last = bindparam("last_id", type_=BigInteger)
            after: ColumnElement[bool]
            if key is self.table.c.id:
                after = key < last if descending else key > last
            else:
                here = tuple_(key, self.table.c.id)
                there = tuple_(bindparam("last_key", type_=key.type), last)
                after = here < there if descending else here > there
            rows = rows.where(after)
        return self._statement("start" if start else "after", sort, chosen, total, rows)

    def _rows(self, sort: str, chosen: Chosen) -> Select[Any]:
        key, descending = self.orders[sort]
        by = [key] if key is self.table.c.id else [key, self.table.c.id]
        return (
            select(*columns(self.row, self.table), key.label("sort_key"))
            .where(*self.clauses(chosen))
            .order_by(*(column.desc() if descending else column.asc() for column in by))
            .limit(_number("limit"))
        )

    def _statement(
        self,
        what: str,
        sort: str,
        chosen: Chosen,
        total: Total,
        rows: Select[Any],
    ) -> Statement[Row]:
        name = self._name(what, sort, chosen, total)
        if total == "none":
            return Statement(name, self.row, rows, extra=("sort_key",), prepare=False)
        # One row of total, joined to the page whatever the page holds: the total is there on an
        # empty page too. A join on nothing can only be a nested loop, which keeps the page's order.
        page = rows.subquery("page")
        counted = self._count(chosen, total).subquery("counted")
        core = select(*page.c, counted.c.total).select_from(counted.outerjoin(page, true()))
        return Statement(name, self.row, core, extra=("sort_key", "total"), prepare=False)

    def _name(self, what: str, sort: str, chosen: Chosen, total: Total) -> str:
        """As a query would say it, without its defaults: `items.page?sort=-price&q`."""
        parts = [] if sort == "id" else [f"sort={sort}"]
        parts += worded(chosen)
        if total != ("exact" if what == "page" else "none"):
            parts.append(f"total={total}")
        return f"{self.name}.{what}" + ("?" + "&".join(parts) if parts else "")

    def _count(self, chosen: Chosen, total: Total) -> Select[Any]:
        if chosen in self.totals:
            return self.totals[chosen]
        matching: Select[Any] = (
            select(literal_column("1")).select_from(self.table).where(*self.clauses(chosen))
        )
        if total == "estimated":
            matching = matching.limit(literal_column(str(ESTIMATE_LIMIT)))
        return select(func.count().label("total")).select_from(matching.subquery("matching"))


def _number(name: str) -> ColumnElement[int]:
    return bindparam(name, type_=BigInteger)


def worded(chosen: Chosen) -> list[str]:
    """The filters as the name of a statement has them; `Listing.chosen` reads them back."""
    return [name if value is None else f"{name}={value}".lower() for name, value in chosen]


def search(*columns: ColumnElement[Any]) -> Bound:
    """The filter `q`: rows of which a column holds it as a substring, in whatever case.

    As ILIKE would, which lowers the pattern anew for each row and so takes 1.4 times as long.
    """
    pattern = select(func.lower(bindparam("q", type_=Text))).scalar_subquery()
    found = (func.lower(column).like(pattern, escape="\\") for column in columns)
    return Bound(or_(*found), containing)


def containing(text: str) -> str:
    r"""The LIKE pattern of a substring: `%`, `_` and `\` stand for themselves."""
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"
