"""Who may do what: every route with every kind of caller, on one server with SERVICE_AUTH=on.

The statuses are in authorization.txt. They were written from the contract, not from responses.
"""

import json
import re
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from callers import (
    CALLERS,
    GOLDEN,
    NO_NAMES,
    NONE,
    ROWS,
    WRITES,
    Asked,
    World,
    client_of,
    routes,
)
from conftest import SERVER, Service

from service.admin import catalogue
from service.admin.explain import changes
from service.asgi import app
from service.embedded.data_directory import Stores
from service.items import items
from service.keys.structs import NewKey
from service.users import users

READS = [one for one in ROWS if one.method not in WRITES]
CHANGES = [one for one in ROWS if one.method in WRITES]


@pytest.fixture(scope="module")
def world(own_database_url: str) -> Iterator[World]:
    made = World(own_database_url)
    yield made
    made.close()


@pytest.fixture(scope="module")
def running(
    world: World, own_database_url: str, stores: Stores, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """The server; it logs every request and statement as slow."""
    place = tmp_path_factory.mktemp("authorization")
    one = Service(
        place / "log",
        "--server",
        SERVER,
        DATABASE_URL=own_database_url,
        REDIS_URL=stores.redis_url or "off",
        SERVICE_AUTH="on",
        SERVICE_DATA=str(place / "data"),
        SERVICE_JOBS="off",
        SERVICE_LOG="json",
        SERVICE_SLOW_REQUEST_MS="1",
        SERVICE_SLOW_QUERY_MS="1",
    )
    try:
        one.wait_until_ready()
        yield one
        assert one.stop() == 0
        log = one.log.read_text()
        for mark in world.marks:
            assert mark not in log, f"the log has {mark!r}"
    finally:
        one.process.kill()
        one.process.wait()


places = iter(range(1, 10_000))


@pytest.fixture
def client(running: Service) -> Iterator[httpx.Client]:
    with client_of(running, next(places)) as one:
        yield one


def route_of(asked: Asked) -> str | None:
    """Return the path in the route table."""
    table = routes()
    if asked.path in table:
        return asked.path
    parts = asked.path.split("/")
    for path in table:
        named = path.split("/")
        if len(named) == len(parts) and all(
            name == part
            or (name[0] == "{" and (part[0] == "<" or part.isdigit()))
            or (name == "{statement}" and "." in part)
            for name, part in zip(named[1:], parts[1:], strict=True)
        ):
            return path
    return None


def test_each_route_has_a_row() -> None:
    named = {(one.method, route_of(one)) for one in ROWS}
    for path, methods in routes().items():
        for method in methods - {"HEAD", "OPTIONS"}:
            assert (method, path) in named, (
                f"{method} {path} has no row in {GOLDEN.name}: think about who may do it, and"
                " write a row for each kind of request that others get another answer to"
            )


@pytest.mark.parametrize("asked", ROWS, ids=lambda one: one.name)
def test_each_row_has_a_route(asked: Asked) -> None:
    path = route_of(asked)
    assert path is not None, f"{asked.name}: no such path; remove the row from {GOLDEN.name}"
    methods = routes()[path]
    assert asked.method in methods, f"{asked.name}: only {methods}; remove it from {GOLDEN.name}"


@pytest.mark.parametrize("asked", READS, ids=lambda one: one.name)
def test_a_read_is_for_whom_the_file_says(world: World, client: httpx.Client, asked: Asked) -> None:
    """The second time it may come from the cache, where responses of others are too."""
    for other_header in (False, True):
        answers = {
            name: world.ask(client, asked, name, other_header=other_header)
            for name in reversed(CALLERS)
        }
        assert {name: str(answers[name].status_code) for name in CALLERS} == asked.cells
    for name in CALLERS:
        check_refusal(answers[name], name)
        head = world.ask(client, asked._replace(method="HEAD"), name)
        assert (head.status_code, head.content) == (answers[name].status_code, b"")
        options = world.ask(client, asked._replace(method="OPTIONS"), name)
        assert options.status_code == 405
        assert "GET" in options.headers["allow"]
    assert world.checksum() == world.state


@pytest.mark.parametrize("asked", CHANGES, ids=lambda one: one.name)
def test_a_write_is_for_whom_the_file_says(
    world: World, client: httpx.Client, asked: Asked
) -> None:
    found = {name: written(world, client, asked, name) for name in CALLERS}
    assert found == asked.cells
    assert world.ask(client, asked._replace(method="OPTIONS"), "admin").status_code == 405


def wait_for_the_admin(world: World, client: httpx.Client) -> None:
    """Wait until the server knows the restored role; it may use what it knew for a second."""
    headers = {"Authorization": f"Bearer {world.callers['admin'].key}"}
    deadline = time.monotonic() + 5
    while client.get("/jobs", headers=headers).status_code != 200:
        assert time.monotonic() < deadline, "the admin's key has no rights again"
        time.sleep(0.02)


def written(world: World, client: httpx.Client, asked: Asked, name: str) -> str:
    """Send a write as one of the callers; return the cell of the file, and undo the write."""
    answer = world.ask(client, asked, name)
    check_refusal(answer, name)
    changed = world.checksum() != world.state
    if changed:
        world.restore()
        wait_for_the_admin(world, client)
    if answer.is_success and not changed:
        return f"{answer.status_code}="
    if changed and not answer.is_success:
        return f"{answer.status_code} and changed something"
    return str(answer.status_code)


def test_a_replacement_without_a_role_keeps_it(world: World, client: httpx.Client) -> None:
    """The default would make this admin a user; an admin's key replaces the role too."""
    body = '{"email": "new@example.com", "username": "new"}'
    try:
        for name, role in (("plain", "admin"), ("admin", "user")):
            answer = world.ask(client, Asked({}, "PUT", "/users/<self>", body), name)
            assert answer.json()["role"] == role
            found = world.sql("SELECT role FROM users WHERE id = $1", world.callers[name].user_id)
            assert found[0]["role"] == role
            world.restore()
    finally:
        world.restore()


def check_refusal(answer: httpx.Response, name: str) -> None:
    """Check what a 401 and a 403 say."""
    challenge = answer.headers.get("www-authenticate")
    if answer.status_code == 401:
        assert challenge == ("Bearer" if name == "none" else 'Bearer error="invalid_token"')
        assert (name == "none") == ("not valid" not in answer.json()["detail"])
    elif answer.status_code == 403 and "errors" not in answer.json():
        assert challenge is not None
        assert "insufficient_scope" in challenge
    else:
        assert challenge is None


def test_only_what_exists_needs_a_key(world: World, client: httpx.Client) -> None:
    """Paths and methods are in the document, which is open."""
    for name in CALLERS:
        for method, path, status in (
            ("GET", "/nothing", 404),
            ("DELETE", "/items", 405),
            ("PURGE", "/items/<item>", 405),
            ("POST", "/openapi.json", 405),
        ):
            answer = world.ask(client, Asked({}, method, path, ""), name)
            assert answer.status_code == status, (name, method, path)


# Mass assignment: what a client may not set, with values that are found again.
OTHER_USER = "the id of the user of `other`"
WRONG: dict[str, Any] = {
    "id": NONE,
    "version": 777,
    "created_at": "2001-01-01T00:00:00Z",
    "updated_at": "2001-01-01T00:00:00Z",
    "expires_at": "2001-01-01T00:00:00Z",
    "last_used_at": "2001-01-01T00:00:00Z",
    "role": "admin",
    "user_id": OTHER_USER,
    "owner_id": OTHER_USER,
    "secret_hash": "AA" * 32,
    "prefix": "svc_live_AAAAAAAA",
    "key": "svc_live_AAAAAAAA_" + "A" * 38,
    "scopes": ["read", "write", "admin"],
}
USED = "last_used_at"  # which is written in the background
COLUMNS = {column.name for one in app.tables for column in one.c}
# Fields of the bodies: with these a request is refused, or changes what it may change. The rows of
# the file have them.
FIELDS = {
    "/items": {*items.new.__struct_fields__},
    "/users": {*users.new.__struct_fields__},
    "/users/{id}/items": {*items.new.__struct_fields__} - {"owner_id"},
    "/users/{id}/keys": {*NewKey.__struct_fields__},
    "/users/{id}/notifications": {"up_to"},
}


def fields_of(path: str) -> set[str]:
    """Return the fields of a body, by the longest path before."""
    return FIELDS[max((one for one in FIELDS if path.startswith(one)), key=len)]


def assigned(body: Any, wrong: dict[str, Any]) -> Any:
    """Return a body in which each object has further members."""
    if isinstance(body, list):
        return [assigned(one, wrong) for one in body]
    if isinstance(body, dict):
        return {**wrong, **{name: assigned(one, wrong) for name, one in body.items()}}
    return body


def own_success(asked: Asked) -> bool:
    return bool(asked.body) and asked.cells["own"] in {"200", "201"}


@pytest.mark.parametrize(
    "asked", [one for one in CHANGES if own_success(one)], ids=lambda one: one.name
)
def test_a_body_sets_no_column_that_is_not_its_field(
    world: World, client: httpx.Client, asked: Asked
) -> None:
    path = route_of(asked)
    assert path is not None
    other = world.people["other"].user_id
    wrong = {
        name: other if value == OTHER_USER else value
        for name, value in {**dict.fromkeys(COLUMNS, "wrong"), **WRONG}.items()
        if name not in fields_of(path)
    }
    sent = world.fill(asked.body, world.callers["own"]).split("\\n")
    body = "\\n".join(json.dumps(assigned(json.loads(line), wrong)) for line in sent)
    check_assignment(world, client, asked._replace(body=body), asked.cells["own"])


def test_a_csv_sets_no_column_that_is_not_a_field(world: World, client: httpx.Client) -> None:
    wrong = {name: WRONG.get(name, "wrong") for name in sorted(COLUMNS - fields_of("/items"))}
    values = [str(world.people["other"].user_id if v == OTHER_USER else v) for v in wrong.values()]
    lines = [["sku", "name", *wrong], ["<sku>", "New", *values], ["", "Newer", *values]]
    text = "\\n".join(",".join(f'"{one.replace(chr(34), "")}"' for one in line) for line in lines)
    asked = Asked({}, "POST", "/items/import", text)
    check_assignment(world, client, asked, "200", {"Content-Type": "text/csv"})


def check_assignment(
    world: World,
    client: httpx.Client,
    asked: Asked,
    status: str,
    headers: Mapping[str, str] = NO_NAMES,
) -> None:
    """Send a write as `own`, and look at every row of the database."""
    own = world.people["own"].user_id
    before = world.rows()
    answer = world.ask(client, asked, "own", headers=headers)
    after = world.rows()
    try:
        assert str(answer.status_code) == status, answer.text
        changed = new = 0
        for table, rows in after.items():
            for row in (before[table][one] for one in before[table].keys() - rows.keys()):
                changed += 1
                assert owner_of(table, row) == own
            for row_id, row in rows.items():
                old = before[table].get(row_id)
                if old is not None and {**old, USED: 0} == {**row, USED: 0}:
                    continue
                assert owner_of(table, row) == own, f"{table}: a row of another user: {row}"
                if old is None:
                    new += 1
                    check_new(row)
                else:
                    changed += 1
                    check_changed(old, row)
        assert changed + new > 0
    finally:
        world.restore()
    assert str(NONE) not in answer.text
    assert "2001-01-01" not in answer.text


def owner_of(table: str, row: dict[str, Any]) -> Any:
    return row[{"users": "id", "items": "owner_id"}.get(table, "user_id")]


def check_new(row: dict[str, Any]) -> None:
    created = datetime.fromisoformat(row["created_at"])
    assert abs(created - datetime.now(UTC)) < timedelta(minutes=5)
    assert row["id"] < NONE
    assert row.get("version", 1) == 1
    assert row.get("updated_at") is None
    assert row.get("last_used_at") is None
    for name in ("secret_hash", "prefix"):
        assert "AAAAAAAA" not in row.get(name, "").upper().replace("\\X", "")
    assert "admin" not in row.get("scopes", ())


def check_changed(old: dict[str, Any], row: dict[str, Any]) -> None:
    for name in ("id", "created_at", "owner_id", "role", "user_id", "secret_hash", "prefix"):
        assert row.get(name) == old.get(name), name
    if "version" in row:
        assert row["version"] == old["version"] + 1
        assert row["updated_at"] > "2026"


# What is not yours is not there.
def shown(answer: httpx.Response) -> tuple[Any, ...]:
    """All of a response, except for times.

    Granian closes some connections whose body it has not read yet.
    """
    headers = {**answer.headers, "date": "", "x-process-time": "", "connection": ""}
    statements = re.findall(r'desc="(\d+) ', headers.pop("server-timing"))
    return answer.status_code, headers, statements, answer.content


SAME_ID = {"X-Request-ID": "same"}
CONDITIONS: tuple[dict[str, str], ...] = (
    {},
    {"If-None-Match": '"1"'},
    {"If-None-Match": "*"},
    {"If-Match": '"1"'},
    {"If-Match": "*"},
    {"Cache-Control": "no-cache"},
)
PRIVATE = [one for one in ROWS if "<" in one.path and one.cells["other"] == "404"]


@pytest.mark.parametrize("asked", PRIVATE, ids=lambda one: one.name)
def test_what_is_not_yours_is_answered_as_what_is_not_there(
    world: World, client: httpx.Client, asked: Asked
) -> None:
    """Byte by byte, with the same number of statements, and with any condition."""
    missing = {name: str(NONE) for name in ("<item>", "<free>", "<user>")}
    reads = asked.method == "GET"
    for condition in CONDITIONS if asked.method != "POST" else CONDITIONS[:1]:
        # A look-up of the key is a statement too, of any request after 0.9 s: ask again then.
        for _ in range(5):
            pair = []
            for names in (NO_NAMES, missing):
                answers = [
                    world.ask(client, asked, "other", headers={**SAME_ID, **condition}, names=names)
                    for _ in range(1 + reads)  # the second response may come from the cache
                ]
                pair.append([shown(one) for one in answers])
                gone = 412 if condition.get("If-Match") == "*" and not reads else 404
                assert {one.status_code for one in answers} <= {gone, 404}
            if pair[0] == pair[1]:
                break
        assert pair[0] == pair[1], condition
    assert world.checksum() == world.state


def test_a_bulk_write_tells_rows_of_others_from_missing_ones_by_nothing(
    world: World, client: httpx.Client
) -> None:
    bulk = [one for one in CHANGES if one.cells["other"] == "200=" and "ids" in one.body]
    assert len(bulk) >= 3
    for asked in bulk:
        texts = [
            world.ask(client, asked, "other", names={"<item>": one}).text.replace(one, "ID")
            for one in (world.names["<item>"], str(NONE))
        ]
        assert texts[0] == texts[1]
        assert '"missing":[ID' in texts[0]
    assert world.checksum() == world.state


def test_a_list_of_users_has_only_the_own_one(world: World, client: httpx.Client) -> None:
    """Also with filters, in totals, in included rows, and after others have filled the cache."""
    user = world.callers["other"].user_id
    for query in (
        "",
        "?q=mail",
        "?role=user&q=name-of&total=estimated",
        "?sort=-username&total=exact",
        "?include=items",
        "?cursor=&total=exact",
        "?per_page=1",
    ):
        asked = Asked({}, "GET", f"/users{query}", "")
        everyone = world.ask(client, asked, "admin").json()
        assert len(everyone["items"]) > 1 or query == "?per_page=1"
        for name in ("other", "demo", "own"):
            found = world.ask(client, asked, name).json()
            user = world.callers[name].user_id
            assert [one["id"] for one in found["items"]] == [user], query
            assert found.get("total") == 1, query
            assert found.get("pages", 1) == 1
            assert found["next_cursor"] is None
    for query in ("?q=mail-of-own", "?role=admin", "?is_active=false"):
        found = world.ask(client, Asked({}, "GET", f"/users{query}", ""), "other").json()
        assert (found["items"], found["total"]) == ([], 0)


def test_an_owner_is_shown_only_to_itself(world: World, client: httpx.Client) -> None:
    for query in ("include=owner", "include=owner&cursor=&q=Lamp", "%69nclude=owner"):
        asked = Asked({}, "GET", f"/items?{query}", "")
        for name in ("admin", "other", "plain", "own", "admin", "other"):
            caller = world.callers[name]
            for item in world.ask(client, asked, name).json()["items"]:
                seen = item["owner_id"] is not None and (
                    caller.admin or item["owner_id"] == caller.user_id
                )
                assert (item["owner"] is not None) == seen


def test_a_cursor_of_another_user_is_refused(world: World, client: httpx.Client) -> None:
    for path, makers in (
        ("/users?per_page=1", ("admin",)),
        ("/users/<user>/keys?per_page=1", ("own", "admin")),
    ):
        for maker in makers:
            begun = world.ask(client, Asked({}, "GET", f"{path}&cursor=", ""), maker).json()
            cursor = begun["next_cursor"]
            assert cursor
            asked = Asked({}, "GET", f"{path}&cursor={cursor}", "")
            assert world.ask(client, asked, maker).status_code == 200
            for name in ("other", "demo", "plain"):
                status = 404 if "<user>" in path else 422
                assert world.ask(client, asked, name).status_code == status
                own = asked._replace(target=asked.target.replace("<user>", "<self>"))
                assert world.ask(client, own, name).status_code == 422


def test_no_spelling_of_a_path_shows_another_user(world: World, client: httpx.Client) -> None:
    user = world.names["<user>"]
    for row_id in (
        f"0{user}",
        f"+{user}",
        f"{user}.0",
        f"{user}e0",
        f"%3{user}",
        f"{user}%00",
        " 1",
    ):
        for rest in ("", "/", "/items", "/keys", "/keys/", "?include=items,keys"):
            for before in ("/users/", "//users/", "/users//", "/USERS/", "/items/../users/"):
                asked = Asked({}, "GET", f"{before}{row_id}{rest}", "")
                answer = world.ask(client, asked, "other", headers={"X-HTTP-Method": "PUT"})
                assert answer.status_code in {400, 404, 422}, asked.target


def test_an_export_has_what_the_list_has(world: World, client: httpx.Client) -> None:
    """Items are read by everyone, so all are in it; nothing of their owners is."""
    for target in ("/items/export?trailer=true", "/items/export?format=csv"):
        texts = {
            world.ask(client, Asked({}, "GET", target, ""), name).text
            for name in ("other", "own", "admin")
        }
        assert len(texts) == 1
        assert "owner_id" in texts.pop()


@pytest.mark.parametrize(
    "asked",
    [one for one in CHANGES if one.method == "POST" and own_success(one)],
    ids=lambda one: one.name,
)
def test_an_idempotency_key_is_of_one_user(
    world: World, client: httpx.Client, asked: Asked
) -> None:
    """The answer to another user, or to a key without the scope, is the one without the header."""
    sent = {"Idempotency-Key": "of-own"}
    try:
        first = world.ask(client, asked, "own", headers=sent)
        stored = world.sql("SELECT body FROM idempotency_keys")
        assert len(stored) == 1
        if asked.path.endswith("/keys"):
            assert stored[0]["body"] is None
        again = world.ask(client, asked, "own", headers=sent)
        if asked.path.endswith("/keys"):  # the key is shown once
            assert again.status_code == 409
            assert "svc_live" not in again.text
        else:
            assert again.headers["idempotency-replayed"] == "true"
            assert again.content == first.content
        for name in ("none", "exp", "read", "other", "admin"):
            answer = world.ask(client, asked, name, headers=sent)
            assert "idempotency-replayed" not in answer.headers
            assert answer.status_code in {201, int(asked.cells[name].rstrip("="))}
    finally:
        world.restore()


# Plans.
# A statement that these arguments make refuse is no proof: each must have run.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "users.remove": {"id": NONE},
    "keys.issue": {
        "name": "explained",
        "scopes": ["read"],
        "secret_hash": "A" * 43 + "=",
        "user_id": 1,
        "prefix": "explained",
        "expires_at": None,
    },
}


