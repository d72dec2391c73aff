"""Lists by page and by cursor: order, filters, totals, links, and rows that come and go."""

import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest
from conftest import Query, statements_run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.errors import Invalid
from service.web.cursor import Cursors

SORTS = ("id", "created_at", "name", "price")
EITHER = tuple(sign + sort for sort in SORTS for sign in ("", "-"))
START = datetime(2026, 1, 1, tzinfo=UTC)

Row = dict[str, Any]


def insert(sql: Query, rows: int) -> None:
    """Items whose names, prices and times stand several times each, and some without a price."""
    sql(
        "INSERT INTO items (name, price, is_active, created_at)"
        " SELECT 'Item ' || chr(65 + n % 5), nullif(n % 4, 3) + 0.5, n % 3 <> 0,"
        " $1::timestamptz + n % 7 * interval '1 us' FROM generate_series(1, $2::int) n",
        START,
        rows,
    )


def key(sort: str) -> Callable[[Row], tuple[Any, int]]:
    """The order as a list promises it: no price stands above every price."""
    field = sort.lstrip("-")

    def of(item: Row) -> tuple[Any, int]:
        value = item[field]
        if field == "price":
            value = float("inf") if value is None else value
        if field == "created_at":
            value = datetime.fromisoformat(value)
        return value, item["id"]

    return of


def pages(client: httpx.Client, query: str, *, limit: int = 100) -> list[Row]:
    """Every row, by following the cursor."""
    found: list[Row] = []
    cursor = ""
    for _ in range(limit):
        page = client.get(f"/items?cursor={cursor}&{query}").json()
        found += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            return found
    raise AssertionError("the cursor does not end")


def test_a_page_has_its_position_and_links(client: httpx.Client, sql: Query) -> None:
    insert(sql, 41)
    response = client.get("/items?page=2")
    assert statements_run(response) == 1
    page = response.json()
    assert list(page) == ["items", "total", "page", "per_page", "pages", "next_cursor"]
    assert [item["id"] for item in page["items"]] == list(range(11, 21))
    assert (page["total"], page["page"], page["per_page"], page["pages"]) == (41, 2, 10, 5)
    assert response.links["next"]["url"] == "/items?page=3"
    assert response.links["prev"]["url"] == "/items?page=1"
    assert response.links["first"]["url"] == "/items?page=1"
    assert response.links["last"]["url"] == "/items?page=5"


@pytest.mark.parametrize("page", (6, 7, 1000, 10**9))
def test_a_page_after_the_last_one_has_the_right_total(
    client: httpx.Client, sql: Query, page: int
) -> None:
    insert(sql, 41)
    response = client.get(f"/items?page={page}")
    assert response.status_code == 200
    assert statements_run(response) == 1
    found = response.json()
    assert (found["items"], found["total"], found["pages"]) == ([], 41, 5)
    assert found["next_cursor"] is None
    assert response.links["prev"]["url"] == "/items?page=5"
    assert "next" not in response.links


def test_an_empty_table_has_an_empty_first_page(client: httpx.Client) -> None:
    found = client.get("/items").json()
    assert (found["items"], found["total"], found["pages"], found["next_cursor"]) == (
        [],
        0,
        0,
        None,
    )


FILTERS: tuple[tuple[str, Callable[[Row], bool]], ...] = (
    ("is_active=true", lambda item: item["is_active"]),
    ("is_active=false", lambda item: not item["is_active"]),
    ("q=iTeM%20b", lambda item: item["name"] == "Item B"),
    ("min_price=1.5", lambda item: item["price"] is not None and item["price"] >= 1.5),
    ("max_price=1.5", lambda item: item["price"] is not None and item["price"] <= 1.5),
    ("owner_id=1", lambda item: item["owner_id"] == 1),
)


