"""The correctness run: a script of requests, sent to every contestant before measuring.

The expected answers come from a model of the API, a dictionary of items without SQL or HTTP. A
contestant may differ only by the rules of ALLOWED in its entry in contestants.py. The model follows
the same rules, so intended differences are compared too.
"""

import json
import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import urlencode

import httpx

from bench.result import Agreement
from bench.stage import Server

Item = dict[str, Any]
FIELDS = ("id", "name", "description", "price", "is_active", "created_at", "updated_at")

# Allowed differences, and why they are not errors.
ALLOWED = {
    "detail": "The body of an error has the framework's own form; only its status is compared.",
    "400 for 422": "The framework answers 400 for an invalid value; both are client errors.",
    "milliseconds": "JavaScript's times have no microseconds.",
    "null is dropped": "PATCH leaves a field that is null as it was: the sources' own design.",
    "PUT is PATCH": "PUT changes only what it names; as published.",
    "410 for 204": "A permanent delete is answered 410; as published.",
    "wildcards": "`%` and `_` in a search are wildcards; as published.",
    "no zone": "Times come without a zone; as published, on SQLite.",
}


# A value that the API does not define.
UNSAID = object()


class Step(NamedTuple):
    """A request."""

    method: str
    path: str
    query: Mapping[str, Any] = MappingProxyType({})
    body: Any = None


class Answer(NamedTuple):
    """The compared parts: the status, and the body of a success."""

    status: int
    body: Any = None


class Model:
    """The expected answers, from a dictionary; `applied` has the rules that the last step used."""

    def __init__(self, items: list[Item], rules: frozenset[str] = frozenset()) -> None:
        self.items = {item["id"]: dict(item) for item in items}
        self.last = max(self.items, default=0)
        self.rules = rules
        self.applied: set[str] = set()

    def answer(self, step: Step) -> Answer:
        self.applied = set()
        _, _, place = step.path.strip("/").partition("/")
        if step.method == "POST":
            return self._create(step.body)
        if not place:
            return self._list(step.query)
        if not place.isdigit():
            return self._refused()
        item = self.items.get(int(place))
        if step.method in {"PUT", "PATCH"}:
            return self._write(step, item)
        if item is None:
            return self._missing()
        if step.method == "DELETE":
            return self._delete(step, item)
        return Answer(200, dict(item))

    def _create(self, body: Any) -> Answer:
        values = _valid(body, whole=True)
        if values is None:
            return self._refused()
        self.last += 1
        item = {"id": self.last, **values, "created_at": ..., "updated_at": None}
        self.items[self.last] = item
        return Answer(201, dict(item))

    def _write(self, step: Step, item: Item | None) -> Answer:
        whole = step.method == "PUT"
        if whole and self._rule("PUT is PATCH"):
            whole = False
        values = _valid(step.body, whole=whole)
        if values is None:
            return self._refused()
        if item is None:
            return self._missing()
        if None in values.values() and not whole and "null is dropped" in self.rules:
            self._rule("null is dropped")
            values = {name: value for name, value in values.items() if value is not None}
        _change(item, values)
        return Answer(200, dict(item))

    def _delete(self, step: Step, item: Item) -> Answer:
        if step.query.get("permanent"):
            del self.items[item["id"]]
            return Answer(410 if self._rule("410 for 204") else 204)
        _change(item, {"is_active": False})
        return Answer(200, dict(item))

    def _list(self, query: Mapping[str, Any]) -> Answer:
        page, per_page = query.get("page", 1), query.get("per_page", 10)
        if page < 1 or not 1 <= per_page <= 100:
            return self._refused()
        found = [self.items[item_id] for item_id in sorted(self.items)]
        if (active := query.get("is_active")) is not None:
            found = [item for item in found if item["is_active"] == (active == "true")]
        if (wanted := query.get("q")) is not None:
            pattern = re.escape(wanted)
            if set(wanted) & set("%_") and self._rule("wildcards"):
                pattern = pattern.replace("%", ".*").replace("_", ".")
            found = [item for item in found if re.search(pattern, item["name"], re.IGNORECASE)]
        shown = found[(page - 1) * per_page : page * per_page]
        return Answer(
            200,
            {"items": list(map(dict, shown)), "total": len(found), "page": page}
            | {"per_page": per_page},
        )

    def _refused(self) -> Answer:
        self._rule("detail")
        return Answer(400 if self._rule("400 for 422") else 422)

    def _missing(self) -> Answer:
        self._rule("detail")
        return Answer(404)

    def _rule(self, name: str) -> bool:
        if name in self.rules:
            self.applied.add(name)
            return True
        return False


