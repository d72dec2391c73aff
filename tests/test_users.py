"""Users through HTTP, and the items they own."""

from typing import Any

import httpx
import pytest
from conftest import statements_run

ADA = {"email": "ada@example.com", "username": "ada", "full_name": "Ada Lovelace"}


@pytest.fixture
def ada(client: httpx.Client) -> dict[str, Any]:
    user: dict[str, Any] = client.post("/users", json=ADA).json()
    return user


def test_a_new_user_is_shown_whole(client: httpx.Client) -> None:
    response = client.post("/users", json={**ADA, "email": "  ada@example.com "})
    assert response.status_code == 201
    assert (response.headers["location"], response.headers["etag"]) == ("/users/1", '"1"')
    assert statements_run(response) == 1
    user = response.json()
    assert user.pop("created_at").endswith("Z")
    assert user == {
        "id": 1,
        **ADA,
        "role": "user",
        "is_active": True,
        "version": 1,
        "updated_at": None,
    }


@pytest.mark.parametrize(("field", "value"), (("email", "ADA@Example.com"), ("username", "Ada")))
def test_email_and_username_are_taken_without_regard_to_case(
    client: httpx.Client, ada: dict[str, Any], field: str, value: str
) -> None:
    other = {"email": "grace@example.com", "username": "grace"}
    response = client.post("/users", json={**other, field: value})
    assert response.status_code == 409
    assert response.json()["errors"] == [{"field": field, "message": "already taken"}]
    grace = client.post("/users", json=other).headers["location"]
    assert client.patch(grace, json={field: value}).status_code == 409
    # One's own, in other letters, is no conflict.
    assert client.patch("/users/1", json={field: value}).json()[field] == value


def test_put_patch_and_the_two_deletes(client: httpx.Client, ada: dict[str, Any]) -> None:
    changed = client.patch("/users/1", json={"full_name": None, "role": "admin"})
    assert (changed.json()["full_name"], changed.json()["role"]) == (None, "admin")
    replaced = client.put("/users/1", json={"email": "a@example.com", "username": "ada"})
    assert (replaced.json()["role"], replaced.json()["version"]) == ("user", 3)
    assert client.put("/users/1", json={"email": "a@example.com"}).status_code == 422
    gone = client.delete("/users/1", headers={"if-match": '"3"'})
    assert (gone.json()["is_active"], gone.headers["etag"]) == (False, '"4"')
    assert client.get("/users/1", headers={"if-none-match": '"4"'}).status_code == 304
    removed = client.delete("/users/1?permanent=true")
    assert removed.status_code == 204
    for response in (changed, replaced, gone, removed):
        assert statements_run(response) == 1
    assert client.get("/users/1").status_code == 404


def test_a_user_with_items_is_not_removed(client: httpx.Client, ada: dict[str, Any]) -> None:
    client.post("/items", json={"name": "Lamp", "owner_id": 1})
    response = client.delete("/users/1?permanent=true")
    assert response.status_code == 409
    assert response.json()["errors"] == [{"field": "items", "message": "still refer to it"}]
    assert client.delete("/users/1").status_code == 200


def test_a_list_shows_only_what_it_promises(client: httpx.Client, ada: dict[str, Any]) -> None:
    shown = ["id", "email", "username", "full_name", "role", "is_active"]
    for url in ("/users", "/users?sort=-created_at", "/users?cursor="):
        (user,) = client.get(url).json()["items"]
        assert list(user) == shown


def test_users_are_searched_by_every_name_they_have(client: httpx.Client) -> None:
    client.post("/users", json=ADA)
    client.post("/users", json={"email": "g@example.org", "username": "hopper"})
    for q, expected in (("LOVE", [1]), ("hop", [2]), ("ada@", [1]), ("example", [1, 2])):
        found = client.get("/users", params={"q": q}).json()
        assert [user["id"] for user in found["items"]] == expected


def test_users_are_filtered_by_role_and_activity(client: httpx.Client, ada: dict[str, Any]) -> None:
    client.post("/users", json={"email": "g@example.org", "username": "grace", "role": "admin"})
    client.delete("/users/1")
    for query, expected in (
        ("role=admin", [2]),
        ("role=user", [1]),
        ("is_active=false", [1]),
        ("is_active=true&role=user", []),
    ):
        found = client.get(f"/users?{query}").json()
        assert [user["id"] for user in found["items"]] == expected
        assert found["total"] == len(expected)


def test_a_users_items_are_listed_and_added(client: httpx.Client, ada: dict[str, Any]) -> None:
    client.post("/items", json={"name": "Nobody's"})
    added = client.post("/users/1/items", json={"name": "Lamp", "owner_id": 77})
    assert added.status_code == 201
    assert (added.json()["owner_id"], statements_run(added)) == (1, 1)
    page = client.get("/users/1/items")
    assert (page.json()["items"], page.json()["total"]) == ([added.json()], 1)
    assert statements_run(page) == 1
    assert client.get("/users/1/items?cursor=&q=LAMP").json()["items"] == [added.json()]
    assert client.get("/users/1/items?owner_id=2").status_code == 422


def test_a_user_without_items_is_not_a_user_who_is_not_there(
    client: httpx.Client, ada: dict[str, Any]
) -> None:
    empty = client.get("/users/1/items")
    assert (empty.status_code, empty.json()["total"]) == (200, 0)
    assert statements_run(empty) == 2  # the list, and then whether there is a user at all
    assert client.get("/users/2/items").status_code == 404
    assert client.get("/users/2/items?cursor=").status_code == 404
    assert client.post("/users/2/items", json={"name": "Lamp"}).status_code == 404


def test_a_refusal_says_what_would_be_right(client: httpx.Client) -> None:
    for response, message in (
        (client.post("/users", json={"email": "x", "username": "ada"}), "ada@example.com"),
        (client.post("/users", json={"email": "a@b.co", "username": "a da"}), "digits"),
        (client.post("/users", json={**ADA, "role": "boss"}), "one of user, admin"),
        (client.patch("/users/1", json={"role": "boss"}), "one of user, admin"),
        (client.get("/users?sort=email"), "one of id, -id, created_at"),
        (client.get("/items?total=all"), "one of exact, estimated, none"),
        (client.post("/users", json={"email": "a@b.co"}), "required, but missing"),
    ):
        assert response.status_code == 422
        (error,) = response.json()["errors"]
        assert message in error["message"]
        assert error["field"] in response.json()["detail"]
