"""Generated clients talk to a real server; linters of other people read the document.

What needs npm and its registry is skipped without them.
"""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import ROOT, Service
from shapes_app import app as shapes

from service.app import create_app
from service.asgi import app
from service.cli import clients, main
from service.cli.clients import NPX, client_document, client_name, python_document
from service.settings import Settings
from service.users import users
from service.web.openapi import document
from service.web.openapi_texts import NO_CHECKS, Checks

PLACE = ROOT / "tests" / "openapi"
NPM = shutil.which("npm")


def made(language: str, directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `swiftlet client`."""
    return subprocess.run(
        [sys.executable, "-m", "service", "client", language, str(directory), *words],
        check=False,
        capture_output=True,
        text=True,
        cwd=directory.parent,
    )


@pytest.fixture
def python_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of the package of a generated client, which can be imported."""
    ran = made("python", tmp_path / "client")
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.splitlines() == [
        f"making a python client of Swiftlet in {tmp_path / 'client'} ..."
    ], "the generator warns"
    assert ran.stdout.endswith("README.md says how to use them\n")
    monkeypatch.syspath_prepend(tmp_path / "client")
    yield "swiftlet_client"
    for name in [name for name in sys.modules if name.startswith("swiftlet_client")]:
        del sys.modules[name]


def test_a_python_client_creates_reads_lists_changes_and_deletes(
    python_client: str, service: Service, client: httpx.Client
) -> None:
    del client  # it empties the tables

    def call(name: str, *arguments: Any, **named: Any) -> Any:
        module = importlib.import_module(f"{python_client}.api.{name}")
        return module.sync_detailed(*arguments, client=api, **named)

    models = importlib.import_module(f"{python_client}.models")
    types = importlib.import_module(f"{python_client}.types")
    api = importlib.import_module(python_client).AuthenticatedClient(service.url, token="any")
    with api:
        began = call("items.follow_items").parsed.position
        ada = call("users.create_user", body=models.NewUser("ada@example.com", "ada")).parsed
        lamp = models.NewItem("Lamp", sku="L-1", price=29.99, owner_id=ada.id)
        created = call("items.create_item", body=lamp, idempotency_key="python-1")
        item = created.parsed
        assert (created.status_code, created.headers["location"]) == (201, f"/items/{item.id}")
        assert (item.price, item.description, item.updated_at) == (29.99, None, None)
        assert item.created_at.tzinfo is not None

        taken = call("items.create_item", body=lamp)
        assert (taken.status_code, type(taken.parsed).__name__) == (409, "ProblemDocument")
        assert taken.parsed.errors[0].field == "sku"

        etag = (read := call("items.read_item", item.id)).headers["etag"]
        assert read.parsed == item
        assert call("items.read_item", item.id, if_none_match=etag).status_code == 304

        included, sort = [models.ItemListInclude.OWNER], models.ItemSort.PRICE_DESC
        page = call("items.list_items", include=included, sort=sort, is_active=True).parsed
        assert (type(page).__name__, page.total, page.pages) == ("ItemPage", 1, 1)
        assert page.items[0].owner.email == "ada@example.com"

        lines = (f'{{"name": "{name}"}}\n'.encode() for name in ("Chair", "Desk"))
        counts = call("items.import_items", body=types.File(b"".join(lines))).parsed
        assert (counts.created, counts.errors) == (2, [])
        refused = call("items.import_items", body=types.File(b"{}\n")).parsed
        assert (type(refused).__name__, refused.errors[0].line) == ("LinesDocument", 1)
        exported = call("items.export_items").parsed.payload.read()
        assert [json.loads(line)["name"] for line in exported.splitlines()][1:] == ["Chair", "Desk"]

        names: list[str] = []
        cursor: str | None = ""
        while cursor is not None:
            shown = call("items.list_items", cursor=cursor, per_page=2).parsed
            assert type(shown).__name__ == "ItemCursorPage"
            names += [one.name for one in shown.items]
            cursor = shown.next_cursor
        assert names == ["Lamp", "Chair", "Desk"]
        user = call("users.read_user", ada.id, include=[*models.UserInclude]).parsed
        assert (user.items_total, user.keys) == (1, [])

        follow(call, models, types, ada.id, began)

        cleared = models.ItemChange(sku=None)
        changed = call("items.change_item", item.id, body=cleared, if_match=etag).parsed
        assert (changed.sku, changed.name, changed.version) == (None, "Lamp", 2)
        stale = call("items.change_item", item.id, body=cleared, if_match=etag)
        assert (stale.status_code, stale.parsed.title) == (412, "Precondition Failed")
        assert call("items.delete_item", item.id, permanent=True).status_code == 204
        assert call("items.read_item", item.id).parsed.status == 404


def follow(call: Callable[..., Any], models: Any, types: Any, user_id: int, began: int) -> None:
    """Read what came after the rows: changes, the dashboard, notifications and a job."""
    page = call("items.follow_items", after=began, owner_id=user_id).parsed
    assert [(one.kind.value, one.item.name) for one in page.changes] == [("created", "Lamp")]
    shown = call("users.read_dashboard", user_id).parsed
    assert (shown.stats.items, shown.recent[0].name) == (1, "Lamp")
    up_to = models.ReadNotifications(up_to=1)
    assert call("users.mark_notifications_read", user_id, body=up_to).parsed.read == 0
    assert call("users.list_user_notifications", user_id, unread=True).parsed.items == []
    sent = call("items.import_items", body=types.File(b""), background=True).parsed
    read = call("jobs.read_job", sent.id).parsed
    assert (read.kind, read.state.value, read.created_at) == ("import", "queued", sent.created_at)


def test_a_folder_that_is_not_empty_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(SystemExit) as ended:
        main.main(["client", "python", str(tmp_path)], prog_name="swiftlet")
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "is not empty" in line
    assert "--force" in line


def test_force_renews_a_client_and_leaves_files_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The generator itself runs above; here it only writes a file."""

    def write(command: list[str], *options: list[str]) -> str:
        package = Path(command[-1] if not options else options[-1][-1], "swiftlet_client")
        package.mkdir(parents=True)
        (package / "new.py").touch()
        return ""

    monkeypatch.setattr(clients, "_run", write)
    place = tmp_path / "client"
    for name in ("swiftlet_client/old.py", "tests/mine.py"):
        (place / name).parent.mkdir(parents=True)
        (place / name).touch()
    with pytest.raises(SystemExit) as ended:
        main.main(["client", "python", str(place), "--force"], prog_name="swiftlet")
    assert ended.value.code == 0
    assert not (place / "swiftlet_client" / "old.py").exists()
    assert (place / "swiftlet_client" / "new.py").exists()
    assert (place / "tests" / "mine.py").exists()


@pytest.mark.parametrize(
    ("language", "told"),
    (("python", "pip install 'swiftlet[client]'"), ("typescript", "install Node.js")),
)
def test_a_missing_generator_is_one_line_with_what_to_install(
    language: str,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    place = tmp_path / "client"
    with pytest.raises(SystemExit) as ended:
        main.main(["client", language, str(place)], prog_name="swiftlet")
    assert ended.value.code == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("swiftlet: ")
    assert told in last
    assert not place.exists()


def test_a_client_has_the_name_of_its_application_and_no_pages() -> None:
    assert client_name("My notes, 2nd edition") == "my-notes-2nd-edition-client"
    assert client_name("Заметки") == "client"
    told = client_document(app)
    assert {"/docs", "/metrics"}.isdisjoint(told["paths"])
    assert told["components"]["securitySchemes"]


def test_the_document_for_python_has_nothing_that_its_generator_gets_wrong() -> None:
    told = python_document(app)
    names = {
        one["name"]
        for methods in told["paths"].values()
        for operation in methods.values()
        for one in operation["parameters"]
    }
    assert "per_page" in names
    assert "params" not in names, "the generated function overwrites it with its own variable"
    assert [*told["paths"]["/items/import"]["post"]["requestBody"]["content"]] == [clients.FILE]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the programs of tests/openapi/package.json."""
    if os.environ.get("CI"):
        pytest.skip("CI takes packages of Python and Debian alone: run `just openapi-lint`")
    if NPM is None:
        pytest.skip("no npm here: install Node.js 20 or newer")
    place = tmp_path_factory.mktemp("node")
    shutil.copy(PLACE / "package.json", place)
    command = [NPM, "install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts"]
    ran = subprocess.run(command, cwd=place, check=False, capture_output=True, text=True)
    if ran.returncode != 0:
        pytest.skip(f"npm can't install: {ran.stderr.splitlines()[:1]}")
    return place


def run(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a program of node."""
    found = shutil.which(words[0], path=str(place / "node_modules" / ".bin"))
    command = [found or words[0], *words[1:]]
    return subprocess.run(command, cwd=place, check=False, capture_output=True, text=True)


@pytest.mark.slow
def test_a_typescript_client_creates_reads_lists_changes_and_deletes(
    node: Path, service: Service, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    del client
    # The same generator, without a question to the registry.
    local = ("npx", "--no-install", *NPX[NPX.index("openapi-typescript") :])
    monkeypatch.setattr(clients, "NPX", local)
    monkeypatch.chdir(node)
    place = node / "client"
    with pytest.raises(SystemExit) as ended:
        main.main(["client", "typescript", str(place)], prog_name="swiftlet")
    assert ended.value.code == 0
    shutil.copy(PLACE / "program.ts", place)
    compiled = run(node, "tsc", "--project", "client", "--types", "node")
    assert compiled.returncode == 0, compiled.stdout
    ran = run(node, "node", "client/dist/program.js", service.url)
    assert (ran.returncode, ran.stdout) == (0, "all calls passed\n"), ran.stderr


@pytest.mark.slow
def test_the_linters_have_nothing_to_say(node: Path) -> None:
    """Over our document with and without checks, and those of applications of one's own."""
    about = {"contact": {"name": "Us"}, "license": {"name": "MIT", "identifier": "MIT"}}
    notes = next(one for one in shapes.resources if one.name == "notes")
    own = create_app(Settings(), resources=[users, notes], title="Notes", info=about)
    every = Checks(keys=True, limits=True)
    told = {
        "complete": document(app.operations, app.about, checks=every),
        "open": document(app.operations, app.about, "https://api.swiftlet.test/v1", NO_CHECKS),
        "notes": document(own.operations, own.about, checks=every),
    }
    for name, one in told.items():
        (node / f"{name}.json").write_text(json.dumps(one))
    files = [f"{name}.json" for name in told]
    spectral = ("spectral", "lint", "--ruleset", str(PLACE / "spectral.yaml"))
    linted = run(node, *spectral, "--fail-severity", "hint", *files)
    assert linted.returncode == 0, linted.stdout
    linted = run(
        node, "redocly", "lint", "--config", str(PLACE / "redocly.yaml"), "--format", "json", *files
    )
    totals = re.findall(r'"(?:errors|warnings|ignored)": (\d+)', linted.stdout)
    assert totals == ["0"] * 3 * len(files), linted.stdout
