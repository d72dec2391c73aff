"""An application of one's own: create_app, `--app`, migrations and settings; examples/notes."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar

import httpx
import pytest
from conftest import ROOT, Service
from msgspec import Meta, Struct
from starlette.requests import Request as StarletteRequest
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from service.app import create_app
from service.app_state import cache_of
from service.cache.fingerprint import fingerprint
from service.cache.off import NoCache
from service.cache.store import Cache
from service.db.database import Database
from service.db.schema import with_internal
from service.items import items
from service.resource import Resource
from service.server.loading import ApplicationError, load
from service.settings import Secret, Settings, SettingsError
from service.users import users
from service.web.codec import Reply
from service.web.endpoint import Operation
from service.web.request import Request

EXAMPLE = ROOT / "examples" / "notes"
NO_FILE = Path(os.devnull)
URL = "postgresql://app@127.0.0.1:1/app"


class NotesPlace:
    """A folder with the example's module, and an empty database."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        shutil.copy(EXAMPLE / "notes.py", folder)

    def run(self, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("SERVICE_")}
        environ = {"DATABASE_URL": self.url, "PYTHONPATH": str(ROOT), **environ}
        return subprocess.run(
            [sys.executable, "-m", "service.__main__", *words],
            cwd=self.folder,
            env={**kept, **environ},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, new_database: Callable[[], str]) -> NotesPlace:
    """A fresh folder, with the first migration written and applied."""
    notes = NotesPlace(tmp_path_factory.mktemp("notes"), new_database())
    written = notes.run("migrate", "new", "users and notes", "--app", "notes:app")
    assert written.returncode == 0, written.stderr
    assert f"{notes.folder}/migrations/0001_users_and_notes.py" in written.stdout
    migrated = notes.run("migrate", SERVICE_APP="notes:app")
    assert "revision 0001, newest 0001\n" in migrated.stdout, migrated.stderr
    return notes


def test_the_example_is_short() -> None:
    assert len((EXAMPLE / "notes.py").read_text().splitlines()) <= 40


def test_the_migration_of_the_example_is_what_the_command_writes(place: NotesPlace) -> None:
    (committed,) = (EXAMPLE / "migrations").glob("*.py")
    assert (place.folder / "migrations" / committed.name).read_text() == committed.read_text()


def test_the_first_migration_makes_all_tables_and_the_next_has_nothing_to_do(
    place: NotesPlace,
) -> None:
    checked = place.run("migrate", "check", "--app", "notes:app")
    assert (checked.returncode, checked.stderr) == (0, "")
    again = place.run("migrate", "new", "more", "--app", "notes:app")
    assert again.returncode == 1
    assert "nothing to write" in again.stderr


def test_the_first_migration_wants_an_empty_database(place: NotesPlace, tmp_path: Path) -> None:
    other = NotesPlace(tmp_path, place.url)
    told = other.run("migrate", "new", "first", "--app", "notes:app")
    assert told.returncode == 1
    assert "the database is at revision 0001, and" in told.stderr
    assert not (tmp_path / "migrations").exists()


def test_a_field_is_one_line_and_one_migration(
    tmp_path: Path, new_database: Callable[[], str]
) -> None:
    notes = NotesPlace(tmp_path, new_database())
    shutil.copytree(EXAMPLE / "migrations", tmp_path / "migrations")
    assert notes.run("migrate", "--app", "notes:app").returncode == 0
    module = tmp_path / "notes.py"
    field = "    pinned: bool = False\n"
    module.write_text(module.read_text().replace(field, f"{field}    colour: str | None = None\n"))
    told = notes.run("migrate", "check", "--app", "notes:app")
    assert told.returncode == 1
    assert "only in code: column notes.colour: text\n" in told.stderr
    told = notes.run("migrate", "new", "notes have a colour", "--app", "notes:app")
    assert told.returncode == 0, told.stderr
    text = (tmp_path / "migrations" / "0002_notes_have_a_colour.py").read_text()
    assert '"ALTER TABLE notes ADD COLUMN colour text"' in text
    assert 'down_revision = "0001"' in text
    assert notes.run("migrate", "--app", "notes:app").returncode == 0
    assert notes.run("migrate", "check", "--app", "notes:app").returncode == 0


