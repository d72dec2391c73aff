"""API keys through two workers: who may make and see them, and how fast one stops working."""

import asyncio
import os
import random
import re
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import asyncpg
import httpx
import pytest
from accounts import Account, account
from conftest import SERVER, Service, check_answer, query
from hypothesis import given
from hypothesis import strategies as st
from test_faults import _redis_pid, processes

from service.embedded.data_directory import Stores
from service.keys.key_format import ALPHABET, LENGTH, new_key, parse
from service.keys.structs import Key

# Within so many seconds each worker must refuse a key.
PROMISED = 1.0
KEY = re.compile(r"svc_live_[0-9A-Za-z]{8}_[0-9A-Za-z]{38}")
DISCONNECT = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE application_name LIKE 'swiftlet%' AND datname = current_database()
"""
LATER = {"name": "later", "expires_at": "2099-01-01T00:00:00Z"}


@pytest.fixture(scope="module")
def url(own_database_url: str) -> str:
    return own_database_url


@pytest.fixture(scope="module")
def keyed(stores: Stores, url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Two workers that need a key."""
    running = Service(
        tmp_path_factory.mktemp("keyed") / "log",
        "--server",
        SERVER,
        "--workers",
        "2",
        DATABASE_URL=url,
        REDIS_URL=stores.redis_url or "off",
        SERVICE_AUTH="on",
        SERVICE_LOG="json",
        SERVICE_STATEMENT_TIMEOUT_MS="500",
        SERVICE_ACCESS_LOG="on",
    )
    try:
        running.wait_until_ready()
        yield running
        assert running.stop() == 0
        log = running.log.read_text()
        assert "Traceback" not in log, log
        assert not KEY.search(log), "a key is in the log"
    finally:
        running.process.kill()
        running.process.wait()


@pytest.fixture(scope="module")
def admin(url: str, keyed: Service) -> Account:
    return account(url, "admin")


@pytest.fixture
def client(keyed: Service) -> Iterator[httpx.Client]:
    with httpx.Client(
        base_url=keyed.url, timeout=30, event_hooks={"response": [check_answer]}
    ) as one:
        yield one


@contextmanager
def each_worker(keyed: Service) -> Iterator[list[httpx.Client]]:
    """A client for each worker, with a connection that stays open."""
    with ExitStack() as opened:
        found: dict[str, httpx.Client] = {}
        while len(found) < 2:
            one = opened.enter_context(httpx.Client(base_url=keyed.url, timeout=30))
            worker = one.get("/health/live").headers["x-request-id"].partition("-")[0]
            found.setdefault(worker, one)
        yield list(found.values())


@contextmanager
def hung(pids: list[int]) -> Iterator[None]:
    """Stop processes for a while; a backend of ours may end before."""
    try:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def test_a_new_key_has_the_documented_form() -> None:
    key = new_key()
    assert KEY.fullmatch(key)
    assert len(key) == LENGTH == 56
    parsed = parse(key.encode())
    assert parsed is not None
    assert parsed.public_id == key[:17]
    assert len({new_key() for _ in range(1000)}) == 1000


@given(st.integers(0, LENGTH - 1), st.sampled_from([*ALPHABET, "_", "-", "\x00", "é", ""]))
def test_a_key_with_a_typo_is_refused_without_a_look_up(place: int, other: str) -> None:
    key = new_key()
    changed = key[:place] + other + key[place + 1 :]
    assert (parse(changed.encode()) is None) == (changed != key)


@given(
    st.binary(max_size=100)
    | st.text(ALPHABET, min_size=47, max_size=47).map(
        lambda text: f"svc_live_{text[:8]}_{text[8:]}".encode()
    )
)
def test_any_bytes_can_be_parsed(text: bytes) -> None:
    parse(text)


