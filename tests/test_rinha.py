"""The example of the Rinha de Backend: its published rules, and that a 201 survives kill -9."""

import asyncio
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from conftest import ROOT, Service, query
from test_application import NotesPlace

from bench.processes import tree
from bench.rinhaload import CREATE, NO_TERM, RAMP, READ, SEARCH, Load, arrivals, phases

EXAMPLE = ROOT / "examples" / "rinha"
ANA = {"apelido": "ana", "nome": "Ana Barbosa", "nascimento": "1985-09-23", "stack": None}
JOSE = {
    "apelido": "josé",
    "nome": "José Roberto",
    "nascimento": "2000-10-01",
    "stack": ["C#", "Node", "Oracle"],
}
UNKNOWN = "f7379ae8-8f9b-4cd5-8221-51efe19e721b"


class OfRinha(Service):
    folder = EXAMPLE


@contextmanager
def serving(place: Path) -> Iterator[OfRinha]:
    """Run the example with an embedded PostgreSQL in this folder."""
    one = OfRinha(
        place / "log",
        "--app",
        "rinha:app",
        DATABASE_URL="",
        REDIS_URL="off",
        SERVICE_DATA=str(place / "data"),
        SERVICE_STATEMENT_TIMEOUT_MS="60000",
        PYTHONPATH=str(ROOT),
    )
    try:
        one.wait_until_ready()
        yield one
    finally:
        one.process.kill()
        one.process.wait()


def database(place: Path) -> str:
    sockets = (place / "data" / "postgres" / "postmaster.pid").read_text().split("\n")[4]
    return f"postgresql:///service?host={sockets}&user=service"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rinha")


@pytest.fixture(scope="module")
def served(place: Path) -> Iterator[OfRinha]:
    with serving(place) as one:
        yield one
        assert one.stop() == 0
        assert "Traceback" not in one.log.read_text()


@pytest.fixture
def client(served: OfRinha, place: Path) -> Iterator[httpx.Client]:
    query(database(place), "DELETE FROM people")
    with httpx.Client(base_url=served.url, timeout=30) as one:
        yield one


def create(client: httpx.Client, **changed: Any) -> httpx.Response:
    return client.post("/pessoas", json={**ANA, **changed})


@pytest.mark.parametrize(
    "person", (ANA, JOSE, {**ANA, "stack": []}, {**ANA, "stack": [""]}, {**ANA, "nome": "n" * 100})
)
def test_a_created_person_is_read_at_its_location(
    client: httpx.Client, person: dict[str, Any]
) -> None:
    created = client.post("/pessoas", json=person)
    assert created.status_code == 201, created.text
    location = created.headers["location"]
    name = location.removeprefix("/pessoas/")
    assert UUID(name).version == 8
    read = client.get(location)
    assert read.status_code == 200
    assert read.json() == created.json() == {"id": name, **person}


def test_the_stack_may_be_absent(client: httpx.Client) -> None:
    person = {name: value for name, value in ANA.items() if name != "stack"}
    assert client.post("/pessoas", json=person).json()["stack"] is None


@pytest.mark.parametrize(
    ("changed", "status"),
    (
        ({"apelido": None}, 422),
        ({"nome": None}, 422),
        ({"nascimento": None}, 422),
        ({"apelido": "a" * 33}, 422),
        ({"nome": "n" * 101}, 422),
        ({"nascimento": "23-09-1985"}, 422),
        ({"nascimento": "2001-02-29"}, 422),
        ({"nascimento": "2001-13-01"}, 422),
        ({"stack": ["s" * 33]}, 422),
        ({"stack": ["one\x1ftwo"]}, 422),
        ({"apelido": 1}, 400),
        ({"nome": 1}, 400),
        ({"nascimento": 10}, 400),
        ({"stack": "Node"}, 400),
        ({"stack": 1}, 400),
        ({"stack": [1, "PHP"]}, 400),
        ({"stack": [None]}, 400),
        ({"stack": ["a\0"]}, 400),
        ({"stack": ["s"] * 1001}, 400),
    ),
    ids=str,
)
def test_an_invalid_person_is_not_created(
    client: httpx.Client, changed: dict[str, Any], status: int
) -> None:
    refused = create(client, **changed)
    assert refused.status_code == status, refused.text
    assert refused.headers["content-type"] == "application/problem+json"
    assert next(iter(changed)) in refused.json()["detail"]
    assert client.get("/contagem-pessoas").text == "0"