@pytest.mark.parametrize(
    "options",
    (
        pytest.param(("--workers", "2"), marks=pytest.mark.slow),
        ("--server", "granian", "--workers", "2"),
        pytest.param(("--server", "granian"), marks=pytest.mark.slow),
    ),
    ids=" ".join,
)
def test_both_servers_serve_the_example(
    place: NotesPlace, tmp_path: Path, options: tuple[str, ...]
) -> None:
    # An embedded database is migrated by the start.
    url = place.url if "--workers" in options else ""

    class OfNotes(Service):
        folder = place.folder

    running = OfNotes(
        tmp_path / "log",
        "--app",
        "notes:app",
        *options,
        DATABASE_URL=url,
        REDIS_URL="off",
        PYTHONPATH=str(ROOT),
    )
    try:
        running.wait_until_ready()
        with httpx.Client(base_url=running.url, timeout=30) as client:
            _use(client)
        assert running.stop() == 0
        assert "Traceback" not in running.log.read_text()
    finally:
        running.process.kill()
        running.process.wait()


def _use(client: httpx.Client) -> None:
    """Every kind of request once."""
    assert client.get("/health/ready").json()["status"] == "ok"
    made = client.post("/notes", json={"title": "Shopping", "body": "Milk"})
    assert made.status_code == 201, made.text
    note = made.headers["location"]
    assert note == f"/notes/{made.json()['id']}"
    assert client.get(note).json() == made.json()
    changed = client.patch(note, json={"pinned": True}, headers={"If-Match": made.headers["etag"]})
    assert (changed.json()["pinned"], changed.headers["etag"]) == (True, '"2"')
    assert client.put(note, json={"title": "Bread"}).json()["pinned"] is False
    found = client.get("/notes", params={"q": "bre", "sort": "-title"}).json()
    assert [one["title"] for one in found["items"]] == ["Bread"]
    assert client.delete(note).status_code == 204
    assert client.get(note).status_code == 404
    told = client.get("/openapi.json").json()
    assert told["info"]["title"] == "Notes"
    assert {"name": "notes", "description": "Things to remember"} in told["tags"]
    assert client.get("/items").status_code == 404, "the example has no items"


def test_files_go_in_and_out_by_the_commands(place: NotesPlace) -> None:
    (place.folder / "notes.csv").write_text("slug,title\na,One\nb,Two\n")
    app = {"SERVICE_APP": "notes:app"}
    assert "2 rows read: 2 created" in place.run("import", "notes.csv", **app).stdout
    told = place.run("export", "-", "--format", "csv", "--resource", "notes", **app)
    assert told.stderr == "2 notes written\n"
    assert [line.split(",")[1] for line in told.stdout.splitlines()] == ["slug", "a", "b"]
    told = place.run("export", "-", "--resource", "users", **app)
    assert told.returncode == 2
    assert "no resource users with export; there are: notes" in told.stderr
    told = place.run("explain", "notes.by_id", **app)
    assert "notes_pkey" in told.stdout or "Seq Scan on notes" in told.stdout
    assert "-- notes.by_id\n" in place.run("statements", **app).stdout


def test_an_application_without_sample_data_says_so(place: NotesPlace) -> None:
    told = place.run("seed", "--app", "notes:app")
    assert told.returncode == 2
    assert "notes:app has no sample data" in told.stderr
    assert told.stderr.count("\n") == 1


def test_serve_asks_for_the_first_migration(tmp_path: Path) -> None:
    notes = NotesPlace(tmp_path, "")
    told = notes.run("serve", "--app", "notes:app", "--port", "0")
    assert told.returncode == 1
    line = told.stderr.splitlines()[-1]
    assert f"there are no migrations in {tmp_path}/migrations" in line
    assert "swiftlet migrate new" in line


