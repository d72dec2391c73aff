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


def test_a_new_user_is_returned_whole(client: httpx.Client) -> None:
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


def test_an_empty_list_of_a_user_differs_from_a_missing_user(
    client: httpx.Client, ada: dict[str, Any]
) -> None:
    empty = client.get("/users/1/items")
    assert (empty.status_code, empty.json()["total"]) == (200, 0)
    assert statements_run(empty) == 2  # the list, and then whether there is a user at all
    assert client.get("/users/2/items").status_code == 404
    assert client.get("/users/2/items?cursor=").status_code == 404
    assert client.post("/users/2/items", json={"name": "Lamp"}).status_code == 404


def test_errors_say_what_is_allowed(client: httpx.Client) -> None:
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