@pytest.mark.parametrize("body", (b"", b"{", b"[]", b"1", b'"apelido"'))
def test_a_body_that_is_no_object_is_400(client: httpx.Client, body: bytes) -> None:
    refused = client.post("/pessoas", content=body, headers={"Content-Type": "application/json"})
    assert refused.status_code == 400


@pytest.mark.parametrize("name", ("apelido", "nome", "nascimento"))
def test_a_required_field_may_not_be_absent(client: httpx.Client, name: str) -> None:
    person = {other: value for other, value in ANA.items() if other != name}
    assert client.post("/pessoas", json=person).status_code == 422


def test_a_nickname_is_unique(client: httpx.Client) -> None:
    assert create(client).status_code == 201
    refused = create(client, nome="Another Ana")
    assert refused.status_code == 422
    assert refused.json()["errors"] == [{"field": "apelido", "message": "already taken"}]
    assert client.get("/contagem-pessoas").text == "1"


@pytest.mark.parametrize(
    "name",
    (
        *(UNKNOWN, "00000000-0000-8000-8000-000000000000", "00000000-0000-8000-8fff-ffffffffffff"),
        *("00000000-0000-8000-8000-00000fffffff", "1", "ana", "nil"),
    ),
)
def test_an_unknown_person_is_404(client: httpx.Client, name: str) -> None:
    assert client.get(f"/pessoas/{name}").status_code == 404


@pytest.mark.parametrize(
    ("term", "found"),
    (
        ("node", {"ana", "josé"}),
        ("berto", {"josé"}),
        ("BARBOSA", {"ana"}),
        ("JOSÉ", {"josé"}),
        ("o", {"ana", "josé"}),
        ("c#", {"josé"}),
        ("Python", set()),
        ("node\x1foracle", set()),
        ("barbosanode", set()),
        ("%", set()),
        ("n_de", set()),
        ("\\", set()),
        ('"', set()),
        ("", {"ana", "josé"}),
    ),
)
def test_a_search_finds_a_part_of_any_value(
    client: httpx.Client, term: str, found: set[str]
) -> None:
    client.post("/pessoas", json=JOSE)
    create(client, stack=["Node", "Postgres"])
    answer = client.get("/pessoas", params={"t": term})
    assert answer.status_code == 200
    assert {one["apelido"] for one in answer.json()} == found
    for one in answer.json():
        assert client.get(f"/pessoas/{one['id']}").json() == one


def test_a_search_returns_at_most_50_people(client: httpx.Client, place: Path) -> None:
    query(
        database(place),
        "INSERT INTO people (apelido, nome, nascimento)"
        " SELECT 'person ' || n, 'Same', '2000-01-01' FROM generate_series(1, 60) n",
    )
    assert len(client.get("/pessoas", params={"t": "same"}).json()) == 50
    assert client.get("/contagem-pessoas").text == "60"


def test_a_search_without_a_term_is_400(client: httpx.Client) -> None:
    refused = client.get("/pessoas")
    assert refused.status_code == 400
    assert "?t=" in refused.json()["detail"]


def test_the_count_is_plain_text(client: httpx.Client) -> None:
    counted = client.get("/contagem-pessoas")
    assert (counted.text, counted.headers["content-type"]) == ("0", "text/plain; charset=utf-8")


