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
can't move it into the scan. Those that gather have no order, so that it can't walk.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from sqlalchemy import (
    CTE,
    BigInteger,
    ColumnElement,
    Float,
    Select,
    Table,
    TableClause,
    and_,
    bindparam,
    case,
    cast,
    column,
    func,
    literal_column,
    select,
    table,
    true,
    union_all,
)

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
# The part of the table that `onward` may walk, in sequential order.
ONWARD = 16
# How often the expected number of rows `far` may walk where all matches have to be found anyhow.
MARGIN = 4


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


class Found(NamedTuple):
    """The `steps` are for `add_cte`; of them `page` has the columns `id` and `sort_key`.

    `total` selects the column `total`.
    """

    steps: list[CTE]
    page: TableClause
    total: Select[Any]


class Adaptive:
    """The steps of one page.

    Args:
        of: the table.
        order: of the page.
        walked: conditions that the index of the order fulfils by itself.
        filters: all other conditions.
        drivers: which of them have an index.
        after: whether a row, given as its key and id, comes after the cursor.
        offset: of the page, None with a cursor; the limit is bound as `limit`.
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
        after: Any,
        offset: ColumnElement[int] | None,
        total: Total,
    ) -> None:
        self.table = of
        self.order = order
        self.walked = [*walked, *([after(order.key, of.c.id)] if after else [])]
        self.filters = filters
        self.matching = [*walked, *filters]
        self.drivers = drivers
        self.after = after
        self.limit = bindparam("limit", type_=BigInteger)
        self.offset = offset
        self.need = self.limit if offset is None else self.limit + offset
        self.total = total
        self.steps: list[CTE] = []
        by_id = order.key is of.c.id
        self.cost = 1 if by_id else SCATTERED
        self.sample = _number(SAMPLE if by_id else SCATTERED_SAMPLE)

    def found(self) -> Found:
        """The page and its total."""
        near = self._walk("near", self.sample)
        sample = self._sample(near)
        short, budget, rows = sample.c.short, sample.c.budget, sample.c.rows
        far = self._walk(
            "far",
            _of(case((budget < rows, cast(budget, BigInteger)))),  # NULL: to the end
            _of(and_(short, budget >= self.sample)),
        )
        gather = self._step(
            "gather",
            select(and_(short, budget < rows, _count(far) < self.need).label("needed")),
        )
        needed = _of(gather.c.needed)
        walked = (select(near).where(_of(~short)), select(far).where(~needed))
        if self.total == "exact":
            every = self._gather("every", None, needed)
            page = self._page(*walked, select(every))
            rest = select(func.count()).select_from(self.table).where(*self.matching)
            total = case((needed, _count(every)), else_=rest.scalar_subquery())
            return Found(self.steps, page, select(total.label("total")))
        when = true() if self.total == "estimated" else needed
        few = self._gather("few", ESTIMATE_LIMIT + 1, when)
        many = and_(needed, _count(few) > _number(ESTIMATE_LIMIT))
        part = _divide(rows, _number(ONWARD * self.cost))
        onward = self._walk("onward", _of(cast(part, BigInteger)), many)
        enough = _count(onward) >= self.need
        every = self._gather("every", None, and_(many, ~enough))
        page = self._page(
            *walked,
            select(few).where(needed, ~many),
            select(onward).where(enough),
            select(every),
        )
        least = func.least(_count(few), _number(ESTIMATE_LIMIT))
        return Found(self.steps, page, select(least.label("total")))

    def _step(self, name: str, rows: Select[Any]) -> TableClause:
        """Append a step, which others refer to by its name alone.

        By the CTE itself SQLAlchemy would visit all that is below it once for each reference.
        """
        # Without the word, the planner would merge what is read once into its reader.
        step = rows.cte(name).prefix_with("MATERIALIZED")
        self.steps.append(step)
        return table(name, *(column(one.key, one.type) for one in step.c))

    def _walk(self, name: str, rows: Any, when: ColumnElement[bool] | None = None) -> TableClause:
        """The first matches among so many rows in the order, and no more than the page needs."""
        of, order = self.table, self.order
        walk: Select[Any] = (
            select(of.c.id, order.key.label("sort_key"), and_(*self.filters).label("hit"))
            .where(*self.walked, *([] if when is None else [when]))
            .order_by(*order.by(order.key, of.c.id))
            .limit(rows)
        )
        walked = walk.subquery("walked")
        hits = select(walked.c.id, walked.c.sort_key).where(walked.c.hit).limit(self.need)
        return self._step(name, hits)

    def _gather(self, name: str, most: int | None, when: ColumnElement[bool]) -> TableClause:
        """The matches, in no order; those of the whole list where they are counted."""
        of, order = self.table, self.order
        after = [self.after(order.key, of.c.id)] if self.after and self.total == "none" else []
        rows: Select[Any] = select(of.c.id, order.key.label("sort_key")).where(
            *self.matching, *after, when
        )
        return self._step(name, rows if most is None else rows.limit(_number(most)))

    def _sample(self, near: TableClause) -> TableClause:
        """One row: whether `near` falls short, what `far` may walk, the size of the table."""
        of, order = self.table, self.order
        missing = _count(near) < self.need
        # What the index of all filters would gather is what `near` has found.
        others = [one for one in self.drivers if len(one.clauses) < len(self.filters)]
        alike = [case((one.usable, _count(near))) for one in self.drivers if one not in others]
        served = [and_(*one.clauses).label(f"d{n}") for n, one in enumerate(others)]
        walk: Select[Any] = (
            select(of.c.id, *served)
            .where(*self.walked, missing)
            .order_by(*order.by(order.key, of.c.id))
            .limit(self.sample)
        )
        seen = walk.subquery("seen")
        gathered = [
            case((one.usable, func.count().filter(seen.c[f"d{n}"]))) for n, one in enumerate(others)
        ]
        gathered += alike
        fewest = func.least(*gathered) if gathered else literal_column("NULL::bigint")
        counts = (
            select(func.count().label("walked"), fewest.label("fewest"))
            .select_from(seen)
            .subquery("counts")
        )
        pg_class = table("pg_class", column("reltuples", Float), column("oid"))
        size = (
            select(func.greatest(pg_class.c.reltuples, self.sample, type_=Float).label("rows"))
            .where(pg_class.c.oid == literal_column(f"'{of.name}'::regclass"))
            .subquery("size")
        )
        rows, few = size.c.rows, counts.c.fewest
        # A sequential scan at most; least() passes over NULL, which says that no index is usable.
        gathering = func.least(
            _divide(rows * few * _number(GATHERED), self.sample), rows, type_=Float
        )
        budget = _divide(gathering, _number(self.cost))
        if self.total == "exact":
            expected = _divide(self.need * self.sample, func.nullif(_count(near), _number(0)))
            budget = func.least(
                budget, func.coalesce(expected * _number(MARGIN), _number(0)), type_=Float
            )
        short = and_(missing, counts.c.walked == self.sample)
        return self._step(
            "sample",
            select(short.label("short"), budget.label("budget"), rows).select_from(
                counts.join(size, true())
            ),
        )

    def _page(self, *steps: Select[Any]) -> TableClause:
        """The page among the rows of the steps; only one of them has any."""
        rows = union_all(*steps).subquery("found")
        key, id_ = rows.c.sort_key, rows.c.id
        page: Select[Any] = select(id_, key)
        if self.after and self.total != "none":
            page = page.where(self.after(key, id_))
        page = page.order_by(*self.order.by(key, id_)).limit(self.limit)
        return self._step("page", page if self.offset is None else page.offset(self.offset))


def _number(value: int) -> ColumnElement[Any]:
    return literal_column(str(value), BigInteger)


def _divide(value: ColumnElement[Any], by: ColumnElement[Any]) -> ColumnElement[float]:
    return value.op("/", return_type=Float())(by)


def _of(value: ColumnElement[Any]) -> ColumnElement[Any]:
    return select(value).scalar_subquery()


def _count(step: TableClause) -> ColumnElement[int]:
    return select(func.count()).select_from(step).scalar_subquery()
