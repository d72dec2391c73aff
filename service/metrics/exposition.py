"""The numbers of all workers as text, in the format of Prometheus."""

from collections.abc import Iterable, Iterator
from itertools import accumulate

from service.metrics.families import FAMILIES, Family
from service.metrics.slots import Slot

_ESCAPED = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def exposition(slots: Iterable[Slot]) -> str:
    """Return the text of Prometheus 0.0.4: counters and histograms are summed over all slots.

    Gauges are those of live slots.
    """
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
    lines: list[str] = []
    for name, series in found.items():
        if series:
            family = FAMILIES[name]
            lines += [f"# HELP {name} {family.help}", f"# TYPE {name} {family.kind}"]
            for labels, values in sorted(series.items()):
                lines += _lines(family, labels, values)
    return "\n".join([*lines, ""])


def _lines(family: Family, labels: tuple[str, ...], values: list[float]) -> Iterator[str]:
    pairs = [
        f'{name}="{value.translate(_ESCAPED)}"'
        for name, value in zip(family.labels, labels, strict=True)
    ]
    if family.kind != "histogram":
        yield f"{family.name}{_braces(pairs)} {values[0]:.17g}"
        return
    counts = list(accumulate(values[: len(family.buckets) + 1]))
    for limit, count in zip((*family.buckets, "+Inf"), counts, strict=True):
        le = f'le="{limit}"'
        yield f"{family.name}_bucket{_braces([*pairs, le])} {count:.17g}"
    yield f"{family.name}_sum{_braces(pairs)} {values[len(counts)]:.17g}"
    yield f"{family.name}_count{_braces(pairs)} {counts[-1]:.17g}"


def _braces(pairs: list[str]) -> str:
    return f"{{{','.join(pairs)}}}" if pairs else ""
