"""Estimate the cost of gathering all matches of a list, and limit the walk before it.

The sample has rows of pages from the whole table, because the first rows in the order may have all
matches or none. Costs are measured, in tenths of a microsecond of CPU; those of the filters are
added for each row. If the estimate is wrong by a factor of two in either direction, a useless walk
and the gathering after it stay below three times the better plan.
"""

# ruff: noqa: S608 - the text is made of expressions and names of ours; every value is bound

from collections.abc import Sequence
from typing import NamedTuple

# Pages, evenly spread, and rows of each that are looked at: 0.3 ms.
PAGES, ROWS_OF_A_PAGE = 128, 2
# A row read in a sequential scan; one found through an index other than that of the order; a match
# kept and sorted (4 for a first page, 10 for a deep one).
READ, GATHERED, SORTED = 1, 5, 6
# The part of the cost of gathering that a walk may take, unless it costs no more to walk to the
# end, as in the order of the ids without a usable index: there is a rounding error in ABOUT.
PART, ABOUT = 0.75, 0.98
# The number of rows that a walk needs if matches are spread evenly is taken for right up to this
# factor.
MARGIN = 2


class Costs(NamedTuple):
    """Of an order: rows that are walked first, the cost of a row, and the walk without an estimate.

    The last is a fraction of the table, as its denominator.
    """

    sample: int
    row: int
    onward: int


# The order of the ids is about that of the pages; in another, each row is on a page of its own.
BY_ID = Costs(sample=500, row=READ, onward=16)  # 0.3 ms for the sample
SCATTERED = Costs(sample=200, row=7, onward=64)  # 1 ms


class Walk(NamedTuple):
    """A list, as SQL.

    `walked` is what the index of the order fulfils by itself, `filters` all else, which cost `cost`
    for one row; `drivers` are the conditions that one index serves together, and when it can.
    """

    table: str
    filters: Sequence[str]
    walked: Sequence[str]
    drivers: Sequence[tuple[str, str]]
    cost: int


def budget(walk: Walk, costs: Costs, *, need: str, repeated: str) -> str:
    """One row: `short`, `remaining`, and `budget`: how many of the remaining rows to walk.

    Reads `reached`: whether the first rows fall `short`, and their `hits`. `need` is the number of
    rows that the page needs; `repeated` the part of the scan that is left to do after a walk, since
    matches are counted.
    """
    columns, seen = [f"{' AND '.join(walk.filters)} AS hit"], ["count(*) + 1 AS seen"]
    found, remaining = "count(*) FILTER (WHERE hit)", "rows"
    if walk.walked:
        columns.append(f"{' AND '.join(walk.walked)} AS ahead")
        seen.append("count(*) FILTER (WHERE ahead) + 1 AS ahead")
        found, remaining = "count(*) FILTER (WHERE hit AND ahead)", "rows * ahead / seen"
    seen.append(f"{found} AS found")
    scan = f"rows * {READ + walk.cost}"
    if walk.drivers:
        columns += [f"{clauses} AS d{n}" for n, (clauses, _) in enumerate(walk.drivers)]
        fewest = ", ".join(
            f"CASE WHEN {usable} THEN count(*) FILTER (WHERE d{n}) END"
            for n, (_, usable) in enumerate(walk.drivers)
        )
        # NULL says that no index is usable; least() passes over it.
        seen.append(f"least({fewest}) AS fewest")
        fewest = "fewest + greatest(least(hits, 2) - fewest, 0)"
        scan = f"least(rows / seen * ({fewest}) * {GATHERED + walk.cost}, {scan})"
    # Two of the `hits` count as much as those of the sample: there are some matches.
    sort = f"rows / seen * greatest(found, least(hits, 2)) * {SORTED}"
    part = PART / (costs.row + walk.cost)
    densities = f"nullif(hits, 0) / {costs.sample}::float8, nullif(found, 0) / seen::float8"
    name = walk.table.replace("'", "''")
    pages = f"pg_relation_size('{name}') / current_setting('block_size')::bigint"
    counts = (
        f"SELECT {', '.join(seen)}\n    FROM generate_series(0, {pages} - 1,"
        f" greatest({pages} / {PAGES}, 1)) AS page,"
        f" LATERAL (SELECT {', '.join(columns)} FROM {walk.table}"
        "\n    WHERE ctid >= ('(' || page || ',0)')::tid AND ctid < ('(' || page + 1 || ',0)')::tid"
        f" LIMIT {ROWS_OF_A_PAGE}) AS one WHERE (SELECT short FROM reached)"
    )
    # OFFSET 0: else what is named here would be put in, and planned, wherever it is read.
    numbers = (
        f"SELECT short, rows, {remaining} AS remaining,"
        # What is common, but not where the order begins, may begin anywhere.
        f" found * {costs.sample} > 4 * seen * (hits + 1) AS elsewhere,"
        f" {need} / greatest({densities}) AS expected, {need} / least({densities}) AS longest,"
        f"\n    ({scan} * (1 - {repeated}) + {sort}) * {part:.4f}::float8 AS budget"
        f"\n  FROM ({counts}) AS counts, reached, (SELECT greatest(reltuples, {costs.sample})"
        f" AS rows FROM pg_class WHERE oid = '{name}'::regclass) AS size OFFSET 0"
    )
    # NULL, so false, where no match is known. In fewer rows than the page needs it can't be found.
    hopeful = f"expected < {MARGIN} * budget AND budget >= {need}"
    even = f"longest * {MARGIN} + rows / {costs.onward}"
    return (
        "\n  SELECT short, remaining, CASE WHEN NOT short THEN 0"
        f" WHEN budget >= remaining * {PART * ABOUT} THEN remaining WHEN {hopeful}"
        f" THEN CASE WHEN elsewhere THEN budget ELSE least(budget, {even}) END"
        f" ELSE 0 END AS budget\n  FROM ({numbers}) AS numbers"
    )
