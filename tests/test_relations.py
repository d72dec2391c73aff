"""Rows with their children and parents: each request has a fixed number of statements."""

import asyncio
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any

import httpx
import msgspec
import pytest
from conftest import Query, statements_run
from msgspec import Meta, Struct

from service.app import create_app
from service.db.database import Database
from service.db.statement import RefusedError
from service.items import items
from service.items.structs import Item
from service.resource import ID, Resource
from service.resource.included import encode_with_members
from service.settings import Settings
from service.users import users
from service.web.times import encode_each, encode_rows

FRESH = {"Cache-Control": "no-cache"}


@pytest.fixture
def ada(client: httpx.Client) -> int:
    """A user."""
    return user(client, "ada")


def user(client: httpx.Client, name: str) -> int:
    made = client.post("/users", json={"email": f"{name}@example.com", "username": name})
    found: int = made.json()["id"]
    return found


def give(sql: Query, owner: int, count: int) -> None:
    """Give a user this number of items."""
    sql(
        "INSERT INTO items (name, owner_id) SELECT 'Lamp ' || n, $1 FROM generate_series(1, $2) n",
        owner,
        count,
    )


def test_a_user_has_the_newest_items_and_the_number_of_all(
    client: httpx.Client, sql: Query, ada: int
) -> None:
    bob = user(client, "bob")
    give(sql, ada, 41)
    give(sql, bob, 1)
    plain = client.get(f"/users/{ada}", headers=FRESH)
    shown = client.get(f"/users/{ada}?include=items", headers=FRESH)
    assert statements_run(shown) == 2
    user_ = shown.json()
    newest = user_.pop("items")
    assert (user_, newest) == (
        {**plain.json(), "items_total": 41},
        client.get(f"/users/{ada}/items?sort=-id&per_page=20").json()["items"],
    )
    assert len(newest) == 20
    alone = client.get(f"/users/{bob}?include=items", headers=FRESH).json()
    assert (len(alone["items"]), alone["items_total"]) == (1, 1)
    none = client.get(f"/users/{user(client, 'eve')}?include=items").json()
    assert (none["items"], none["items_total"]) == ([], 0)


def test_each_user_of_a_list_has_the_newest_items(client: httpx.Client, sql: Query) -> None:
    ids = [user(client, f"user{n}") for n in range(3)]
    for count, owner in zip((0, 3, 25), ids, strict=True):
        give(sql, owner, count)
    for query, statements in (("per_page=3", 2), ("cursor=&per_page=3", 2), ("q=nothing", 1)):
        plain = client.get(f"/users?{query}", headers=FRESH).json()
        listed = client.get(f"/users?{query}&include=items", headers=FRESH)
        assert statements_run(listed) == statements
        page = listed.json()
        for one in page["items"]:
            whole = client.get(f"/users/{one['id']}?include=items").json()
            assert (one.pop("items"), one.pop("items_total")) == (
                whole["items"],
                whole["items_total"],
            )
        assert page == plain
    following = client.get("/users?cursor=&per_page=2&include=items")
    assert "include=items" in following.links["next"]["url"]
    last = client.get(following.links["next"]["url"]).json()
    assert [one["items_total"] for one in last["items"]] == [25]


def test_the_number_of_statements_does_not_grow_with_the_rows(
    client: httpx.Client, sql: Query, ada: int
) -> None:
    requests = {
        f"/users/{ada}?include=items": 2,
        "/users?include=items": 2,
        "/items?include=owner&per_page=100": 2,
        f"/users/{ada}/items?per_page=100": 1,
        f"/users/{ada}/items?cursor=&per_page=100": 1,
    }
    total = 0
    for count in (1, 100, 10_000):
        give(sql, ada, count - total)
        total = count
        for path, statements in requests.items():
            answer = client.get(path, headers=FRESH)
            assert (answer.status_code, statements_run(answer)) == (200, statements), path
            assert len(answer.content) < 60_000, path
        assert client.get(f"/users/{ada}?include=items").json()["items_total"] == count