def test_a_key_is_shown_once_and_its_secret_never_again(
    client: httpx.Client, url: str, admin: Account
) -> None:
    user = account(url)
    path = f"/users/{user.user_id}/keys"
    made = client.post(
        path, json={"name": " laptop ", "expires_at": LATER["expires_at"]}, headers=user.headers
    )
    assert made.status_code == 201
    assert made.headers["cache-control"] == "no-store"
    told = made.json()
    key = told.pop("key")
    assert made.headers["location"] == f"{path}/{told['id']}"
    assert told["name"] == "laptop"
    assert told["scopes"] == ["read", "write"]
    assert told["expires_at"] == "2099-01-01T00:00:00.000000Z"
    assert key.startswith(f"{told['prefix']}_")
    assert told.keys() == {*Key.__struct_fields__}
    for viewer in (user, admin):
        listed = client.get(path, headers=viewer.headers)
        assert [one["id"] for one in listed.json()["items"]] == [user.key_id, told["id"]]
        assert listed.json()["items"][1] == told
        assert key[17:] not in listed.text
        assert "hash" not in listed.text
    stored = query(url, "SELECT * FROM keys WHERE id = $1", told["id"])[0]
    assert not any(key[18:50] in str(value) for value in stored.values())
    assert client.get("/items", headers={"X-API-Key": key}).status_code == 200
    first = client.get(f"{path}?cursor=&per_page=1", headers=user.headers).json()
    after = client.get(
        f"{path}?per_page=1&cursor={first['next_cursor']}", headers=user.headers
    ).json()
    assert [one["id"] for one in after["items"]] == [told["id"]]


@pytest.mark.parametrize(
    ("body", "field"),
    (
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "   "}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "a\0b"}, "name"),
        ({"name": "x", "scopes": []}, "scopes"),
        ({"name": "x", "scopes": ["fly"]}, "scopes[0]"),
        ({"name": "x", "scopes": ["read"] * 11}, "scopes"),
        ({"name": "x", "scopes": "read"}, "scopes"),
        ({"name": "x", "scopes": ["admin"]}, "scopes"),
        ({"name": "x", "expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"name": "x", "expires_at": "2099-01-01T00:00:00"}, "expires_at"),
        ({"name": "x", "expires_at": "9999-12-31T23:59:59-10:00"}, "expires_at"),
        ({"name": "x", "expires_at": 4070908800}, "expires_at"),
    ),
)
def test_a_wrong_key_is_422_and_names_the_field(
    client: httpx.Client, url: str, admin: Account, body: dict[str, Any], field: str
) -> None:
    user = query(url, "SELECT id FROM users WHERE role = 'user' LIMIT 1")
    user_id = user[0]["id"] if user else account(url).user_id
    answer = client.post(f"/users/{user_id}/keys", json=body, headers=admin.headers)
    assert answer.status_code == 422, answer.text
    assert [error["field"] for error in answer.json()["errors"]] == [field]


def test_a_key_made_with_another_has_at_most_its_scopes(
    client: httpx.Client, url: str, admin: Account
) -> None:
    def made(maker: Account, scopes: list[str] | None, of: Account | None = None) -> Any:
        body = {"name": "x"} if scopes is None else {"name": "x", "scopes": scopes}
        path = f"/users/{(of or maker).user_id}/keys"
        answer = client.post(path, json=body, headers=maker.headers)
        if answer.status_code == 403:
            return answer.json()["errors"][0]["message"]
        return answer.json().get("scopes", answer.status_code)

    user, writer = account(url), account(url, scopes=["write"])
    lesser = account(url, scopes=["read", "write"], user_id=admin.user_id)
    assert made(user, None) == ["read", "write"]
    assert made(user, ["write", "read", "write"]) == ["read", "write"]
    assert made(user, ["admin"]).endswith("does not have the scope admin")
    assert made(writer, None) == ["write"]
    assert made(writer, ["read"]).endswith("does not have the scope read")
    assert made(lesser, ["admin"]).endswith("does not have the scope admin")
    assert made(admin, ["admin"]) == ["admin"]
    assert made(admin, ["read"], of=user) == ["read"]
    assert made(admin, ["admin"], of=user) == 422


def test_keys_of_others_look_like_missing_ones(client: httpx.Client, url: str) -> None:
    user, other = account(url), account(url)
    missing = 2**62
    for method, path in (
        ("GET", "/users/{}/keys"),
        ("POST", "/users/{}/keys"),
        ("DELETE", f"/users/{{}}/keys/{other.key_id}"),
    ):
        body = {"name": "mine"} if method == "POST" else None
        answers = [
            client.request(method, path.format(one), json=body, headers=user.headers)
            for one in (other.user_id, missing)
        ]
        told = [{**one.json(), "request_id": ""} for one in answers]
        assert told[0] == told[1]
        assert told[0]["status"] == 404
    # Another user's key under one's own path.
    answer = client.delete(f"/users/{user.user_id}/keys/{other.key_id}", headers=user.headers)
    assert answer.status_code == 404
    assert query(url, "SELECT FROM keys WHERE id = $1", other.key_id)


