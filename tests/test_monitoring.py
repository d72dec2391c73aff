"""The guide, the dashboard and the alert rules of the metrics: they use only what exists."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from conftest import ROOT

from service.metrics.families import FAMILIES, Family

PLACE = ROOT / "docs" / "monitoring"
GUIDE = (ROOT / "docs" / "monitoring.md").read_text()
# Prometheus' own: the metric of each scrape, and the labels of its target.
SCRAPE = Family("up", "gauge", (), "")
TARGET = {"job", "instance"}
# The values of labels that have few.
VALUES = {
    ("db_query_total", "status"): {"success", "error", "timeout"},
    ("cache_requests_total", "result"): {"hit", "miss"},
    ("dependency_up", "dependency"): {"database", "redis"},
    ("jobs_total", "result"): {"done", "retry", "failed"},
    ("ratelimit_decisions_total", "decision"): {"allowed", "refused"},
    ("deliveries_total", "target"): {"notification", "webhook", "other"},
    ("deliveries_total", "result"): {"success", "failure"},
}
FUNCTIONS = {
    *("rate", "increase", "sum", "min", "max", "count", "topk", "histogram_quantile", "changes"),
    *("max_over_time", "min_over_time", "time", "label_values"),
}
WORDS = {"by", "and", "on", "or", "unless"}


def rules() -> Iterator[dict[str, Any]]:
    for group in yaml.safe_load((PLACE / "alerts.yml").read_text())["groups"]:
        yield from group["rules"]


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((PLACE / "grafana.json").read_text())
    return found


def expressions() -> Iterator[Any]:
    for rule in rules():
        yield pytest.param(rule["expr"], "", id=rule["alert"])
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            legend = target["legendFormat"]
            yield pytest.param(target["expr"], legend, id=f"{panel['title']}: {legend}")
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            yield pytest.param(variable["definition"], "", id=variable["name"])


def family_of(name: str) -> Family:
    if name == "up":
        return SCRAPE
    for end in ("", "_bucket", "_sum", "_count"):
        family = FAMILIES.get(name.removesuffix(end))
        if family is not None and (family.kind == "histogram") == bool(end):
            return family
    raise AssertionError(f"there is no metric {name}")


@pytest.mark.parametrize(("expression", "legend"), tuple(expressions()))
def test_an_expression_uses_only_what_exists(expression: str, legend: str) -> None:
    text = re.sub(r"#.*", "", expression)
    assert_balanced(text)
    known = set(TARGET)
    for name, matchers in re.findall(r"\b([a-z_]+)\s*\{([^}]*)\}", text):
        family = family_of(name)
        allowed = {*family.labels, *TARGET, *(("le",) if name.endswith("_bucket") else ())}
        for label, operator, value in re.findall(r'(\w+)(=~|!~|!=|=)"([^"]*)"', matchers):
            assert label in allowed, f"{name} has no label {label}"
            few = VALUES.get((family.name, label))
            if few is not None and operator in {"=", "!="}:
                assert value in few
    text = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", text)
    grouped = re.findall(r"\bby\s*\(([^)]*)\)", text)
    text = re.sub(r"\bby\s*\([^)]*\)", "", text)
    if text.startswith("label_values"):
        grouped.append(text.rpartition(",")[2].strip(" )"))
        text = text.rpartition(",")[0]
    names = set()
    for word, call in re.findall(r"(?<![\w.])([a-z_]\w*)\s*(\(?)", text):
        if call and word not in WORDS:
            assert word in FUNCTIONS, f"{word} is no function that we use"
        elif word not in WORDS:
            names.add(word)
            known |= {*family_of(word).labels, *(("le",) if word.endswith("_bucket") else ())}
    assert names or "time()" in text
    used = {label.strip() for group in grouped for label in group.split(",")}
    assert used <= known
    assert set(re.findall(r"\{\{(\w+)\}\}", legend)) <= used, "the legend has a label too many"
    if "histogram_quantile" in text:
        assert "le" in used
    for name in names:
        if family_of(name).kind != "gauge":
            inner = r"(?:rate|increase)\(\s*" + name + r"\b"
            assert re.search(inner, text), f"{name} only grows: show its rate"


def assert_balanced(text: str) -> None:
    """Check the brackets outside of strings."""
    pairs, opened = {")": "(", "]": "[", "}": "{"}, []
    for sign in re.sub(r'"[^"]*"', "", text):
        if sign in pairs.values():
            opened.append(sign)
        elif sign in pairs:
            assert opened, text
            assert opened.pop() == pairs[sign], text
    assert not opened, text


def test_each_alert_says_what_it_means() -> None:
    names = []
    for rule in rules():
        names.append(rule["alert"])
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"].keys() == {"summary", "description"}
        text = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", rule["expr"])
        kept = re.findall(r"\bby\s*\(([^)]*)\)", text)
        for label in re.findall(r"\$labels\.(\w+)", str(rule["annotations"])):
            if kept:
                assert label in kept[0], f"{rule['alert']} has no {label} in its result"
            else:
                assert label in TARGET
        assert f"`{rule['alert']}`" in GUIDE, "docs/monitoring.md says what to do"
    assert len({*names}) == len(names)


def test_the_panels_do_not_overlap_and_show_every_metric() -> None:
    taken: set[tuple[int, int]] = set()
    panels = dashboard()["panels"]
    for panel in panels:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in panels}) == len(panels)
    text = json.dumps(panels)
    assert [name for name in FAMILIES if name not in text] == []


def test_the_guide_has_every_metric() -> None:
    rows = [
        f"| `{one.name}{'{' + ','.join(one.labels) + '}' if one.labels else ''}` | {one.kind} |"
        f" {one.help} |"
        for one in FAMILIES.values()
    ]
    table = GUIDE.split("| metric | type | meaning |\n|---|---|---|\n")[1].split("\n\n")[0]
    assert table.splitlines() == rows