@pytest.mark.parametrize("step", (5, pytest.param(1, marks=pytest.mark.slow)))
def test_no_statement_is_run_for_good_to_explain_it(
    world: World, client: httpx.Client, step: int
) -> None:
    """Each that writes or locks is analyzed by an admin: it runs, and leaves no trace."""
    headers = {"Authorization": f"Bearer {world.callers['admin'].key}"}
    ran, refused = 0, []
    found = [one for one in catalogue.statements(app.sources) if changes(one)]
    for statement in found[::step]:
        given = next((ARGUMENTS[one] for one in ARGUMENTS if statement.name.startswith(one)), {})
        given = {name: value for name, value in given.items() if name in statement.names}
        query = {"analyze": "true", "format": "json", "arguments": json.dumps(given)}
        path = f"/admin/explain/{quote(statement.name, safe='')}"
        answer = client.get(path, params=query, headers=headers)
        if answer.status_code != 200:
            refused.append((statement.name, answer.json()["detail"]))
            continue
        assert "Actual Rows" in answer.json()["plan"]["Plan"], statement.name
        assert "rolled back" in answer.json()["notes"][0]
        ran += 1
        if ran % 10 == 0:
            assert world.checksum() == world.state, f"{statement.name}, or one of 9 before it"
    assert world.checksum() == world.state
    assert refused == []
    assert ran == len(found[::step]) > 10
    answer = client.get("/admin/explain/users.remove?analyze=true", headers=headers)
    assert "still refer to it" in answer.json()["detail"], "the first user has a key"