@pytest.mark.parametrize("count", (1, 2, 3))
@pytest.mark.parametrize("sort", ("id", "-price", "name"))
def test_filters_can_be_combined_in_any_sort(
    client: httpx.Client, sql: Query, sort: str, count: int
) -> None:
    insert(sql, 60)
    client.post("/users", json={"email": "a@example.com", "username": "ada"})
    sql("UPDATE items SET owner_id = 1 WHERE id % 2 = 0")
    everything = client.get("/items?per_page=100").json()["items"]
    for chosen in itertools.combinations(FILTERS, count):
        names = [text.partition("=")[0] for text, _ in chosen]
        if len(set(names)) < count:
            continue  # a parameter is given once
        query = "&".join(text for text, _ in chosen)
        kept = [item for item in everything if all(test(item) for _, test in chosen)]
        kept.sort(key=key(sort), reverse=sort.startswith("-"))
        response = client.get(f"/items?{query}&sort={sort}&per_page=100").json()
        assert response["items"] == kept, query
        assert response["total"] == len(kept)
        assert pages(client, f"{query}&sort={sort}&per_page=9") == kept


def test_a_search_has_no_wildcards(client: httpx.Client) -> None:
    for name in ("100%", "100 x", "a_b", "axb", r"back\slash", "Ärger", "o'clock"):
        client.post("/items", json={"name": name})
    for q, names in (
        ("%", ["100%"]),
        ("_", ["a_b"]),
        ("\\", [r"back\slash"]),
        ("ärger", ["Ärger"]),
        ("'", ["o'clock"]),
        ("100", ["100%", "100 x"]),
    ):
        found = client.get("/items", params={"q": q}).json()
        assert [item["name"] for item in found["items"]] == names


def test_a_total_is_exact_estimated_or_null(client: httpx.Client, sql: Query) -> None:
    insert(sql, 41)
    assert client.get("/items?total=exact").json()["total"] == 41
    none = client.get("/items?total=none").json()
    assert (none["total"], none["pages"], len(none["items"])) == (None, None, 10)
    sql("VACUUM ANALYZE items")
    assert client.get("/items?total=estimated").json()["total"] == 41
    assert client.get("/items?total=estimated&q=item").json()["total"] == 41
    assert "total" not in client.get("/items?cursor=").json()
    assert client.get("/items?cursor=&total=exact").json()["total"] == 41
    sql("INSERT INTO items (name) SELECT 'more' FROM generate_series(1, 40)")
    # Whatever the estimate: never less than what is plainly there.
    seen = client.get("/items?total=estimated&per_page=100").json()
    assert seen["total"] >= len(seen["items"]) == 81


def test_a_cursor_has_its_next_page_as_a_link(client: httpx.Client, sql: Query) -> None:
    insert(sql, 15)
    response = client.get("/items?cursor=&is_active=true&per_page=4&q=item")
    url = response.links["next"]["url"]
    assert client.get(url).json()["items"][0]["id"] > response.json()["items"][-1]["id"]


def test_a_cursor_is_valid_only_for_its_list_sort_and_filters(
    client: httpx.Client, sql: Query
) -> None:
    insert(sql, 30)
    cursor = client.get("/items?cursor=&sort=price&min_price=0.5&per_page=3").json()["next_cursor"]
    assert (
        client.get(f"/items?cursor={cursor}&sort=price&min_price=0.5&per_page=9").status_code == 200
    )
    flipped = cursor[:-2] + ("A" if cursor[-2] != "A" else "B") + cursor[-1]
    for query in (
        f"cursor={cursor}",
        f"cursor={cursor}&sort=price",
        f"cursor={cursor}&sort=-price&min_price=0.5",
        f"cursor={cursor}&sort=price&min_price=0.6",
        f"cursor={cursor}&sort=price&min_price=0.5&is_active=true",
        f"cursor={flipped}&sort=price&min_price=0.5",
        f"cursor={cursor}=&sort=price&min_price=0.5",
        f"cursor={cursor[:-4]}&sort=price&min_price=0.5",
    ):
        response = client.get(f"/items?{query}")
        assert response.status_code == 422, query
        assert response.json()["errors"][0]["field"] == "cursor"
        assert statements_run(response) == 0
    assert client.get(f"/users?cursor={cursor}").status_code == 422