def test_a_new_item_of_a_user_invalidates_the_responses_that_have_it(
    client: httpx.Client, ada: int
) -> None:
    bob = user(client, "bob")
    item = client.post("/items", json={"name": "Lamp", "owner_id": ada}).headers["location"]
    paths = {
        "ada": f"/users/{ada}?include=items",
        "bob": f"/users/{bob}?include=items",
        "list": "/users?include=items",
        "plain": f"/users/{ada}",
        "plain list": "/users",
    }

    def invalidated_by(method: str, path: str, body: Any = None) -> set[str]:
        for one in paths.values():
            client.get(one)
            assert client.get(one).headers["x-cache"] == "HIT"
        assert client.request(method, path, json=body).is_success
        answers = {name: client.get(one) for name, one in paths.items()}
        for name, one in paths.items():
            assert answers[name].json() == client.get(one, headers=FRESH).json()
        return {name for name, one in answers.items() if one.headers["x-cache"] == "MISS"}

    new = {"name": "Torch"}
    assert invalidated_by("POST", f"/users/{ada}/items", new) == {"ada", "list"}
    assert invalidated_by("POST", "/items", new) == {"list"}
    assert invalidated_by("PATCH", item, {"price": 5}) == {"ada", "list"}
    # The old owner of a changed item is not known, so the items of all are invalidated.
    assert invalidated_by("PATCH", item, {"owner_id": bob}) == {"ada", "bob", "list"}
    assert invalidated_by("POST", "/items/bulk", {"items": [new]}) >= {"list"}
    assert invalidated_by("DELETE", f"{item}?permanent=true") == {"bob", "list"}
    assert invalidated_by("PATCH", f"/users/{ada}", {"full_name": "Ada"}) == {*paths} - {"bob"}


def test_a_response_with_included_rows_has_no_etag(client: httpx.Client, ada: int) -> None:
    """The version of the user stays when the items change, so it can't be their ETag."""
    assert client.get(f"/users/{ada}").headers["etag"] == '"1"'
    for conditions in ({"If-None-Match": '"1"'}, {"If-None-Match": "*"}, {"If-Match": '"7"'}):
        for cached in ({}, FRESH):
            shown = client.get(f"/users/{ada}?include=items", headers={**conditions, **cached})
            assert (shown.status_code, shown.json()["items"]) == (200, [])
            assert "etag" not in shown.headers
    assert client.get(f"/users/{ada}", headers={"If-None-Match": '"1"'}).status_code == 304


@pytest.mark.parametrize(
    ("path", "allowed"),
    (
        ("/users", "items"),
        ("/users/1", "one or more of items, keys, each once, separated by commas"),
        ("/items", "owner"),
    ),
)
def test_an_include_that_is_unknown_or_repeated_is_refused(
    client: httpx.Client, ada: int, path: str, allowed: str
) -> None:
    for value in ("", "password", "items,owner", "items,items", "owner,", "ITEMS", "items, keys"):
        refused = client.get(f"{path}?include={value}")
        assert refused.status_code == 422
        assert refused.json()["errors"] == [{"field": "include", "message": f"must be {allowed}"}]
    assert client.get(f"{path}?include=%00").status_code == 422
    assert client.get(f"{path}?include=items&include=items").status_code == 422


