"""A page of filtered rows, by whichever plan is cheaper for the values at hand.

Such a page has two good plans: walk an index in the sort order and keep what matches, or gather
all matches and sort them. The first is good for common matches, the second for rare ones, and the
wrong one takes seconds on a million rows. PostgreSQL can't choose: it keeps statistics of a
hundredth of the rows at best, and takes matches as spread evenly over the order. So the statement
chooses while it runs. Each step is a CTE, and runs only if those before it did not fill the page:

1. `near` walks some hundred rows. This is all that a common match costs.
2. `sample` counts in the same rows how many each index would gather.
3. `far` walks on for as long as gathering would take by that estimate; in `id` order without a
   usable index it walks to the end, since a sequential scan is not cheaper.
4. `few` gathers up to ESTIMATE_LIMIT matches.
5. `onward` walks once more, a part of the table: there are many matches, one may be near.
6. `every` gathers all matches.

With an exact total, which has to find all matches anyhow, `every` follows `far` at once, and is
what is counted. A step costs about as much as the best plan at most, so that their sum stays below
a small multiple of it; `python -m bench lists` measures that.

The steps that walk read `hit` from the output of a subquery with a LIMIT, so that the planner
can't move it into the scan. Those that gather have no order, so that it can't walk. It is written
as text: SQLAlchemy takes 20 ms of CPU for as much in Core, 3 for this.
"""

# ruff: noqa: S608 - the text is made of expressions and names of ours; every value is bound

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

Total = Literal["exact", "estimated", "none"]

# Rows that are walked first: 0.3 ms in the order of the ids, 1 ms in another, where each row is on
# a page of its own.
SAMPLE = 500
SCATTERED_SAMPLE = 200
# Matches gathered before it is clear that there are few: 10 ms. No estimate counts further.
ESTIMATE_LIMIT = 10_000
# A row found through an index other than that of the order, in rows of a sequential scan.
GATHERED = 2
# A row walked in another order than that of the ids, which is about that of the pages.
SCATTERED = 10
# The part of the table that `onward` may walk, in the order of the ids and in another. It takes
# about as long as `few`.
ONWARD, SCATTERED_ONWARD = 16, 64
# How often the number of rows that `far` needs if matches are spread evenly it may walk.
MARGIN = 4


# Of the parts that are given as expressions; each value keeps its name until all is compiled.
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


# Whether a row, given as its key and id, comes after the cursor.
After = Callable[[ColumnElement[Any], ColumnElement[Any]], ColumnElement[bool]]