# Secrets.
def test_no_response_and_no_log_line_has_a_secret(
    world: World, running: Service, client: httpx.Client
) -> None:
    """Wherever a client puts one. `running` looks for all of them in the log at the end."""
    key = world.callers["own"].key
    for headers in ({"Authorization": f"Basic {key}"}, {"Cookie": f"key={key}"}, {"If-Match": key}):
        for method, target, body in (
            ("GET", f"/items?cursor={key}", ""),
            ("GET", f"/items?sort={key}", ""),
            ("PATCH", "/items/<item>", f'{{"name": {{"a": "{key}"}}}}'),
            ("PATCH", "/items/<item>", f'{{"name": "{key}"'),
            ("PATCH", "/users/<user>", f'{{"role": "{key}"}}'),
            ("PATCH", "/users/<user>", f'{{"email": "{key}"}}'),
            ("POST", "/users/<user>/keys", f'{{"name": "a", "scopes": ["{key}"]}}'),
            ("POST", "/items/import", f'{{"name": "a", "price": "{key}"}}'),
        ):
            for name in ("own", "none"):
                asked = Asked({}, method, target, body)
                answer = world.ask(client, asked, name, headers=headers, other_header=True)
                assert answer.status_code < 500
    unknown = world.callers["unkn"].key  # the log has the path of a slow request
    for path in (f"/items/{unknown}", f"/{unknown}", f"/items/export/{unknown}"):
        assert unknown not in client.get(path, headers={"X-API-Key": key}).text
    client.get("/items", params={"q": key}, headers={"X-API-Key": key})  # its links repeat it
    assert world.checksum() == world.state
    assert key not in running.log.read_text()


