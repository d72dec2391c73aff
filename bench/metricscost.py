"""Trial: the CPU of counting a request, beside prometheus_client's way for several processes.

Each variant counts the same times in a histogram with the same labels and buckets. They take turns.
What a whole cached read takes with metrics is in the trial `guard`.
"""

import os
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

from bench.guardcost import table_of
from service.metrics import Metrics, Store
from service.metrics.families import HTTP_DURATION

ROUNDS, TURNS = 200, 2000
ROUTE = "/items/{id}"


def _theirs(folder: str) -> Any:
    """Return a histogram of prometheus_client whose values are in files."""
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder  # it is read at the import
    from prometheus_client import CollectorRegistry, Histogram

    return Histogram(
        HTTP_DURATION.name,
        HTTP_DURATION.help,
        HTTP_DURATION.labels,
        buckets=HTTP_DURATION.buckets,
        registry=CollectorRegistry(),
    )


def _each(times: list[float], count: Callable[[float], object]) -> Callable[[], None]:
    def some() -> None:
        for one in times:
            count(one)

    return some


def measured() -> dict[str, list[float]]:
    """Return the microseconds of CPU per count, by variant and round."""
    with tempfile.TemporaryDirectory() as ours, tempfile.TemporaryDirectory() as folder:
        store = Store(Path(ours))
        metrics, theirs = Metrics(store), _theirs(folder)
        prepared = theirs.labels("GET", ROUTE, "200")
        times = [random.expovariate(1 / 20e-6) for _ in range(TURNS)]  # of hits
        variants = {
            "a function that does nothing": _each(times, lambda _: None),
            "`Metrics.hit`": _each(times, lambda one: metrics.hit(ROUTE, one)),
            "`Metrics.request`": _each(times, lambda one: metrics.request("GET", ROUTE, 200, one)),
            "prometheus_client, child kept": _each(times, prepared.observe),
            "prometheus_client, with `labels()`": _each(
                times, lambda one: theirs.labels("GET", ROUTE, "200").observe(one)
            ),
        }
        found: dict[str, list[float]] = {name: [] for name in variants}
        for _ in range(ROUNDS):
            for name, some in variants.items():
                began = process_time()
                some()
                found[name].append((process_time() - began) / TURNS * 1e6)
        store.close()
    return found


def table() -> str:
    """Return a table in Markdown: CPU per count, and the difference to an empty function."""
    title = f"**What does it cost to count a request?** (`metrics`, median of {ROUNDS} rounds)"
    return table_of(title, measured())