def test_keys_are_included_in_the_read_of_their_user_only(
    client: httpx.Client, url: str, admin: Account
) -> None:
    user, other = account(url), account(url)
    path = f"/users/{user.user_id}"
    for viewer in (user, admin):
        shown = client.get(f"{path}?include=keys", headers=viewer.headers)
        (key,) = shown.json()["keys"]
        listed = client.get(f"{path}/keys", headers=viewer.headers).json()["items"][0]
        # `last_used_at` is written in the background, between the two reads or not.
        assert {**key, "last_used_at": ""} == {**listed, "last_used_at": ""}
        assert user.key[17:] not in shown.text
    assert client.get(f"{path}?include=keys", headers=other.headers).status_code == 404
    assert client.get("/users?include=keys", headers=admin.headers).status_code == 422


def test_a_user_with_keys_is_not_removed_for_good(
    client: httpx.Client, url: str, admin: Account
) -> None:
    user = account(url)
    path = f"/users/{user.user_id}"
    refused = client.delete(f"{path}?permanent=true", headers=admin.headers)
    assert refused.status_code == 409
    assert refused.json()["errors"][0]["field"] == "keys"
    revoked = client.delete(f"{path}/keys/{user.key_id}", headers=admin.headers)
    assert revoked.status_code == 204
    assert client.delete(f"{path}?permanent=true", headers=admin.headers).status_code == 204


def test_an_inactive_user_gets_no_key(client: httpx.Client, url: str, admin: Account) -> None:
    user = account(url)
    query(url, "UPDATE users SET is_active = false WHERE id = $1", user.user_id)
    answer = client.post(f"/users/{user.user_id}/keys", json=LATER, headers=admin.headers)
    assert answer.status_code == 409
    assert "not active" in answer.json()["detail"]


def test_concurrent_requests_make_no_more_than_twenty_keys(keyed: Service, url: str) -> None:
    user = account(url)
    query(
        url,
        "INSERT INTO keys (user_id, name, prefix, secret_hash, scopes, expires_at)"
        " SELECT $1, 'old', 'old' || n, sha256('x'), '{read}', now() FROM generate_series(1, 5) n",
        user.user_id,
    )
    with each_worker(keyed) as workers, ThreadPoolExecutor(30) as pool:

        def make(number: int) -> int:
            path = f"/users/{user.user_id}/keys"
            return workers[number % 2].post(path, json=LATER, headers=user.headers).status_code

        statuses = list(pool.map(make, range(30)))
    assert statuses.count(201) == 19
    assert statuses.count(409) == 11


@pytest.mark.parametrize("redis", ("with Redis", "while Redis hangs"))
def test_every_worker_refuses_a_key_within_a_second(
    keyed: Service, url: str, stores: Stores, admin: Account, redis: str
) -> None:
    """Each key is in use all the time, also for a response that is in the worker's cache."""
    removed, in_sql, expired, inactive, working = (account(url) for _ in range(5))
    demoted = account(url, "admin")
    item = httpx.post(f"{keyed.url}/items", json={"name": "Lamp"}, headers=admin.headers).headers[
        "location"
    ]
    paths = dict.fromkeys((removed, in_sql, expired, inactive, working), item)
    paths[demoted] = f"/users/{admin.user_id}/keys"
    pids = [] if redis == "with Redis" else [_redis_pid(stores)]
    with each_worker(keyed) as workers, hung(pids):
        refused: list[dict[Account, int]] = [{}, {}]

        def ask() -> None:
            """Not again with a key that is refused: too many failures are 429."""
            for one, seen in zip(workers, refused, strict=True):
                for who, path in paths.items():
                    if who not in seen:
                        status = one.get(path, headers=who.headers).status_code
                        if status != 200:
                            seen[who] = status

        ask()
        assert refused == [{}, {}]
        path = f"/users/{removed.user_id}/keys/{removed.key_id}"
        assert workers[0].delete(path, headers=removed.headers).status_code == 204
        query(url, "DELETE FROM keys WHERE id = $1", in_sql.key_id)
        query(url, "UPDATE keys SET expires_at = now() WHERE id = $1", expired.key_id)
        query(url, "UPDATE users SET is_active = false WHERE id = $1", inactive.user_id)
        query(url, "UPDATE users SET role = 'user' WHERE id = $1", demoted.user_id)
        until = time.monotonic() + PROMISED
        while time.monotonic() < until:
            ask()
        ask()
        assert (
            refused
            == [dict.fromkeys((removed, in_sql, expired, inactive), 401) | {demoted: 404}] * 2
        )