@pytest.mark.parametrize(
    ("name", "said"),
    (
        ("notes", "give MODULE:NAME"),
        (":app", "give MODULE:NAME"),
        ("no_such_module:app", "there is no module no_such_module"),
        ("service.nothing:app", "there is no module service.nothing"),
        ("needs_more:app", "there is no module no_such_library, which needs_more imports"),
        ("service.asgi:nothing", "service.asgi has no name nothing"),
        ("service.asgi:MIGRATIONS", "give the result of create_app"),
    ),
)
def test_a_wrong_name_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    (tmp_path / "needs_more.py").write_text("import no_such_library\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(ApplicationError, match=re.escape(said)) as told:
        load(name)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("how", ("option", "setting"))
def test_a_wrong_application_name_exits_with_2(tmp_path: Path, how: str) -> None:
    option = ("--app", "nothing:app") if how == "option" else ()
    told = NotesPlace(tmp_path, URL).run(
        "openapi", *option, **({} if option else {"SERVICE_APP": "nothing:app"})
    )
    assert told.returncode == 2
    assert "there is no module nothing" in told.stderr
    assert told.stderr.count("\n") == 1


def test_every_command_has_the_option_with_an_example() -> None:
    import click

    from service.cli import main

    def commands(group: click.Group, name: str) -> Iterator[tuple[str, click.Command]]:
        for word, command in group.commands.items():
            yield f"{name}{word}", command
            if isinstance(command, click.Group):
                yield from commands(command, f"{name}{word} ")

    for name, command in commands(main, ""):
        if isinstance(command, click.Group) and not command.params:
            continue  # it only has the help of its commands
        assert any("--app" in one.opts for one in command.params), name
        # notes has no keys.
        app = "guarded:app" if name.split()[0] in {"users", "keys"} else "notes:app"
        assert f"--app {app}" in (command.help or ""), name


# Settings of one's own.


class MySettings(Settings, frozen=True, kw_only=True):
    prefix: ClassVar[str] = "NOTES_"
    greeting: Annotated[str, Meta(min_length=1)] = "Hello"
    limit: int = 3
    token: Secret | None = None
    port: int = 9000


def test_own_settings_are_beside_ours() -> None:
    given = {"NOTES_GREETING": "Hi", "SERVICE_WORKERS": "2", "NOTES_LIMIT": "5", "OTHER": "x"}
    loaded = MySettings.load(given, NO_FILE)
    assert (loaded.greeting, loaded.limit, loaded.workers, loaded.port) == ("Hi", 5, 2, 9000)
    assert MySettings.load(loaded.environ(), NO_FILE) == loaded
    # The commands read ours alone, before the application is known.
    assert Settings.load(given, NO_FILE).workers == 2


@pytest.mark.parametrize(
    ("name", "value", "said"),
    (
        ("SERVICE_GREETING", "Hi", "SERVICE_GREETING is not a setting"),
        ("NOTES_GREETINGS", "Hi", "NOTES_GREETINGS is not a setting; did you mean NOTES_GREETING?"),
        ("NOTES_LIMIT", "many", "NOTES_LIMIT='many': must be a whole number"),
        ("NOTES_TOKEN", "short", "NOTES_TOKEN=(hidden): must be at least 16 characters"),
    ),
)
def test_a_wrong_own_setting_stops_the_start(name: str, value: str, said: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(said)):
        MySettings.load({name: value}, NO_FILE)


def test_own_settings_need_a_prefix_and_hide_their_secrets() -> None:
    class NoPrefix(Settings, frozen=True, kw_only=True):
        greeting: str = "Hello"

    with pytest.raises(TypeError, match="needs its own prefix"):
        NoPrefix.load({}, NO_FILE)
    shown = repr(MySettings.load({"NOTES_TOKEN": "t" * 16}, NO_FILE))
    assert "token='(hidden)'" in shown or "token=(hidden)" in shown
    assert "t" * 16 not in shown


# create_app itself.


class NewTag(Struct, kw_only=True):
    name: str


def resource(**options: Any) -> Resource[Any]:
    return Resource("tags", NewTag, **options)


async def hello(request: Request) -> Reply:
    """Say hello."""
    return Reply(b'{"hello":"%b"}' % request.path.encode())


async def plain(_: StarletteRequest) -> PlainTextResponse:
    return PlainTextResponse("plain")


@pytest.mark.anyio
async def test_own_routes_are_operations_or_starlette_routes() -> None:
    own = Operation("GET", "/hello", hello, "Say hello", stored=False)
    app = create_app(Settings(database_url=URL), routes=[own, Route("/plain", plain)])
    state = {
        "settings": app.settings,
        "cache": NoCache(),
        "guard": None,
        "metrics": None,
        "tracer": None,
    }

    async def stateful(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "state": state}, receive, send)

    transport = httpx.ASGITransport(stateful)
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        assert (await client.get("/hello")).json() == {"hello": "/hello"}
        assert (await client.get("/plain")).text == "plain"
        missing = await client.get("/nothing")
        assert missing.headers["content-type"] == "application/problem+json"
        told = (await client.get("/openapi.json")).json()
    assert "/hello" in told["paths"]
    assert "/plain" not in told["paths"]
    assert own in app.operations


