"""The numbers of all workers as text, in the formats of Prometheus and OpenMetrics."""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import accumulate

from service.metrics.families import FAMILIES, Family
from service.metrics.slots import Series, Slot

# Series that are merged in one part.
AT_ONCE = 100
_Merged = dict[str, dict[tuple[str, ...], list[float]]]
_ESCAPED = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def prometheus(slots: Iterable[Slot]) -> Iterator[str]:
    """Yield the text of Prometheus 0.0.4: counters and histograms are summed over all slots.

    Gauges are those of live slots. A part takes about a millisecond at most to make, so a caller
    may let others run between two.
    """
    return _text(slots, "")


def open_metrics(slots: Iterable[Slot]) -> Iterator[str]:
    """Yield the same as text of OpenMetrics 1.0.0."""
    yield from _text(slots, "_total")
    yield "# EOF\n"


def _text(slots: Iterable[Slot], suffix: str) -> Iterator[str]:
    """Yield parts; `suffix` is left out of the names of families."""
    found: _Merged = {name: {} for name in FAMILIES}
    for slot in slots:
        for place, one in enumerate(slot.series):
            if one.family.kind != "gauge" or slot.live:
                _merge(found[one.family.name], one)
            if place % AT_ONCE == 0:
                yield ""
    for name, series in found.items():
        family = FAMILIES[name]
        shown = name.removesuffix(suffix)
        if series:
            yield f"# HELP {shown} {family.help}\n# TYPE {shown} {family.kind}\n"
        for labels, values in sorted(series.items()):
            if family.kind == "histogram":
                counts = [*accumulate(values[: len(family.buckets) + 1])]
                yield _histogram(family, labels) % (*counts, values[len(counts)], counts[-1])
            else:
                yield _single(family, labels) % values[0]


def _merge(series: dict[tuple[str, ...], list[float]], one: Series) -> None:
    """Add the values of a slot to those of the slots before."""
    family, labels, values = one
    merged = series.get(labels)
    if merged is None:
        series[labels] = [*values]
    elif family.kind == "gauge" and family.merge != "sum":
        merged[0] = (max if family.merge == "max" else min)(merged[0], values[0])
    else:
        for place, value in enumerate(values):
            merged[place] += value


# Templates are kept, so that a scrape only fills in numbers: a third of its time.
@lru_cache(maxsize=4096)
def _histogram(family: Family, labels: tuple[str, ...]) -> str:
    pairs = _pairs(family, labels)
    limits = [f'le="{limit}"' for limit in (*family.buckets, "+Inf")]
    buckets = [f"{family.name}_bucket{_braces([*pairs, one])} %.16g\n" for one in limits]
    ends = [f"{family.name}_{end}{_braces(pairs)} %.16g\n" for end in ("sum", "count")]
    return "".join([*buckets, *ends])


@lru_cache(maxsize=4096)
def _single(family: Family, labels: tuple[str, ...]) -> str:
    return f"{family.name}{_braces(_pairs(family, labels))} %.16g\n"


def _pairs(family: Family, labels: tuple[str, ...]) -> list[str]:
    return [
        f'{name}="{value.translate(_ESCAPED).replace("%", "%%")}"'
        for name, value in zip(family.labels, labels, strict=True)
    ]


def _braces(pairs: list[str]) -> str:
    return f"{{{','.join(pairs)}}}" if pairs else ""
