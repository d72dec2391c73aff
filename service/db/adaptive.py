"""A page of filtered rows, by whichever plan is cheaper for the values at hand.

Such a page has two good plans: walk an index in the sort order and keep what matches, or gather
all matches and sort them. The first is good for common matches, the second for rare ones, and the
wrong one takes seconds on a million rows. PostgreSQL can't choose: it keeps statistics of a
hundredth of the rows at best, and takes matches as spread evenly over the order. So the statement
chooses while it runs. Each step is a CTE, and runs only if those before it did not fill the page:

1. `near` walks some hundred rows. This is all that a common match costs.
2. `sample` looks at rows of pages all over the table. From them it estimates how many matches there
   are, and what it costs to gather and sort them.
3. `far` walks on for three quarters of that cost, unless the page can't be filled by then.
4. `every` gathers all matches. With a total that has to be counted, its rows are the total.

So a list costs at most about twice as much as its better plan, wherever the matches lie in the
order, and three times if the estimate is wrong by a factor of two; `python -m bench lists` measures
that.

The steps that walk read `hit` from the output of a subquery with a LIMIT, so that the planner
can't move it into the scan. Those that gather have no order, so that it can't walk. It is written
as text: SQLAlchemy takes 20 ms of CPU for as much in Core, 3 for this.
"""

# ruff: noqa: S608 - the text is made of expressions and names of ours; every value is bound

import re
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

from sqlalchemy import (
    BigInteger,
    BindParameter,
    BooleanClauseList,
    ClauseElement,
    ColumnElement,
    Select,
    Table,
    TextualSelect,
    and_,
    bindparam,
    column,
    literal_column,
    text,
)
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.sql.compiler import SQLCompiler

from service.db.estimate import BY_ID, SCATTERED, Walk, budget
from service.db.statement import RefusedError, quoted

Total = Literal["exact", "estimated", "none"]

# No estimate counts further.
ESTIMATE_LIMIT = 10_000

# Of a page. Lists without OFFSET are limited to one more by a literal too. PostgreSQL expects that
# an argument of LIMIT takes a tenth of the rows before it. So on a large table the plan for all
# values looked expensive, and each use was planned for its values: 50 us, and 550 for a list that
# is found in steps.
MOST_PER_PAGE = 100

# Of the parts that are given as expressions; each value keeps its name until all is compiled.
_CAST = re.compile(r"(?<![:\w]):\w+(?=::)")
NAMED = PGDialect(paramstyle="named")  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped


class Order(NamedTuple):
    """A key that rows are sorted by, with `id` behind it, and the direction of both."""

    key: ColumnElement[Any]
    descending: bool

    def by(self, key: ColumnElement[Any], id_: ColumnElement[Any]) -> list[ColumnElement[Any]]:
        """The ORDER BY of these columns; `id` is not sorted by twice."""
        columns = [key] if key is id_ else [key, id_]
        return [one.desc() if self.descending else one.asc() for one in columns]


class Driver(NamedTuple):
    """Conditions that one index serves together, and when it can."""

    clauses: list[ColumnElement[bool]]
    usable: ColumnElement[bool]


class Conditions(NamedTuple):
    """What a list is filtered by.

    `walked` is what the index of the order fulfils by itself, `filters` all else, `drivers` those
    of them that have an index; `cost` is that of the filters for one row, as in `Bound`.
    """

    walked: Sequence[ColumnElement[bool]]
    filters: Sequence[ColumnElement[bool]]
    drivers: Sequence[Driver]
    cost: int


# Whether a row, given as its key and id, comes after the cursor.
After = Callable[[ColumnElement[Any], ColumnElement[Any]], ColumnElement[bool]]


