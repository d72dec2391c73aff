"""The numbers of all workers as text, in the formats of Prometheus and OpenMetrics."""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import accumulate

from service.metrics.families import FAMILIES, Family
from service.metrics.slots import Slot

_ESCAPED = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def prometheus(slots: Iterable[Slot]) -> bytes:
    """Return the text of Prometheus 0.0.4: counters and histograms are summed over all slots.

    Gauges are those of live slots.
    """
    return "".join(_text(slots, "")).encode()


def open_metrics(slots: Iterable[Slot]) -> bytes:
    """Return the same as text of OpenMetrics 1.0.0."""
    return "".join([*_text(slots, "_total"), "# EOF\n"]).encode()


def _text(slots: Iterable[Slot], suffix: str) -> Iterator[str]:
    """Yield lines; `suffix` is left out of the names of families."""
    for name, series in _merged(slots).items():
        family = FAMILIES[name]
        shown = name.removesuffix(suffix)
        yield f"# HELP {shown} {family.help}\n# TYPE {shown} {family.kind}\n"
        for labels, values in sorted(series.items()):
            if family.kind == "histogram":
                counts = [*accumulate(values[: len(family.buckets) + 1])]
                yield _histogram(family, labels) % (*counts, values[len(counts)], counts[-1])
            else:
                yield _single(family, labels) % values[0]


def _merged(slots: Iterable[Slot]) -> dict[str, dict[tuple[str, ...], list[float]]]:
    """Return the values of each series, by family and labels, in the order of FAMILIES."""
    found: dict[str, dict[tuple[str, ...], list[float]]] = {name: {} for name in FAMILIES}
    for slot in slots:
        for family, labels, values in slot.series:
            if family.kind == "gauge" and not slot.live:
                continue
            merged = found[family.name].get(labels)
            if merged is None:
                found[family.name][labels] = list(values)
            elif family.kind == "gauge" and family.merge != "sum":
                merged[0] = (max if family.merge == "max" else min)(merged[0], values[0])
            else:
                for place, value in enumerate(values):
                    merged[place] += value
    return {name: series for name, series in found.items() if series}


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
