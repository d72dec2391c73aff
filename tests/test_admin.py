"""Plans and costs of statements over HTTP: `/admin/explain/{statement}` and `/admin/slow`."""

import json
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from conftest import Query

from service.admin.slow import slowest
from service.metrics import Metrics, Store
from service.metrics.slots import Slot


def explain(client: httpx.Client, name: str, **query: Any) -> dict[str, Any]:
    answer = client.get(f"/admin/explain/{quote(name, safe='')}", params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_read_is_planned_with_the_given_values(client: httpx.Client, sql: Query) -> None:
    sql("INSERT INTO items (name) VALUES ('Lamp')")
    found = explain(client, "items.by_id", params='{"id": 7}')
    assert found["parameters"] == [{"name": "id", "type": "bigint", "value": 7, "given": True}]
    assert "(cost=" in found["lines"][0]
    assert "actual" not in found["lines"][0]
    assert (found["analyzed"], found["changes"], found["notes"]) == (False, False, [])
    found = explain(client, "items.by_id", params='{"id": 1}', analyze="true", format="json")
    assert found["plan"]["Plan"]["Actual Rows"] == 1
    assert "Shared Hit Blocks" in found["plan"]["Plan"]
    assert found["notes"] == ["it ran in a read-only transaction"]


def test_the_plan_is_the_one_that_a_connection_of_the_pool_uses(client: httpx.Client) -> None:
    """After five runs PostgreSQL has one plan for all ids; a search is planned for its values."""
    assert explain(client, "items.by_id")["planned"] == "generic"
    assert "$1" in explain(client, "items.by_id")["lines"][-1]
    one = explain(client, "items.by_id", plan="custom", params='{"id": 7}')
    assert one["planned"] == "custom"
    assert "7" in one["lines"][-1]
    assert explain(client, "items.page?sort=-price&q")["planned"] == "custom"
    assert explain(client, "items.page?sort=-price&q", plan="generic")["planned"] == "generic"


def test_values_of_each_type_arrive_as_they_are(client: httpx.Client) -> None:
    given = {
        "sku": 'it\'s $1, \\ and "two"',
        "name": "null",
        "description": None,
        "price": 29.9900,
        "is_active": False,
        "owner_id": 9007199254740993,
    }
    found = explain(client, "items.add", params=json.dumps(given), plan="custom")
    values = {one["name"]: one["value"] for one in found["parameters"]}
    assert values == {**given, "price": "29.99"}
    found = explain(client, "items.by_id_many", params='{"keys": [3, null, 1]}', plan="custom")
    assert "{3,NULL,1}" in "".join(found["lines"])


@pytest.mark.parametrize(
    ("params", "said"),
    (
        ("{", "params must be a JSON object"),
        ("[1]", "params must be a JSON object"),
        ('{"x": 1}', "no parameter x; there are: id"),
        ('{"id": "seven"}', "id must be bigint: Expected `int"),
        ('{"id": 9223372036854775808}', "id must be bigint"),
        ('{"id": [1]}', "id must be bigint"),
        ('{"id": 1.5}', "id must be bigint"),
        ('{"id": true}', "id must be bigint"),
        ('{"id\\u0000": 1}', "no parameter id"),
        ("[" * 3000, "params must be a JSON object"),
    ),
)
def test_a_wrong_value_is_named_with_its_type(client: httpx.Client, params: str, said: str) -> None:
    answer = client.get("/admin/explain/items.by_id", params={"params": params})
    assert answer.status_code == 422
    assert said in answer.json()["detail"]
    assert answer.json()["errors"][0]["field"] == "params"


@pytest.mark.parametrize(
    ("name", "value"),
    (
        ("name", "a\0b"),
        ("price", "1e999999999"),
        ("price", "x"),
        ("sku", ["a"]),
        ("is_active", "maybe"),
    ),
)
def test_hostile_values_reach_no_statement(client: httpx.Client, name: str, value: Any) -> None:
    answer = client.get("/admin/explain/items.add", params={"params": json.dumps({name: value})})
    assert answer.status_code == 422
    assert f"{name} must be" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("path", "said"),
    (
        ("items.by_ib", "did you mean items.by_id or"),
        ("items.page%3Fsort=colour", "did you mean items.page"),
        ("%00", "there is no statement"),
        ("%2e%2e", "there is no statement"),
        ("items.by_id;DROP%20TABLE%20items", "there is no statement"),
        ("items.by_id%2f..", "nothing at this path"),
        ("x" * 5000, "there is no statement"),
    ),
)
def test_an_unknown_name_is_404_with_the_nearest_ones(
    client: httpx.Client, path: str, said: str
) -> None:
    answer = client.get(f"/admin/explain/{path}")
    assert answer.status_code == 404
    assert said in answer.json()["detail"]
    assert len(answer.content) < 1000


def test_a_write_is_analyzed_for_admins_alone(client: httpx.Client, sql: Query) -> None:
    """Without authentication there is no admin. A plan alone takes no locks."""
    for name in ("items.add", "keys.lock_owner", "items.remove"):
        answer = client.get(f"/admin/explain/{name}", params={"analyze": "true"})
        assert answer.status_code == 403
        assert "only an admin's key may analyze it" in answer.json()["detail"]
        assert explain(client, name)["changes"]
    assert sql("SELECT FROM items") == []


def test_the_slowest_statements_come_first(client: httpx.Client) -> None:
    for _ in range(3):
        client.get("/items", headers={"cache-control": "no-cache"})
    client.post("/items", json={"name": "Lamp"})
    found = client.get("/admin/slow", params={"limit": 100}).json()
    rows = {one["statement"]: one for one in found["statements"]}
    assert rows["items.add"]["calls"] >= 1
    assert rows["items.add"]["rows"] >= 1
    totals = [one["total_ms"] for one in found["statements"]]
    assert totals == sorted(totals, reverse=True)
    for one in found["statements"]:
        assert one["total_ms"] == pytest.approx(one["mean_ms"] * one["calls"], rel=0.01, abs=0.1)
        assert one["mean_ms"] <= one["max_ms"] + 0.001
    worst = client.get("/admin/slow", params={"sort": "max", "limit": 1}).json()["statements"]
    assert [one["max_ms"] for one in worst] == [max(one["max_ms"] for one in rows.values())]
    assert found["pg_stat_statements"]["detail"].startswith("not installed")
    assert client.get("/admin/slow", params={"sort": "id"}).status_code == 422
    assert client.get("/admin/slow", params={"limit": "0"}).status_code == 422


def test_figures_are_summed_over_workers(tmp_path: Any) -> None:
    first, second = Metrics(Store(tmp_path)), Metrics(Store(tmp_path))
    first.statement("a", 0.1, 1)
    first.statement("b", 0.5, 3)
    second.statement("a", 0.3, 2)
    second.failed_statement("a", 0.2, timeout=True)
    second.failed_statement("a", 0.2, timeout=False)
    slots: list[Slot] = first.store.slots()
    a, b = slowest(slots, "total", 10)
    assert (a.statement, a.calls, a.errors, a.timeouts, a.rows) == ("a", 4, 1, 1, 3)
    assert (a.total_ms, a.mean_ms, a.max_ms) == (800.0, 200.0, 300.0)
    assert (b.statement, b.max_ms) == ("b", 500.0)
    assert [one.statement for one in slowest(slots, "max", 10)] == ["b", "a"]
    assert [one.statement for one in slowest(slots, "timeouts", 1)] == ["a"]
    for one in (first, second):
        one.store.close()
