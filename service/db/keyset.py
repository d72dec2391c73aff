"""Lists: the page and cursor statements of a table, one per combination of sort and filters.

A page is OFFSET and LIMIT with its total in the same statement, the first one without OFFSET. A
cursor goes on after the last row by comparing (key, id) as a row, which PostgreSQL answers from the
index at any depth (https://use-the-index-luke.com/no-offset). Both select one row more than the
page has, which shows whether there is more. Where an index has the matches of all filters in the
order of the page, the statement reads them from it; else adaptive.py finds them. Statements are
compiled when first met: the combinations are a closed set.
"""

from collections.abc import Collection, Mapping
from functools import cache
from typing import Any, Generic, TypeVar

from msgspec import UNSET, Struct
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    Table,
    TextualSelect,
    bindparam,
    func,
    literal_column,
    select,
    true,
    tuple_,
)

from service.db.adaptive import (
    ESTIMATE_LIMIT,
    MOST_PER_PAGE,
    Adaptive,
    After,
    Conditions,
    Driver,
    Order,
    Total,
)
from service.db.filters import LIMITED, Bound, Choice, Chosen, Filter, OwnFilter, worded
from service.db.kept_totals import kept_totals
from service.db.ownership import OWN
from service.db.statement import RefusedError, Statement, columns

Row = TypeVar("Row", bound=Struct)


