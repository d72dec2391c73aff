"""The micro benchmarks of the reference's README, measured again: objects, memory, JSON."""

import dataclasses
import gc
import json
import statistics
import tracemalloc
from collections.abc import Callable
from functools import partial
from time import process_time
from typing import Any

import msgspec
import orjson
from pydantic import BaseModel, ConfigDict

from bench.result import Figure, Table

OBJECTS = 10_000
REPEATS = 7


class Model(BaseModel):
    model_config = ConfigDict(str_strip_whitespace=True, extra="ignore")

    name: str
    description: str | None
    price: float | None
    is_active: bool = True


@dataclasses.dataclass
class Plain:
    name: str
    description: str | None
    price: float | None
    is_active: bool = True


@dataclasses.dataclass(slots=True)
class Slots:
    name: str
    description: str | None
    price: float | None
    is_active: bool = True


class Record(msgspec.Struct):
    name: str
    description: str | None
    price: float | None
    is_active: bool = True


class Untracked(msgspec.Struct, gc=False):
    name: str
    description: str | None
    price: float | None
    is_active: bool = True


KINDS: dict[str, Callable[..., Any]] = {
    "Pydantic model": Model,
    "dataclass": Plain,
    "dataclass, slots": Slots,
    "Struct": Record,
    "Struct, gc=False": Untracked,
}

# Rows of the trial `objects`: a title, and the rows that it takes from the tables below.
ROWS = (
    ("Pydantic model", "Pydantic model", "Pydantic model", "Pydantic model"),
    ("dataclass, json module", "dataclass", "json, then a dataclass", "dataclass, json"),
    (
        "dataclass with slots, from a Pydantic model, to JSON by orjson",
        "dataclass, slots",
        "Pydantic model, then a dataclass",
        "dataclass, orjson",
    ),
    ("msgspec Struct", "Struct", "Struct", "Struct"),
    ("msgspec Struct, gc=False", "Struct, gc=False", "", ""),
)


def tables() -> list[Table]:
    """Return the tables: creation, memory, decoding, encoding."""
    return [
        Table(
            "creation",
            f"Creating {OBJECTS:,} objects",
            "ms",
            "With keywords, kept in a list; CPU. The Pydantic model validates, the others do not.",
            [_timed(name, partial(_many, kind)) for name, kind in KINDS.items()],
        ),
        Table(
            "memory",
            f"{OBJECTS:,} objects in memory",
            "MB",
            "By tracemalloc, with their own strings and numbers.",
            [_memory(name, kind) for name, kind in KINDS.items()],
        ),
        _decoding(),
        _encoding(),
    ]


def table() -> str:
    """Return the trial `objects` in Markdown: figures per object."""
    creation, memory, decoding, encoding = (
        {one.name: one for one in found.figures} for found in tables()
    )

    def cell(found: dict[str, Figure], name: str, scale: float, digits: int) -> str:
        if name not in found:
            return "-"
        one = found[name]
        middle, least, most = (
            f"{value * scale:,.{digits}f}" for value in (one.value, one.least, one.most)
        )
        return f"{middle} ({least}-{most})" if least != most else middle

    title = (
        f"**What does an object cost?** (`objects`, {OBJECTS:,} objects, median of {REPEATS} runs)"
    )
    lines = [
        title,
        "",
        "| | create, us | bytes | from JSON, us | to JSON, us |",
        "|---|---|---|---|---|",
    ]
    for title, kind, reader, writer in ROWS:
        lines.append(
            f"| {title} | {cell(creation, kind, 1000 / OBJECTS, 2)}"
            f" | {cell(memory, kind, 1e6 / OBJECTS, 0)}"
            f" | {cell(decoding, reader, 1000 / OBJECTS, 2)}"
            f" | {cell(encoding, writer, 1000 / OBJECTS, 2)} |"
        )
    return "\n".join([*lines, ""])


def _many(kind: Callable[..., Any]) -> list[Any]:
    return [
        kind(name=f"Widget {n}", description="A useful widget", price=n / 100, is_active=True)
        for n in range(OBJECTS)
    ]


def _memory(name: str, kind: Callable[..., Any]) -> Figure:
    found: list[float] = []
    for _ in range(3):
        gc.collect()
        tracemalloc.start()
        kept = _many(kind)
        found.append(tracemalloc.get_traced_memory()[0] / 1e6)
        tracemalloc.stop()
        del kept
    return Figure(name, statistics.median(found), min(found), max(found))


def _decoding() -> Table:
    body = b'{"name": " Widget ", "description": "A useful widget", "price": 29.99, "extra": 1}'
    decode = msgspec.json.Decoder(Record).decode

    def by_dataclass() -> None:
        for _ in range(OBJECTS):
            told = json.loads(body)
            Slots(told["name"].strip(), told["description"], told["price"])

    def by_struct() -> None:
        for _ in range(OBJECTS):
            decode(body)

    def by_model() -> None:
        for _ in range(OBJECTS):
            Model.model_validate_json(body)

    def by_model_and_dataclass() -> None:
        for _ in range(OBJECTS):
            Slots(**Model.model_validate_json(body).model_dump())

    return Table(
        "decoding",
        f"Bytes of {OBJECTS:,} bodies to objects",
        "ms",
        "CPU; the json module checks nothing.",
        [
            _timed("Pydantic model", by_model),
            _timed("Pydantic model, then a dataclass", by_model_and_dataclass),
            _timed("json, then a dataclass", by_dataclass),
            _timed("Struct", by_struct),
        ],
    )


def _encoding() -> Table:
    models, plain, records = (_many(kind) for kind in (Model, Slots, Record))
    encode = msgspec.json.Encoder().encode

    def each(write: Callable[[Any], object], objects: list[Any]) -> Callable[[], None]:
        def all_() -> None:
            for one in objects:
                write(one)

        return all_

    return Table(
        "encoding",
        f"{OBJECTS:,} objects to JSON",
        "ms",
        "CPU, each to bytes of its own.",
        [
            _timed("Pydantic model", each(lambda one: one.model_dump_json(), models)),
            _timed("dataclass, json", each(lambda one: json.dumps(dataclasses.asdict(one)), plain)),
            _timed("dataclass, orjson", each(orjson.dumps, plain)),
            _timed("Struct", each(encode, records)),
        ],
    )


def _timed(name: str, work: Callable[[], object]) -> Figure:
    work()
    found: list[float] = []
    for _ in range(REPEATS):
        gc.collect()
        start = process_time()
        work()
        found.append((process_time() - start) * 1000)
    return Figure(name, statistics.median(found), min(found), max(found))