def _change(item: Item, values: Item) -> None:
    """Set the given fields. `updated_at` is undefined if no value differs."""
    differs = any(item[name] != value for name, value in values.items())
    item.update(values, updated_at=... if differs else UNSAID)


def script(items: int, seed: int = 7) -> Iterator[Step]:
    """Yield the requests: every operation, with right, missing and wrong values."""
    chance = random.Random(seed)
    last = items
    for _ in range(300):
        item_id = chance.randint(1, last)
        kind = chance.random()
        path = f"/items/{item_id}"
        if kind < 0.3:
            yield Step("GET", path)
        elif kind < 0.5:
            yield Step("GET", "/items", _query(chance))
        elif kind < 0.7:
            yield Step("POST", "/items", body=_body(chance))
            last += 1
            yield Step("GET", f"/items/{last}")
        elif kind < 0.85:
            body = _body(chance)
            yield Step("PATCH", path, body={chance.choice(["name", "price"]): None} | body)
            yield Step("GET", path)
        elif kind < 0.95:
            yield Step("PUT", path, body=_body(chance))
        else:
            yield Step("DELETE", path)
            yield Step("GET", path)
    yield from _edges(last)


def _edges(last: int) -> Iterator[Step]:
    yield Step("PATCH", "/items/1", body={"price": 12.34})
    yield Step("PATCH", "/items/1", body={"is_active": False})
    yield Step("PATCH", "/items/2", body={"description": None, "name": "Cleared"})
    yield Step("PUT", "/items/3", body={"name": "Whole"})
    yield Step("DELETE", "/items/4", {"permanent": "true"})
    for method, body in (("GET", None), ("PATCH", {"name": "Gone"}), ("DELETE", None)):
        yield Step(method, "/items/4", body=body)
    yield Step("PUT", f"/items/{last + 1000}", body={"name": "Nobody"})
    yield Step("GET", "/items/first")
    for query in ({"page": 0}, {"per_page": 0}, {"per_page": 101}, {"page": 10**6}):
        yield Step("GET", "/items", query)
    yield Step("POST", "/items", body={"name": "100% cotton_towel"})
    yield Step("POST", "/items", body={"name": "Größe 42 Привет 日本語"})
    for wanted in ("100%", "n_t", "%", "TOWEL", "öße", "Привет", "日本", "т 日"):
        yield Step("GET", "/items", {"q": wanted})
    for wrong in (
        {},
        {"name": ""},
        {"name": "   "},
        {"name": "x" * 256},
        {"name": "Priced", "price": -1},
        {"name": 7},
        {"name": "Listed", "price": [1]},
        [1, 2],
    ):
        yield Step("POST", "/items", body=wrong)
    yield Step("POST", "/items", body={"name": "  Stripped  ", "unknown": 1})
    yield Step("GET", "/items", {"per_page": 100})


def _query(chance: random.Random) -> dict[str, Any]:
    query: dict[str, Any] = {}
    if chance.random() < 0.7:
        query["page"] = chance.randint(1, 5)
    if chance.random() < 0.5:
        query["per_page"] = chance.randint(1, 100)
    if chance.random() < 0.4:
        query["is_active"] = chance.choice(["true", "false"])
    if chance.random() < 0.4:
        query["q"] = chance.choice(["lamp", "BRASS", "widget 1", "nothing like it", "e"])
    return query


def _body(chance: random.Random) -> Item:
    body: Item = {"name": f"Made {chance.randint(1, 10**6)}"}
    if chance.random() < 0.7:
        body["description"] = "Ünïcode ☃ " * chance.randint(1, 3) + "end"
    if chance.random() < 0.7:
        body["price"] = chance.randint(0, 10**6) / 100
    if chance.random() < 0.3:
        body["is_active"] = chance.random() < 0.5
    return body


