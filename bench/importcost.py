"""Trial: an import in the background against the direct one, of the same rows, in turn."""

import statistics
import subprocess
import time
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import httpx

from bench.beside import Probe
from bench.contestants import BY_NAME, OURS
from bench.files import new_rows, settle_items
from bench.processes import cpu
from bench.stage import Server, StagingTable, prepare, served, sql

SERVICE = BY_NAME[OURS]
ROUNDS = 5
WAYS = {"direct": "", "in the background": "?background=true"}


class Turn(NamedTuple):
    """Seconds until the answer, until the rows are there, and of CPU; p99 of reads in ms."""

    answered: float
    written: float
    cpu: float
    p99: float


def table(on: StagingTable) -> str:
    """Return a table in Markdown: medians over the rounds."""
    prepare(on, SERVICE)
    on = on.of(SERVICE)
    items = sql(on, "SELECT count(*) FROM items")[0][0]
    file = new_rows(on, on.directory)[1]
    found: dict[str, list[Turn]] = {way: [] for way in WAYS}
    with served(SERVICE, on, 1) as server:
        for number in range(ROUNDS + 1):
            for way in (*WAYS,) if number % 2 else (*reversed(WAYS),):
                turn = _turn(server, items, file, WAYS[way])
                settle_items(on, items)
                if number:  # the first is a warm-up
                    found[way].append(turn)
    lines = [
        f"**What does an import of {items:,} rows cost in the background?** (`imports`)",
        "",
        "| | answer after | rows after | CPU of the worker | p99 of reads |",
        "|---|---|---|---|---|",
    ]
    for way, turns in found.items():
        answered, written, spent, p99 = (
            statistics.median(part) for part in zip(*turns, strict=True)
        )
        lines.append(
            f"| {way} | {answered:.2f} s | {written:.2f} s | {spent:.2f} s | {p99:.1f} ms |"
        )
    return "\n".join([*lines, ""])


def _turn(server: Server, items: int, file: Path, query: str) -> Turn:
    probe = Probe(server, items)
    with probe.during():
        before, began = cpu(server.pid), perf_counter()
        url = f"{server.url}/items/import{query}"
        words = ["curl", "-sSf", "-X", "POST", "-H", "Content-Type: application/x-ndjson"]
        words += ["-H", "Expect:", "-T", str(file), url]
        answer = subprocess.run(words, check=True, capture_output=True, text=True).stdout
        answered = perf_counter() - began
        if query:
            _wait(server, answer)
        written, spent = perf_counter() - began, cpu(server.pid) - before
    return Turn(answered, written, spent, probe.p99)


def _wait(server: Server, answer: str) -> None:
    job = answer.partition('"id":')[2].partition(",")[0]
    with httpx.Client(base_url=server.url) as client:
        while (state := client.get(f"/jobs/{job}").json()["state"]) != "done":
            if state == "failed":
                raise RuntimeError(f"job {job} failed")
            time.sleep(0.02)