def test_a_user_has_their_keys_without_the_secrets(
    client: httpx.Client, sql: Query, ada: int
) -> None:
    path = f"/users/{ada}?include=keys,items"
    assert client.get(path).json()["keys"] == []
    made = [client.post(f"/users/{ada}/keys", json={"name": name}).json() for name in "ab"]
    shown = client.get(path)
    assert (shown.headers["x-cache"], statements_run(shown)) == ("MISS", 3)
    user_ = shown.json()
    assert (user_["keys_total"], user_["items_total"], user_["items"]) == (2, 0, [])
    assert user_["keys"] == client.get(f"/users/{ada}/keys?sort=-id").json()["items"]
    assert [key["id"] for key in user_["keys"]] == [key["id"] for key in reversed(made)]
    ((stored,),) = sql("SELECT encode(secret_hash, 'hex') FROM keys WHERE id = $1", made[0]["id"])
    for secret in (made[0]["key"].rpartition("_")[2], stored):
        assert secret not in shown.text
    assert client.get(path).headers["x-cache"] == "HIT"
    # As a list is sent by clients that do not separate values by commas.
    assert client.get(f"/users/{ada}?include=keys&include=items").json() == user_
    client.delete(f"/users/{ada}/keys/{made[1]['id']}")
    assert [key["name"] for key in client.get(path).json()["keys"]] == ["a"]
    assert client.get("/users?include=keys").status_code == 422


def test_a_missing_row_is_404_with_and_without_include(client: httpx.Client) -> None:
    plain, missing = (
        client.get(f"/users/77{query}", headers={"X-Request-ID": "mine"})
        for query in ("", "?include=items")
    )
    assert (missing.status_code, missing.content) == (404, plain.content)
    assert client.get(f"/users/{2**63}?include=items").status_code == 404
    assert client.get("/users/x?include=items").status_code == 422


class NewNote(Struct, kw_only=True):
    """A note."""

    title: Annotated[str, Meta(max_length=9)]
    owner_id: ID | None = None


class NewTeam(Struct, kw_only=True):
    """A team, with a field that has the name of a child's total."""

    name: str
    members_total: int = 0


class NewMember(Struct, kw_only=True):
    """A member of a team."""

    team_id: ID


OF_USERS: dict[str, Any] = {
    "references": {"owner_id": users},
    "filters": ("owner_id",),
    "under": ("owner_id",),
}


def included_in(app: Any, path: str) -> list[str]:
    """Return the values of `include` that an operation has in the document."""
    for one in app.operations:
        if (one.method, one.path) == ("GET", path) and one.query is not None:
            kinds = {field.name: field.type for field in msgspec.structs.fields(one.query)}
            if "include" in kinds:
                return [*kinds["include"].__args__[0].ALLOWED]
    return []


def test_include_has_the_children_that_the_application_serves() -> None:
    settings = Settings()
    notes = Resource("notes", NewNote, newest_in_lists=False, **OF_USERS)
    without = Resource("drafts", NewNote, newest=0, **OF_USERS)
    for resources, read, listed in (
        ((users,), [], []),
        ((users, items), ["items"], ["items"]),
        ((items, users), ["items"], ["items"]),
        ((users, notes), ["notes"], []),
        ((notes, without, users, items), ["notes", "items"], ["items"]),
        ((users, without), [], []),
        ((items, notes), [], []),
    ):
        app = create_app(settings, resources=resources, migrations="none")
        assert included_in(app, "/users/{id}") == read
        assert included_in(app, "/users") == listed
        assert included_in(app, "/items") == (["owner"] if items in resources else [])


def test_a_child_may_have_children_of_its_own() -> None:
    class NewPart(Struct):
        name: str
        item_id: ID | None = None

    parts = Resource(
        "parts",
        NewPart,
        references={"item_id": items},
        filters=("item_id",),
        under=("item_id",),
    )
    app = create_app(Settings(), resources=(users, items, parts), migrations="none")
    assert included_in(app, "/items") == ["owner", "parts"]
    pages = [one.response for one in app.operations if one.path in {"/items", "/users/{id}/items"}]
    assert pages[0] is pages[2], "two Structs of one name can't be in the OpenAPI document"


def test_an_operation_with_a_handler_of_its_own_has_no_include() -> None:
    async def own(_: Any) -> Any: ...

    teams = Resource("teams", NewTeam, handlers={"read": own, "list": own})
    members = Resource(
        "people",
        NewMember,
        singular="person",
        references={"team_id": teams},
        filters=("team_id",),
        under=("team_id",),
    )
    app = create_app(Settings(), resources=(teams, members), migrations="none")
    assert [included_in(app, path) for path in ("/teams", "/teams/{id}")] == [[], []]