class Listing(Generic[Row]):
    """What can be listed of a table, and how.

    Args:
        name: of its statements: `<name>.page…`, `<name>.after…`.
        row: the Struct that a row becomes.
        table: has a column `id`.
        keys: the sorts by name; each key must not be null and need an index (key, id).
        filters: the conditions by name, as in the query.
        totals: where triggers keep the table's totals, so that neither all rows nor the active
            ones are counted; without it they are counted each time.
        own: the filter by the owner of a row, for lists that are limited to the rows of one; None
            if everyone may see all rows.
        together: filters whose matches one index has in the order of the ids.

    Raises:
        RefusedError: no trigger keeps the totals of this table, or a filter has a reserved name.
    """

    def __init__(
        self,
        name: str,
        row: type[Row],
        table: Table,
        keys: Mapping[str, ColumnElement[Any]],
        filters: Mapping[str, Filter],
        totals: Table | None = None,
        *,
        own: OwnFilter | None = None,
        together: Collection[frozenset[tuple[str, object]]] = (),
    ) -> None:
        if reserved := filters.keys() & {"limit", "offset", "last_id", "last_key"}:
            raise RefusedError(
                f"{name}: a filter can't be called {min(reserved)!r}: leave it out of `filters`, or"
                " give the field another name"
            )
        self.name = name
        self.row = row
        self.table = table
        self.filters = filters
        self.own = own
        self.together = together
        self.conditions = filters if own is None else {**filters, LIMITED[0]: own.filter}
        self.totals = {} if totals is None else kept_totals(table, totals)
        self.orders = {
            sign + sort: Order(key, sign == "-") for sort, key in keys.items() for sign in ("", "-")
        }
        self.page = cache(self._page)
        self.after = cache(self._after)

    def choose(self, query: object, owner: int | None = None) -> tuple[Chosen, dict[str, object]]:
        """The filters that a query sets, and the values to bind for them.

        With `owner`, if the list can be limited, also the one by this user.
        """
        chosen: list[tuple[str, object]] = []
        values: dict[str, object] = {}
        if owner is not None and self.own is not None:
            chosen.append(LIMITED)
            values[self.own.bind] = owner
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

    def clauses(self, chosen: Chosen) -> list[ColumnElement[bool]]:
        """The conditions of what was chosen."""
        found = ((self.conditions[name], value) for name, value in chosen)
        return [
            one.clauses[value] if isinstance(one, Choice) else one.clause for one, value in found
        ]

    def _page(
        self, sort: str, chosen: Chosen, total: Total, *, first: bool = False
    ) -> Statement[Row]:
        """Arguments: those of the filters, `limit`, and unless it is the first page `offset`.

        Extra columns: `sort_key`, `total`.
        """
        offset = None if first else _number("offset")
        return self._statement("page", sort, chosen, total, None, offset)

    def _after(self, sort: str, chosen: Chosen, total: Total, *, start: bool) -> Statement[Row]:
        """Arguments: those of the filters, `limit`, and unless at the start `key` and `id`."""
        if start:
            return self._statement("start", sort, chosen, total, None, None)
        order = self.orders[sort]

        def after(key: ColumnElement[Any], id_: ColumnElement[Any]) -> ColumnElement[bool]:
            last = bindparam("last_id", type_=BigInteger)
            if order.key is self.table.c.id:
                return id_ < last if order.descending else id_ > last
            here = tuple_(key, id_)
            there = tuple_(bindparam("last_key", type_=order.key.type), last)
            return here < there if order.descending else here > there

        return self._statement("after", sort, chosen, total, after, None)

    def _statement(
        self,
        what: str,
        sort: str,
        chosen: Chosen,
        total: Total,
        after: After | None,
        offset: ColumnElement[int] | None,
    ) -> Statement[Row]:
        walked, others = self._walked(sort, chosen)
        core: Select[Any] | TextualSelect
        if others:
            core = self._found(sort, walked, others, total, after, offset)
        else:
            core = self._read(sort, walked, total, after, offset)
        return Statement(
            self._name(what, sort, chosen, total, numbered=offset is not None),
            self.row,
            core,
            extra=("sort_key",) if total == "none" else ("sort_key", "total"),
            prepare=False,
            by_values=any(
                isinstance(one := self.conditions[name], Bound)
                and not (one.one_plan and not others)
                for name, _ in chosen
            ),
        )

    def _walked(self, sort: str, chosen: Chosen) -> tuple[Chosen, Chosen]:
        """The filters whose matches are read in this order, and the others.

        In the order of the ids that is any Choice: at worst the whole table is read, as a
        sequential scan would.
        """
        if self.own is not None and self.own.unique and LIMITED in chosen:
            return chosen, ()
        field = sort.lstrip("-")
        if field == "id" and all(isinstance(self.conditions[name], Choice) for name, _ in chosen):
            return chosen, ()
        for several in self.together:
            if field == "id" and several.issubset(chosen):
                others = tuple(one for one in chosen if one not in several)
                return tuple(one for one in chosen if one in several), others
        indexes = [self.conditions[name].index_for(value) for name, value in chosen]
        first = next((index for index in indexes if index and index.sort == field), None)
        if first is None:
            return (), chosen
        walked = tuple(one for one, index in zip(chosen, indexes, strict=True) if index is first)
        return walked, tuple(one for one in chosen if one not in walked)

    def _read(
        self,
        sort: str,
        chosen: Chosen,
        total: Total,
        after: After | None,
        offset: ColumnElement[int] | None,
    ) -> Select[Any]:
        """The rows of an index, as they come."""
        order, id_ = self.orders[sort], self.table.c.id
        rows = (
            select(*columns(self.row, self.table), order.key.label("sort_key"))
            .where(*self.clauses(chosen), *([after(order.key, id_)] if after else []))
            .order_by(*order.by(order.key, id_))
        )
        limit = _number("limit")
        most = literal_column(str(MOST_PER_PAGE + 1)) if offset is None else limit
        page = rows.limit(most).offset(offset).subquery("page")
        found = select(*page.c)
        if total != "none":
            # One row of total, joined to the page whatever the page holds: the total is there on an
            # empty page too. A join on nothing can only be a nested loop, which keeps the order.
            counted = self.count(chosen, total).subquery("counted")
            found = found.add_columns(counted.c.total).select_from(counted.outerjoin(page, true()))
        return found.limit(limit) if offset is None else found

    def _found(
        self,
        sort: str,
        walked: Chosen,
        others: Chosen,
        total: Total,
        after: After | None,
        offset: ColumnElement[int] | None,
    ) -> TextualSelect:
        """The rows that match, however they are found."""
        kept = self.totals.get((*walked, *others)) if total != "none" else None
        drivers: dict[str, Driver] = {}
        for one in others:
            if index := self.conditions[one[0]].index_for(one[1]):
                driver = drivers.setdefault(index.name, Driver([], index.usable))
                driver.clauses.extend(self.clauses((one,)))
        cost = sum(self.conditions[name].cost for name, _ in others)
        adaptive = Adaptive(
            self.table,
            self.orders[sort],
            Conditions(self.clauses(walked), self.clauses(others), list(drivers.values()), cost),
            after=after,
            numbered=offset is not None,
            total=total if kept is None else "none",
        )
        return adaptive.select(columns(self.row, self.table), kept)

    def _name(self, what: str, sort: str, chosen: Chosen, total: Total, *, numbered: bool) -> str:
        """As a query would say it, without its defaults: `items.page?sort=-price&q&page`."""
        parts = [] if sort == "id" else [f"sort={sort}"]
        parts += worded(chosen)
        if total != ("exact" if what == "page" else "none"):
            parts.append(f"total={total}")
        if numbered:
            parts.append("page")
        end = OWN if LIMITED in chosen else ""
        return f"{self.name}.{what}{end}" + ("?" + "&".join(parts) if parts else "")

    def count(self, chosen: Chosen, total: Total) -> Select[Any]:
        """The `total` of a list by itself."""
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