def test_white_space_around_every_string_is_removed(client: httpx.Client) -> None:
    """Also around those of a list, whether or not another string has some."""
    for nickname in ("ana", " beatriz "):
        created = create(client, apelido=nickname, stack=[" C# ", "Node"]).json()
        assert (created["apelido"], created["stack"]) == (nickname.strip(), ["C#", "Node"])


def test_a_search_uses_the_trigram_index(client: httpx.Client, place: Path) -> None:
    assert client.get("/contagem-pessoas").text == "0"
    if not query(database(place), "SELECT FROM pg_available_extensions WHERE name = 'pg_trgm'"):
        pytest.skip("this PostgreSQL has no pg_trgm")
    # A small table is read as a whole unless the planner may not.
    plan = query(
        database(place) + "&options=-cenable_seqscan%3Doff",
        "EXPLAIN SELECT FROM people WHERE lower(searched) LIKE '%node%'",
    )
    assert any("people_search_idx" in line[0] for line in plan), plan


def test_the_load_has_the_published_rates() -> None:
    all_ = {kind: list(arrivals(phases(kind, 1, RAMP))) for kind in (CREATE, SEARCH, NO_TERM)}
    assert {kind: len(due) for kind, due in all_.items()} == {
        CREATE: 54_635,
        SEARCH: 9_590,
        NO_TERM: 4_190,
    }
    for kind, last in ((CREATE, 600), (SEARCH, 100), (NO_TERM, 40)):
        assert all_[kind] == sorted(all_[kind])
        assert abs(sum(second > 204 for second in all_[kind]) - last) < 4


def test_the_example_answers_the_load_as_the_rules_say(
    client: httpx.Client, served: OfRinha
) -> None:
    load = Load(served.port, rate=0.3, ramp=2)
    asyncio.run(load.run(print))
    assert not load.unexpected, load.statuses
    assert not load.wrong
    created = load.statuses[CREATE][201]
    assert created == load.statuses[READ][200] > 100
    assert int(client.get("/contagem-pessoas").text) == created


def test_the_migration_is_what_the_command_writes(tmp_path: Path, new_database: Any) -> None:
    one = NotesPlace(tmp_path, new_database())
    shutil.copy(EXAMPLE / "rinha.py", tmp_path)
    written = one.run("migrate", "new", "people", "--app", "rinha:app")
    assert written.returncode == 0, written.stderr
    (committed,) = (EXAMPLE / "migrations").glob("*.py")
    assert (tmp_path / "migrations" / committed.name).read_text() == committed.read_text()


def _create_until_killed(
    url: str, writer: int, created: list[str], enough: threading.Event
) -> None:
    with httpx.Client(base_url=url, timeout=30) as client, suppress(httpx.TransportError):
        for turn in range(10_000):
            answer = create(client, apelido=f"{writer} {turn}")
            if answer.status_code == 201:
                created.append(answer.headers["location"])
            elif answer.status_code >= 500:
                return
            if len(created) >= 200:
                enough.set()


def test_every_person_with_a_201_is_there_after_kill_9(tmp_path: Path) -> None:
    """The server and all processes of PostgreSQL are killed while eight clients create people."""
    created: list[str] = []
    enough = threading.Event()
    with serving(tmp_path) as one:
        url = database(tmp_path)
        settings = {
            name: query(url, f"SHOW {name}")[0][0] for name in ("fsync", "synchronous_commit")
        }
        assert settings == {"fsync": "on", "synchronous_commit": "on"}
        arguments = [(one.url, writer, created, enough) for writer in range(8)]
        writers = [threading.Thread(target=_create_until_killed, args=each) for each in arguments]
        for writer in writers:
            writer.start()
        assert enough.wait(60)
        for pid in tree(one.process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for writer in writers:
            writer.join()
    with serving(tmp_path) as again, httpx.Client(base_url=again.url, timeout=30) as client:
        missing = [one for one in created if client.get(one).status_code != 200]
        assert not missing
        assert int(client.get("/contagem-pessoas").text) >= len(created)