def test_the_document_has_no_secret_and_no_user(world: World, client: httpx.Client) -> None:
    text = client.get("/openapi.json").text
    assert "secret_hash" not in text
    for mark in world.marks:
        assert mark not in text


def test_an_error_of_the_database_shows_no_row(
    world: World, running: Service, client: httpx.Client
) -> None:
    """PostgreSQL says which row it refuses; that is neither in the response nor in the log."""
    world.sql("ALTER TABLE items ADD CONSTRAINT refusing CHECK (name <> 'Secret 0') NOT VALID")
    world.sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " RAISE EXCEPTION 'refused' USING DETAIL = NEW::text,"
        " ERRCODE = CASE NEW.name WHEN 'Secret 1' THEN 'P0001' ELSE '21000' END; END $$"
    )
    world.sql(
        "CREATE TRIGGER refusing BEFORE INSERT OR UPDATE ON items FOR EACH ROW"
        " WHEN (NEW.name IN ('Secret 1', 'Secret 2')) EXECUTE FUNCTION refuse()"
    )
    writes = [one for one in CHANGES if one.path.startswith("/items") and own_success(one)]
    try:
        for secret, status in (("Secret 0", 422), ("Secret 1", 422), ("Secret 2", 500)):
            for asked in (one for one in writes if "New" in one.body):
                body = asked.body.replace("New", secret)
                answer = world.ask(client, asked._replace(body=body), "own")
                assert answer.status_code == status or "skip" in asked.target
                assert "Secret" not in answer.text
                assert not answer.is_error or answer.json()["detail"][0].isalpha()
        assert "Secret" not in running.log.read_text()
    finally:
        world.sql("ALTER TABLE items DROP CONSTRAINT refusing")
        world.sql("DROP FUNCTION refuse CASCADE")
        world.restore()