@pytest.mark.parametrize(("newest", "message"), ((20, "'members_total'.*newest=0"), (0, None)))
def test_a_child_with_the_name_of_a_field_is_refused(newest: int, message: str | None) -> None:
    teams = Resource("teams", NewTeam)
    members = Resource(
        "members",
        NewMember,
        references={"team_id": teams},
        filters=("team_id",),
        under=("team_id",),
        newest=newest,
    )
    if message is None:
        create_app(Settings(), resources=(teams, members), migrations="none")
    else:
        with pytest.raises(RefusedError, match=message):
            create_app(Settings(), resources=(teams, members), migrations="none")


@pytest.mark.parametrize("newest", (-1, 101))
def test_a_number_of_newest_rows_that_is_out_of_range_is_refused(newest: int) -> None:
    with pytest.raises(RefusedError, match="`newest` must be 0 to 100"):
        Resource("notes", NewNote, newest=newest, **OF_USERS)


class Shown(Struct):
    """A row with the same field as another type of row, which is no time there."""

    id: int
    at: datetime


def test_a_member_with_the_name_of_a_time_is_not_changed() -> None:
    """A time gets six decimals; a string at the same place must stay as it is."""
    text = b'"parts":[{"at":"2026-01-01T00:00:00Zzz"}]'
    row = Shown(1, datetime(2026, 1, 1, tzinfo=UTC))
    (encoded,) = asyncio.run(encode_with_members([row], [[text]]))
    assert bytes(encoded) == b'{"id":1,"at":"2026-01-01T00:00:00.000000Z",%b}' % text


def test_rows_are_encoded_alone_as_in_a_list() -> None:
    """Times have six decimals, and numbers no exponent."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    rows = [
        Item(1, None, "a", None, Decimal("1E+4"), True, None, 1, at, None),
        Item(2, None, "E+", None, Decimal("1.5"), True, 1, 2, at.replace(microsecond=5), at),
    ]
    assert b"[%b]" % b",".join(encode_each(rows)) == encode_rows(rows, rows)
    assert b'"price":10000,' in encode_each(rows)[0]
    assert encode_each([]) == []


def test_long_rows_are_included_unchanged(client: httpx.Client, ada: int) -> None:
    """They are encoded one by one, so that other requests need not wait for all of them."""
    for text in ("x" * 20_000, None):
        client.post("/items", json={"name": "Lamp", "description": text, "owner_id": ada})
    expected = client.get(f"/users/{ada}/items?sort=-id").json()["items"]
    assert client.get(f"/users/{ada}?include=items").json()["items"] == expected
    (listed,) = client.get("/users?include=items").json()["items"]
    assert (listed["items"], listed["items_total"]) == (expected, 2)


@pytest.fixture
def database(database_url: str, client: httpx.Client) -> Database:
    """The database of the server, after it was emptied."""
    del client
    return Database(database_url, size=1)


def test_concurrent_requests_for_different_users_share_statements(
    database: Database, sql: Query, client: httpx.Client
) -> None:
    ids = [user(client, f"user{n}") for n in range(20)]
    for owner in ids:
        give(sql, owner, owner)
    loader = items.newest_by["owner_id"]
    ran = 0
    several = loader.several

    async def counting(db: Database, parents: Any) -> Any:
        nonlocal ran
        ran += 1
        return await several(db, parents)

    async def load() -> list[tuple[list[Any], int]]:
        await database.open()
        try:
            return await asyncio.gather(*(loader.get(database, one) for one in [*ids, *ids]))
        finally:
            await database.close()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loader, "several", counting)
        found = asyncio.run(load())
    assert [total for _, total in found] == [*ids, *ids]
    assert all({row.owner_id for row in rows} == {total} for rows, total in found)
    assert ran <= 8