def test_refusals_do_not_tell_why(client: httpx.Client, url: str) -> None:
    revoked, expired, inactive = (account(url) for _ in range(3))
    query(url, "DELETE FROM keys WHERE id = $1", revoked.key_id)
    query(url, "UPDATE keys SET expires_at = now() WHERE id = $1", expired.key_id)
    query(url, "UPDATE users SET is_active = false WHERE id = $1", inactive.user_id)
    # The public id of a key that exists, with another secret.
    known = account(url).key
    guessed = next(key for key in iter(new_key, None) if parse(key.encode()))
    forged = _forged(known)
    keys = (revoked.key, expired.key, inactive.key, guessed, forged)
    answers = [client.get("/items", headers={"X-API-Key": key}) for key in keys]
    assert {one.status_code for one in answers} == {401}
    assert len({str({**one.json(), "request_id": ""}) for one in answers}) == 1
    assert {one.headers["www-authenticate"] for one in answers} == {'Bearer error="invalid_token"'}


def _forged(key: str) -> str:
    """A key with the same public id, another secret and the right checksum."""
    from service.keys.key_format import _checksum

    text = key[:18] + "".join(random.choices(ALPHABET, k=32))
    return text + _checksum(text.encode())


def test_a_database_that_does_not_answer_is_no_401(
    client: httpx.Client, url: str, stores: Stores
) -> None:
    user = account(url)
    with hung(processes(stores)):
        answer = client.get("/items", headers=user.headers)
        assert answer.status_code in {503, 504}
        assert "www-authenticate" not in answer.headers
        assert client.get("/items", headers={"X-API-Key": "nonsense"}).status_code == 401
        assert client.get("/health/live").status_code == 200
    eventually(lambda: client.get("/items", headers=user.headers).status_code == 200)


def eventually(test: Callable[[], object]) -> None:
    until = time.monotonic() + 60
    while not test():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_the_last_use_is_written_and_shown(keyed: Service, url: str) -> None:
    user = account(url)
    path = f"/users/{user.user_id}/keys"
    with each_worker(keyed) as workers:

        def shown() -> list[Any]:
            return [
                one.get(path, headers=user.headers).json()["items"][0]["last_used_at"]
                for one in workers
            ]

        shown()
        eventually(lambda: all(shown()))
        first = shown()
        assert first[0] == first[1]
        until = time.monotonic() + 1.2  # the other worker writes too, and finds nothing to do
        while time.monotonic() < until:
            assert shown() == first


def test_the_last_use_of_a_read_only_database_is_no_error(
    client: httpx.Client, keyed: Service, url: str
) -> None:
    """As on a standby: nothing is written, and no request fails for it."""
    user = account(url)
    name = query(url, "SELECT current_database()")[0][0]
    query(url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    query(url, DISCONNECT)
    try:
        told = "the database is read-only"
        until = time.monotonic() + 60
        while told not in keyed.log.read_text() and time.monotonic() < until:
            assert client.get("/items", headers=user.headers).status_code == 200
        assert told in keyed.log.read_text()
        assert client.get("/items", headers=user.headers).status_code == 200
    finally:
        asyncio.run(_writable(url, name))
    created = {"name": "Lamp", "owner_id": user.user_id}
    eventually(lambda: client.post("/items", json=created, headers=user.headers).status_code == 201)


async def _writable(url: str, name: str) -> None:
    connection = await asyncpg.connect(
        url, server_settings={"default_transaction_read_only": "off"}
    )
    await connection.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    await connection.close()


def test_keys_are_in_no_document(client: httpx.Client) -> None:
    document = client.get("/openapi.json")
    assert not KEY.search(document.text)
    assert "secret_hash" not in document.text
    operations = document.json()["paths"]["/users/{id}/keys"]
    assert set(operations) == {"get", "post"}