def _valid(body: Any, *, whole: bool) -> Item | None:
    """Return the fields of a valid body, with defaults if `whole`; None if it is invalid."""
    if not isinstance(body, dict):
        return None
    known = {name: body[name] for name in FIELDS[1:5] if name in body}
    if isinstance(known.get("name"), str):
        known["name"] = known["name"].strip()
    name, price = known.get("name", ...), known.get("price")
    if whole and name is ...:
        return None
    if name is not ... and not (isinstance(name, str) and 1 <= len(name) <= 255):
        return None
    if price is not None and not (isinstance(price, int | float) and price >= 0):
        return None
    if whole:
        return {"description": None, "price": None, "is_active": True, **known}
    return known


def check(of: Server, items: list[Item]) -> Agreement:
    """Send the script to a server whose table has exactly `items`."""
    rules = of.program.rules or frozenset()
    plain, allowed = Model(items), Model(items, rules)
    intended: Counter[str] = Counter()
    agreed = requests = 0
    wrong: list[str] = []
    began = datetime.now(UTC)
    with httpx.Client(base_url=of.url, timeout=30) as client:
        for step in script(len(items)):
            requests += 1
            due, expected = plain.answer(step), allowed.answer(step)
            # A rule may change rows: both models continue with the rows of the contestant.
            plain.items = {key: dict(value) for key, value in allowed.items.items()}
            response = client.request(
                step.method,
                of.program.collection if step.path == "/items" else step.path,
                params=urlencode(step.query) or None,
                content=None if step.body is None else json.dumps(step.body),
                headers={} if step.body is None else {"Content-Type": "application/json"},
            )
            fault = _fault(expected, response, rules, began)
            if fault:
                wrong.append(f"{step.method} {step.path} {dict(step.query)} {step.body}: {fault}")
            elif allowed.applied - {"detail"} or (expected != due):
                intended.update(allowed.applied)
            elif "detail" in allowed.applied and response.content:
                intended["detail"] += 1
            else:
                agreed += 1
    return Agreement(of.program.name, requests, agreed, dict(intended), wrong)


def _fault(
    expected: Answer, response: httpx.Response, rules: frozenset[str], began: datetime
) -> str | None:
    if response.status_code != expected.status:
        return f"{response.status_code} instead of {expected.status}: {response.text[:200]}"
    if expected.status >= 400 or expected.status == 204:
        return None
    try:
        body = response.json(parse_float=float)
    except ValueError:
        return f"no JSON: {response.text[:200]}"
    return _differs(expected.body, body, rules, began)


def _differs(expected: Any, got: Any, rules: frozenset[str], began: datetime) -> str | None:
    """Return the first difference, or None; additional fields are allowed."""
    if isinstance(expected, dict):
        if not isinstance(got, dict):
            return f"{got!r} instead of an object"
        for name, value in expected.items():
            if name not in got:
                return f"{name} is missing"
            if name in {"created_at", "updated_at"}:
                fault = _time(value, got[name], rules, began)
            else:
                fault = _differs(value, got[name], rules, began)
            if fault:
                return f"{name}: {fault}"
        return None
    if isinstance(expected, list):
        if not isinstance(got, list) or len(got) != len(expected):
            return f"{got!r:.200} instead of {len(expected)} of them"
        pairs = zip(expected, got, strict=True)
        return next(filter(None, (_differs(*pair, rules, began) for pair in pairs)), None)
    if isinstance(expected, bool) or expected is None or isinstance(got, bool):
        return None if got is expected else f"{got!r} instead of {expected!r}"
    return None if got == expected else f"{got!r} instead of {expected!r}"


def _time(expected: Any, got: Any, rules: frozenset[str], began: datetime) -> str | None:
    """Compare a time: null, a known time, or (`...`) a time since the run began."""
    if expected is UNSAID:
        return None
    if expected is None:
        return None if got is None else f"{got!r} instead of null"
    try:
        time = datetime.fromisoformat(got)
    except (TypeError, ValueError):
        return f"{got!r} is no time"
    if time.tzinfo is None:
        if "no zone" not in rules:
            return f"{got!r} has no zone"
        time = time.replace(tzinfo=UTC)
    slack = timedelta(seconds=1)
    if expected is ...:
        within = began - slack <= time <= datetime.now(UTC) + slack
        return None if within else f"{got!r} is not the time of this run"
    step = timedelta(milliseconds=1) if "milliseconds" in rules else timedelta(0)
    return None if abs(time - expected) <= step else f"{got!r} instead of {expected}"