class Adaptive:
    """The steps of one page.

    Args:
        of: the table.
        order: of the page.
        conditions: of the rows.
        after: whether a row, given as its key and id, comes after the cursor, if there is one.
        numbered: whether `offset` is bound beside `limit`.
        total: how matches are counted.
    """

    def __init__(
        self,
        of: Table,
        order: Order,
        conditions: Conditions,
        *,
        after: After | None,
        numbered: bool,
        total: Total,
    ) -> None:
        numbers = ("limit", "offset") if numbered else ("limit",)
        self.binds: dict[str, BindParameter[Any]] = {
            name: bindparam(name, type_=BigInteger) for name in numbers
        }
        self.need = f"({' + '.join(f':{name}' for name in numbers)})"
        self.limit = " ".join(f"{name.upper()} :{name}" for name in numbers)
        self.numbered = numbered
        self.table = quoted(of)
        self.sort_key = order.key.label("sort_key")
        self.key = self._sql(order.key)
        self.by = ", ".join(self._sql(one) for one in order.by(order.key, of.c.id))
        way = "DESC" if order.descending else "ASC"
        self.page_by = f"sort_key {way}, id {way}"
        self.after: list[str] = []
        self.page_after: list[str] = []
        if after is not None:
            found = column("sort_key", order.key.type), column("id", BigInteger)
            self.after = [self._sql(after(order.key, of.c.id))]
            self.page_after = [self._sql(after(*found))]
        self.walked = [*map(self._sql, conditions.walked), *self.after]
        self.filters = [self._sql(one) for one in conditions.filters]
        self.matching = [*map(self._sql, conditions.walked), *self.filters]
        self.drivers = [
            (self._sql(and_(*one.clauses)), self._sql(one.usable)) for one in conditions.drivers
        ]
        self.total = total
        self.cost = conditions.cost
        self.costs = BY_ID if order.key is of.c.id else SCATTERED

    def select(
        self, shown: Sequence[ColumnElement[Any]], kept: Select[Any] | None
    ) -> TextualSelect:
        """The rows of the page with these columns, `sort_key` and unless it is "none" `total`.

        `kept` is the total of a list that need not be counted; the argument `total` is "none" then.
        """
        needed = "(SELECT needed FROM gather)"
        repeated = {
            "none": "0",
            "estimated": f"least({ESTIMATE_LIMIT} * seen / (rows * (found + 1)), 1)",
            "exact": "1",
        }[self.total]
        steps = {
            "near": self._near(),
            "reached": self._reached(),
            "sample": budget(
                Walk(self.table, self.filters, self.walked, self.drivers, self.cost),
                self.costs,
                need=self.need,
                repeated=repeated,
            ),
            "far": self._far(),
            "gather": (
                "SELECT short AND budget < remaining"
                " AND (SELECT count(*) FROM far) < :limit AS needed FROM sample"
            ),
            "every": self._gather(needed),
            "page": self._page(f"NOT {needed}"),
        }
        found, count = "(SELECT count(*) FROM every)", f"FROM {self.table}{_where(*self.matching)}"
        if self.total == "estimated":
            found = f"least({found}, {ESTIMATE_LIMIT})"
            count = f"FROM (SELECT {count} LIMIT {ESTIMATE_LIMIT}) AS matching"
        counted = f"CASE WHEN {needed} THEN {found} ELSE (SELECT count(*) {count}) END"
        if self.table in steps:
            raise RefusedError(
                f"a filtered list has a step called {self.table}, so a table can't be called so"
            )
        if kept is not None:
            counted = f"({self._sql(kept)})"
        return self._rows(steps, shown, None if self.total == "none" and kept is None else counted)

    def _rows(
        self, steps: dict[str, str], shown: Sequence[ColumnElement[Any]], counted: str | None
    ) -> TextualSelect:
        # Without MATERIALIZED the planner would merge a step that is read once into its reader.
        with_ = ",\n".join(f"{name} AS MATERIALIZED ({rows})" for name, rows in steps.items())
        names = [f"shown.{one.name}" for one in shown]
        # By OFFSET 0 each row is looked up by its id, whatever the planner takes for their number.
        rows = (
            f"page CROSS JOIN LATERAL (SELECT {', '.join(map(self._sql, shown))}"
            f" FROM {self.table} WHERE {self.table}.id = page.id OFFSET 0) AS shown"
        )
        columns = [*shown, self.sort_key]
        listed = ", ".join([*names, "page.sort_key"])
        if counted is not None:  # one row of total, joined to the page whatever the page holds
            rows = f"(SELECT {counted} AS total) AS counted LEFT JOIN ({rows}) ON true"
            listed += ", counted.total"
            columns.append(literal_column("total", BigInteger).label("total"))
        by = self.page_by.replace("sort_key", "page.sort_key").replace(" id ", " page.id ")
        whole = f"WITH {with_}\nSELECT {listed}\nFROM {rows}\nORDER BY {by}"
        return text(whole).bindparams(*self.binds.values()).columns(*columns)

    def _in_order(self, rows: str, *when: str) -> str:
        """So many rows in the order, and whether each is a match."""
        return (
            f"(SELECT {self.table}.id, {self.key} AS sort_key, {' AND '.join(self.filters)} AS hit"
            f"\n  FROM {self.table}{_where(*self.walked, *when)} ORDER BY {self.by} LIMIT {rows})"
        )

    def _near(self) -> str:
        """The first matches; the last row that may be walked is kept too, match or not."""
        return (
            "\n  SELECT id, sort_key, hit, n FROM (SELECT *, row_number() OVER () AS n"
            f" FROM {self._in_order(str(self.costs.sample))} AS walked) AS numbered"
            f"\n  WHERE hit OR n = {self.costs.sample} LIMIT {self.need}"
        )

    def _reached(self) -> str:
        """One row: how many matches `near` has, and whether the page needs more and may get it."""
        hits = "count(*) FILTER (WHERE hit)"
        return (
            f"SELECT {hits} AS hits, {hits} < {self.need} AND max(n) = {self.costs.sample} AS short"
            " FROM near"
        )

    def _far(self) -> str:
        """The page among the matches of the rows that may be walked; all of it, or too little."""
        rows = self._in_order(
            "(SELECT CASE WHEN budget < remaining THEN budget::bigint END FROM sample)",  # all
            "(SELECT budget > 0 FROM sample)",
        )
        return self._limited(f"SELECT id, sort_key FROM {rows} AS walked\n  WHERE hit", self.limit)

    def _gather(self, when: str) -> str:
        """The matches, in no order; those of the whole list where they are counted."""
        after = self.after if self.total == "none" else []
        return (
            f"\n  SELECT {self.table}.id, {self.key} AS sort_key"
            f" FROM {self.table}{_where(*self.matching, *after, when)}"
        )

    def _page(self, walked: str) -> str:
        """The page among the rows of the steps; only one of them has any."""
        after = [] if self.total == "none" else self.page_after
        found = (
            "SELECT id, sort_key FROM (SELECT id, sort_key FROM near"
            " WHERE hit AND NOT (SELECT short FROM reached)"
            f" UNION ALL SELECT * FROM every) AS found{_where(*after)}\n  ORDER BY {self.page_by}"
        )
        return f"({self._limited(found, self.limit)}) UNION ALL SELECT * FROM far WHERE {walked}"

    def _limited(self, rows: str, limit: str) -> str:
        if not self.numbered:
            rows = f"SELECT * FROM ({rows} LIMIT {MOST_PER_PAGE + 1}) AS most"
        return f"\n  {rows} {limit}"

    def _sql(self, part: ClauseElement) -> str:
        compiled = part.compile(dialect=NAMED)
        assert isinstance(compiled, SQLCompiler)  # noqa: S101 - narrows what compile() is typed as
        self.binds |= compiled.binds
        # `text` takes no name with a cast right behind it for a bind.
        sql = _CAST.sub(r"(\g<0>)", str(compiled))
        return f"({sql})" if isinstance(part, BooleanClauseList) else sql


def _where(*conditions: str) -> str:
    return "\n  WHERE " + " AND ".join(conditions) if conditions else ""