@given(
    values=st.tuples(
        st.one_of(
            st.text(max_size=50),
            st.decimals(0, 10**10, places=4),
            st.datetimes(timezones=st.just(UTC)),
        ),
        st.integers(1, 2**63 - 1),
    ),
    binding=st.binary(),
    damage=st.integers(0),
)
def test_a_cursor_returns_its_values_and_rejects_changes(
    values: tuple[Any, int], binding: bytes, damage: int
) -> None:
    cursors = Cursors("a secret of some length")
    cursor = cursors.write(values, binding)
    kind = Decimal if isinstance(values[0], Decimal) else type(values[0])
    assert cursors.read(cursor, tuple[kind, int], binding) == values  # type: ignore[valid-type]
    place = damage % len(cursor)
    other = "A" if cursor[place] != "A" else "B"
    for wrong in (cursor[:place] + other + cursor[place + 1 :], cursor[:place], cursor + "A"):
        with pytest.raises(Invalid):
            cursors.read(wrong, tuple[kind, int], binding)  # type: ignore[valid-type]
    with pytest.raises(Invalid):
        cursors.read(cursor, tuple[kind, int], binding + b"x")  # type: ignore[valid-type]
    with pytest.raises(Invalid):
        Cursors("another secret").read(cursor, tuple[kind, int], binding)  # type: ignore[valid-type]


NAMES = st.sampled_from(("a", "B", "b", "ä", "aa", ""))
CHANGE = st.one_of(
    st.tuples(st.just("insert"), NAMES, st.integers(0, 3), st.integers(0, 3)),
    st.tuples(st.just("delete"), st.integers(0, 30)),
)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    sort=st.sampled_from(EITHER),
    per_page=st.integers(1, 5),
    first=st.lists(st.tuples(NAMES, st.integers(0, 3), st.integers(0, 3)), max_size=12),
    changes=st.lists(st.lists(CHANGE, max_size=3), max_size=12),
)
def test_inserted_and_deleted_rows_neither_hide_nor_repeat_other_rows(
    client: httpx.Client,
    sql: Query,
    sort: str,
    per_page: int,
    first: list[tuple[str, int, int]],
    changes: list[list[tuple[Any, ...]]],
) -> None:
    sql("TRUNCATE items RESTART IDENTITY")

    def add(name: str, price: int, second: int) -> int:
        return int(
            sql(
                "INSERT INTO items (name, price, created_at)"
                " VALUES ('n' || $1::text, nullif($2::int, 3), $3) RETURNING id",
                name,
                price,
                START + timedelta(seconds=second),
            )[0][0]
        )

    throughout = {add(*row) for row in first}
    shown: list[Row] = []
    cursor: str | None = ""
    steps = iter(changes)
    while cursor is not None:
        page = client.get(f"/items?sort={sort}&per_page={per_page}&cursor={cursor}").json()
        shown += page["items"]
        cursor = page["next_cursor"]
        for change in next(steps, ()):
            if change[0] == "insert":
                add(*change[1:])
            else:
                sql("DELETE FROM items WHERE id = $1", change[1])
                throughout.discard(change[1])
    ids = [item["id"] for item in shown]
    assert len(ids) == len(set(ids)), "a row was shown twice"
    assert throughout <= set(ids), "a row that stood throughout was skipped"
    assert shown == sorted(shown, key=key(sort), reverse=sort.startswith("-"))


def test_included_owners_need_one_more_statement(client: httpx.Client, sql: Query) -> None:
    sql("INSERT INTO users (email, username) SELECT n || '@x.org', 'user' || n"
        " FROM generate_series(1, 3) n")  # fmt: skip
    sql("INSERT INTO items (name, owner_id) SELECT 'x', nullif(n % 4, 0)"
        " FROM generate_series(1, 40) n")  # fmt: skip
    plain = client.get("/items?per_page=40").json()
    response = client.get("/items?per_page=40&include=owner")
    assert statements_run(response) == 2
    found = response.json()
    assert {**found, "items": None} == {**plain, "items": None}
    for item, bare in zip(found["items"], plain["items"], strict=True):
        owner = item.pop("owner")
        assert item == bare
        if bare["owner_id"] is None:
            assert owner is None
        else:
            shown = client.get("/users?per_page=3").json()["items"][bare["owner_id"] - 1]
            assert owner == shown
    nobody = client.get("/items?include=owner&per_page=1&sort=-id&q=nothing")
    assert (nobody.json()["items"], statements_run(nobody)) == ([], 1)
    cursor = client.get("/items?include=owner&cursor=&per_page=2")
    assert [item["owner"]["id"] for item in cursor.json()["items"]] == [1, 2]
    assert "include=owner" in cursor.links["next"]["url"]
    assert client.get("/items?include=keys").status_code == 422