def test_an_operation_is_given_once() -> None:
    own = Operation("GET", "/tags", hello, "Say hello")
    with pytest.raises(ValueError, match="two operations are GET /tags"):
        create_app(Settings(), resources=[resource()], routes=[own])


def test_the_tables_of_an_application_are_those_that_it_needs() -> None:
    app = create_app(Settings(), resources=[items])
    logged = {"change_horizon", "change_log", "change_positions", "webhooks", "webhook_failures"}
    assert {one.name for one in app.tables} == {
        *("totals", "users", "items", "idempotency_keys", "jobs"),
        *logged,
    }
    without = ("create", "bulk_create", "bulk_delete", "import")
    alone = create_app(Settings(), resources=[resource(without=without)])
    assert [one.name for one in alone.tables] == ["tags"], "it counts no rows and has no POST"
    counted = create_app(Settings(), resources=[resource(counted=True)])
    assert [one.name for one in counted.tables] == ["tags", "totals", "idempotency_keys", "jobs"]
    with pytest.raises(ValueError, match="two tables are named tags"):
        with_internal([resource().table, resource().table])
    assert users.table in app.tables


def test_applications_with_other_filters_share_no_channel_in_redis() -> None:
    """A write invalidates the lists of the filters that its own application declares."""

    def cache(**options: Any) -> Cache:
        settings = Settings(database_url=URL, redis_url="redis://127.0.0.1:1")
        made = cache_of(
            create_app(settings, resources=[resource(**options)]), Database(URL, size=1)
        )
        assert isinstance(made, Cache)
        return made

    channels = [
        made.shared.channel
        for made in (cache(), cache(description="Other words"), cache(filters=("name",)))
        if made.shared is not None
    ]
    assert channels[0] == channels[1] != channels[2]


def test_the_migrations_are_beside_the_calling_file() -> None:
    assert create_app(Settings()).migrations == ROOT / "tests" / "migrations"
    assert create_app(Settings(), migrations="/elsewhere").migrations == Path("/elsewhere")


def test_a_setting_that_is_missing_is_told_in_one_line_when_the_application_starts() -> None:
    sent: list[Any] = []

    async def receive() -> dict[str, str]:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        sent.append(message)

    app = create_app(Settings())
    asyncio.run(app({"type": "lifespan", "asgi": {}, "state": {}}, receive, send))
    app.settings = Settings(database_url="postgresql://host/db", notify_url="http://127.0.0.1/")
    asyncio.run(app({"type": "lifespan", "asgi": {}, "state": {}}, receive, send))
    assert [one["type"] for one in sent] == ["lifespan.startup.failed"] * 2
    assert sent[0]["message"].startswith("swiftlet: DATABASE_URL is not set")
    assert sent[1]["message"].startswith("swiftlet: SERVICE_NOTIFY_URL needs SERVICE_SECRET")


def test_cached_responses_of_other_code_are_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "of_this_test.py"
    module.write_text("A = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = fingerprint("secret", tmp_path)
    __import__("of_this_test")
    loaded = fingerprint("secret", tmp_path)
    module.write_text("A = 2\n")
    assert (
        len({before, loaded, fingerprint("secret", tmp_path), fingerprint("other", tmp_path)}) == 4
    )
    monkeypatch.delitem(sys.modules, "of_this_test")