class Adaptive:
    """The steps of one page.

    Args:
        of: the table.
        order: of the page.
        walked: conditions that the index of the order fulfils by itself.
        filters: all other conditions.
        drivers: which of them have an index.
        after: whether a row, given as its key and id, comes after the cursor, if there is one.
        numbered: whether `offset` is bound beside `limit`.
        total: how matches are counted.
    """

    def __init__(
        self,
        of: Table,
        order: Order,
        *,
        walked: Sequence[ColumnElement[bool]],
        filters: Sequence[ColumnElement[bool]],
        drivers: Sequence[Driver],
        after: After | None,
        numbered: bool,
        total: Total,
    ) -> None:
        numbers = ("limit", "offset") if numbered else ("limit",)
        self.binds: dict[str, BindParameter[Any]] = {
            name: bindparam(name, type_=BigInteger) for name in numbers
        }
        self.need = " + ".join(f":{name}" for name in numbers)
        self.limit = " ".join(f"{name.upper()} :{name}" for name in numbers)
        self.table = of.name
        self.sort_key = order.key.label("sort_key")
        self.key = self._sql(order.key)
        by_id = order.key is of.c.id
        self.by = ", ".join(self._sql(one) for one in order.by(order.key, of.c.id))
        way = "DESC" if order.descending else "ASC"
        self.page_by = f"sort_key {way}, id {way}"
        self.after: list[str] = []
        self.page_after: list[str] = []
        if after is not None:
            found = column("sort_key", order.key.type), column("id", BigInteger)
            self.after = [self._sql(after(order.key, of.c.id))]
            self.page_after = [self._sql(after(*found))]
        self.walked = [*map(self._sql, walked), *self.after]
        self.filters = [self._sql(one) for one in filters]
        self.matching = [*map(self._sql, walked), *self.filters]
        self.drivers = [
            (self._sql(and_(*one.clauses)), len(one.clauses) == len(filters), self._sql(one.usable))
            for one in drivers
        ]
        self.total = total
        self.cost = 1 if by_id else SCATTERED
        self.sample = SAMPLE if by_id else SCATTERED_SAMPLE
        self.onward = ONWARD if by_id else SCATTERED_ONWARD

    def select(
        self, shown: Sequence[ColumnElement[Any]], kept: Select[Any] | None
    ) -> TextualSelect:
        """The rows of the page with these columns, `sort_key` and unless it is "none" `total`.

        `kept` is the total of a list that need not be counted; the argument `total` is "none" then.
        """
        steps = {
            "near": self._walk(str(self.sample)),
            "sample": self._sample(),
            "far": self._walk(
                # NULL: to the end
                "(SELECT CASE WHEN budget < rows THEN budget::bigint END FROM sample)",
                f"(SELECT short AND budget >= {self.sample} FROM sample)",
            ),
            "gather": (
                f"SELECT short AND budget < rows AND (SELECT count(*) FROM far) < {self.need}"
                " AS needed FROM sample"
            ),
        }
        needed = "(SELECT needed FROM gather)"
        found = {"near": "NOT (SELECT short FROM sample)", "far": f"NOT {needed}"}
        if self.total == "exact":
            steps["every"] = self._gather(needed)
            found["every"] = "true"
            counted = (
                f"CASE WHEN {needed} THEN (SELECT count(*) FROM every)"
                f" ELSE (SELECT count(*) FROM {self.table}{_where(*self.matching)}) END"
            )
        else:
            limit = f" LIMIT {ESTIMATE_LIMIT + 1}"
            # For an estimate `few` is always gathered, else only if it is needed.
            estimated = self.total == "estimated"
            steps["few"] = self._gather("true" if estimated else needed) + limit
            used = f"{needed} AND " if estimated else ""
            many = f"{used}(SELECT count(*) FROM few) > {ESTIMATE_LIMIT}"
            part = f"(SELECT (rows / {self.onward})::bigint FROM sample)"
            steps["onward"] = self._walk(part, many)
            enough = f"(SELECT count(*) FROM onward) >= {self.need}"
            steps["every"] = self._gather(f"{many} AND NOT {enough}")
            fits = f"{used}(SELECT count(*) FROM few) <= {ESTIMATE_LIMIT}"
            found |= {"few": fits, "onward": enough, "every": "true"}
            counted = f"least((SELECT count(*) FROM few), {ESTIMATE_LIMIT})"
        steps["page"] = self._page(found)
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

    def _walk(self, rows: str, *when: str) -> str:
        """The first matches among so many rows in the order, and no more than the page needs."""
        hit = " AND ".join(self.filters)
        return (
            f"\n  SELECT id, sort_key FROM (SELECT {self.table}.id, {self.key} AS sort_key,"
            f" {hit} AS hit\n  FROM {self.table}{_where(*self.walked, *when)}"
            f" ORDER BY {self.by} LIMIT {rows}) AS walked\n  WHERE hit LIMIT {self.need}"
        )

    def _gather(self, when: str) -> str:
        """The matches, in no order; those of the whole list where they are counted."""
        after = self.after if self.total == "none" else []
        return (
            f"\n  SELECT {self.table}.id, {self.key} AS sort_key"
            f" FROM {self.table}{_where(*self.matching, *after, when)}"
        )

    def _sample(self) -> str:
        """One row: whether `near` falls short, what `far` may walk, the size of the table."""
        near = "(SELECT count(*) FROM near)"
        short = f"{near} < {self.need}"
        # What the index of all filters would gather is what `near` has found.
        seen = [
            f"{clauses} AS d{n}" for n, (clauses, all_, _) in enumerate(self.drivers) if not all_
        ]
        gathered = [
            f"CASE WHEN {usable} THEN {near if all_ else f'count(*) FILTER (WHERE d{n})'} END"
            for n, (_, all_, usable) in enumerate(self.drivers)
        ]
        # NULL says that no index is usable; least() passes over it.
        fewest = f"least({', '.join(gathered)})" if gathered else "NULL::bigint"
        # A sequential scan at most.
        gathering = f"least(rows * fewest * {GATHERED} / {self.sample}, rows) / {self.cost}"
        expected = f"({self.need}) * {self.sample * MARGIN} / nullif({near}, 0)"
        if self.total == "exact":  # what is not found by then is found by counting
            most = f"coalesce({expected}, 0)"
        else:
            most = f"CASE WHEN fewest IS NOT NULL THEN {expected} END"
        return (
            f"\n  SELECT {short} AND walked = {self.sample} AS short,"
            f" least({gathering}, {most}) AS budget, rows\n"
            f"  FROM (SELECT count(*) AS walked, {fewest} AS fewest\n"
            f"    FROM (SELECT {', '.join([f'{self.table}.id', *seen])} FROM {self.table}"
            f"{_where(*self.walked, short)} ORDER BY {self.by} LIMIT {self.sample}) AS seen"
            f") AS counts,\n    (SELECT greatest(reltuples, {self.sample}) AS rows"
            f" FROM pg_class WHERE oid = '{self.table}'::regclass) AS size"
        )

    def _page(self, found: dict[str, str]) -> str:
        """The page among the rows of the steps; only one of them has any."""
        rows = " UNION ALL\n  ".join(
            f"SELECT * FROM {step} WHERE {when}" for step, when in found.items()
        )
        after = [] if self.total == "none" else self.page_after
        return (
            f"\n  SELECT * FROM ({rows}) AS found{_where(*after)}"
            f"\n  ORDER BY {self.page_by} {self.limit}"
        )

    def _sql(self, part: ClauseElement) -> str:
        compiled = part.compile(dialect=NAMED)
        assert isinstance(compiled, SQLCompiler)  # noqa: S101 - narrows what compile() is typed as
        self.binds |= compiled.binds
        return f"({compiled})" if isinstance(part, BooleanClauseList) else str(compiled)


def _where(*conditions: str) -> str:
    return "\n  WHERE " + " AND ".join(conditions) if conditions else ""
