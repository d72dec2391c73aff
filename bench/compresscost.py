"""Trial: CPU and bytes of compressed lists, at each level."""

import statistics
import sys
import zlib
from collections.abc import Callable
from functools import partial
from time import process_time

import asyncpg
import uvloop

from bench.stage import StagingTable
from service.items import items
from service.web.codec import encode
from service.web.paging import Page

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ROUNDS, SECONDS = 5, 0.2
ROWS = (10, 50, 100, 3500)  # the last is about a megabyte, which long descriptions can reach


def _gzip(body: bytes, level: int) -> bytes:
    return zlib.compress(body, level, wbits=31)


def _zstd(level: int) -> Callable[[bytes], bytes]:
    one = zstd.ZstdCompressor(level)
    return lambda body: one.compress(body, one.FLUSH_FRAME)


WAYS: dict[str, Callable[[bytes], bytes]] = {
    **{f"gzip {level}": partial(_gzip, level=level) for level in (1, 2, 4, 6, 9)},
    **{f"zstd {level}": _zstd(level) for level in (-1, 1, 3, 6, 9)},
    "zstd 3, a new compressor each": partial(zstd.compress, level=3),
}


def table(on: StagingTable) -> str:
    """Return a table in Markdown: CPU and size of each list by method."""
    found = uvloop.run(_bodies(on.database_url))
    lines = [
        "**What does compressing a list cost, and what is left of it?** (`compress`)",
        "",
        f"| CPU us, bytes | {' | '.join(f'{rows:,} items' for rows in found)} |",
        f"|---|{'---|' * len(found)}",
        f"| plain | {' | '.join(f'{len(body):,}' for body in found.values())} |",
    ]
    for name, way in WAYS.items():
        cells = [f"{_used(way, body):,.0f}, {len(way(body)):,}" for body in found.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


async def _bodies(url: str) -> dict[int, bytes]:
    """Return the first page with each number of items, as it is sent."""
    page = items.listing.page("id", (), "none")
    connection = await asyncpg.connect(url)
    try:
        found = {rows: await connection.fetch(page.sql, rows, 0) for rows in ROWS}
    finally:
        await connection.close()
    return {
        rows: encode(
            Page(
                [page.row(*record[: page.width]) for record in records],
                None,
                1,
                rows,
                None,
                None,
            )
        )
        for rows, records in found.items()
    }


def _used(way: Callable[[bytes], bytes], body: bytes) -> float:
    """Microseconds of CPU per call: the median of rounds."""
    used = []
    for _ in range(ROUNDS):
        began, calls = process_time(), 0
        while process_time() - began < SECONDS:
            way(body)
            calls += 1
        used.append((process_time() - began) / calls * 1e6)
    return statistics.median(used)
