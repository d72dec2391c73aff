"""The workloads, with the connections and workers of a run."""

from collections.abc import Iterable
from typing import NamedTuple

from bench.result import Workload

CONSTANT, CRUD, HOT, SEARCH = "constant", "crud", "hot", "search"
DEPTHS = (1, 1_000, 100_000)
SIZES = (1_000, 1_000_000)
# Requests/s that are offered to everyone.
RATES = (("read", 1_000), ("read", 10_000), ("create", 1_000), ("mixed", 1_000), ("mixed", 10_000))

WORKLOADS = (
    Workload("read", "Read one item", "GET /items/{id}, ids uniform over all rows"),
    Workload(
        HOT,
        "Read hot items",
        "GET /items/{id}, ids by Zipf's law (exponent 1), after 3 s of the same: caches may help",
    ),
    Workload("list", "List, first page", "GET /items: 10 rows and the exact total"),
    Workload(
        "list-no-cache",
        "List from the database",
        "the same with Cache-Control: no-cache, so that no cache answers",
    ),
    *(
        Workload(
            f"page-{depth}",
            f"List at depth {depth:,} by page",
            f"GET /items?page=N: the 10 rows up to row {max(depth, 10):,}, and the exact total",
            16,
        )
        for depth in DEPTHS
    ),
    *(
        Workload(
            f"cursor-{depth}",
            f"List at depth {depth:,} by cursor",
            f"GET /items?cursor=…: the 10 rows up to row {max(depth, 10):,}",
            16,
        )
        for depth in DEPTHS
    ),
    Workload(
        SEARCH,
        "Search",
        "GET /items?q=…: a substring that about 1 row in 700 has; everyone by a trigram index",
        4,
    ),
    Workload("create", "Create", "POST /items with name, description, price"),
    Workload("create-1000", "Create, 1,000 at once", "the same from 1,000 connections", 1000),
    Workload("patch", "Patch", "PATCH /items/{id}, price or description, ids uniform"),
    Workload("mixed", "Mixed 80/15/5", "80 % read one, 15 % patch, 5 % create"),
    Workload(
        "mixed-bulk",
        "Mixed 80/15/5 beside a bulk insert",
        "the same while another client inserts 5,000 rows/s, 1,000 to a statement",
    ),
    Workload(
        CRUD,
        "HttpArena's CRUD profile",
        "75 % reads cached for 200 ms, 15 % updates, 5 % lists, 5 % upserts; its own table",
    ),
    Workload(
        CONSTANT,
        "Constant answer",
        "GET /items/1, answered with the same bytes: what other costs are multiples of",
    ),
)
BY_NAME = {one.name: one for one in WORKLOADS}
# Of hot reads before they are measured.
HOT_SECONDS = 3
# Those that leave rows behind, or changed ones.
WRITING = {"create", "create-1000", "keyed", "user", "patch", "mixed", "mixed-bulk"}


class Cell(NamedTuple):
    """One thing to measure contestants at.

    `offered` is a fixed rate in requests/s; None if each connection asks again at once.
    """

    workload: str
    connections: int
    workers: int
    items: int
    offered: int | None = None

    def __str__(self) -> str:
        load = f" at {self.offered:,}/s" if self.offered else ""
        workers = f", {self.workers} workers" if self.workers > 1 else ""
        return f"{self.workload}{load}, {self.connections:,} connections{workers}"


# What `just bench quick` takes: no depths in between, nothing that takes long to show.
QUICK = ("read", "hot", "list", "list-no-cache", "create", "patch", "mixed")
AT_REST = ("read", "list-no-cache", "create", "patch", "mixed")
CROWDED = ("read", "create", "mixed")


def cells(names: list[str], items: int, *, quick: bool) -> list[Cell]:
    """What a run measures, in the order of a round; `names` none for all that it has."""
    wanted = names or (list(QUICK) if quick else list(BY_NAME))

    def each(some: Iterable[str], connections: int, workers: int = 1) -> list[Cell]:
        return [Cell(name, connections, workers, items) for name in some if name in wanted]

    usual = [Cell(name, BY_NAME[name].connections, 1, items) for name in wanted]
    if quick:
        return with_constant([*usual, *each(("read", "create"), 1)])
    offered = [Cell(name, 64, 1, items, rate) for name, rate in RATES if name in wanted]
    sizes = [cell._replace(items=size) for size in SIZES for cell in each(("list",), 16)]
    closed = [*usual, *each(AT_REST, 1), *each(("list",), 16), *each(CROWDED, 256)]
    return [*with_constant(closed), *offered, *each(AT_REST, 64, workers=2), *sizes]


def with_constant(closed: list[Cell]) -> list[Cell]:
    """Add the constant answer at each number of connections, beside the first cell that has it."""
    found: dict[Cell, None] = {}
    for cell in closed:
        if cell.workload != CRUD:
            found |= {Cell(CONSTANT, cell.connections, 1, cell.items): None}
        found[cell] = None
    return list(found)
