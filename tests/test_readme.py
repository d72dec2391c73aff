"""Check README.md and docs/: snippets run, tables match the code, links work."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
import yaml  # type: ignore[import-untyped]
from conftest import ROOT, STORES, Service, free_port
from references import PAGES as REFERENCES

from service.cli import main
from service.embedded.programs import wheel_postgres
from service.settings import Settings

README = ROOT / "README.md"
PAGES = (README, *sorted((ROOT / "docs").rglob("*.md")))
DOCUMENTS = (
    *PAGES,
    *(ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "bench/README.md")),
)
BLOCK = re.compile(
    r"^```(?P<kind>\S*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
# A `text` block is a diagram or a file of another program: it is not run.
RUN = {"console", "sh", "python", "sql"}
KINDS = RUN | {"text", "yaml"}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
# The last line of a block that starts a server for the next calls of the page.
SERVER = re.compile(r"^(?:\w+=\S* )*(?:uv run )?(?:swiftlet serve|uvicorn|granian)\b")
HERE = "http://127.0.0.1:8000"
# These pages need an empty database, the others the migrated one of the test server.
OWN_DATABASE = {
    "deployment.md",
    "from-fastapi.md",
    "jobs.md",
    "notifications.md",
    "webhooks.md",
    "your-own-resource.md",
}


class Block(NamedTuple):
    """A snippet of a page."""

    kind: str
    text: str


def blocks(page: Path) -> list[Block]:
    return [Block(one["kind"], one["text"]) for one in BLOCK.finditer(page.read_text())]


def session(text: str) -> list[tuple[str, str]]:
    """Return each command of a console block with its expected output."""
    found = []
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, printed = part.partition("\n")
        while command.endswith("\\"):
            more, _, printed = printed.partition("\n")
            command += f"\n{more}"
        found.append((command, printed))
    return found


def has_more_fields(printed: str, shown: str) -> bool:
    """Whether both are JSON objects, and one has all that the other shows: fields may be added."""
    try:
        found, told = json.loads(printed), json.loads(shown)
    except ValueError:
        return False
    return isinstance(found, dict) and isinstance(told, dict) and found.items() >= told.items()


class Runner:
    """Runs the snippets of a page in order, in one directory, with one database."""

    def __init__(self, directory: Path, url: str, **environ: str) -> None:
        self.directory = directory
        self.url = url
        self.server: subprocess.Popen[bytes] | None = None
        postgres = wheel_postgres() if STORES == "wheel" else None
        programs = [Path(sys.executable).parent, *([postgres] if postgres else [])]
        ours = re.compile(r"SERVICE_|DATABASE_URL$|REDIS_URL$|TEST_")
        kept = {name: value for name, value in os.environ.items() if not ours.match(name)}
        self.environ = {
            **kept,
            "PATH": ":".join((*map(str, programs), os.environ["PATH"])),
            "PYTHONPATH": f"{directory}:{ROOT}",
            "UV_NO_SYNC": "1",
            "SERVICE_DATA": str(directory / "data"),
            **environ,
        }

    def run(self, block: Block) -> None:
        if block.kind == "console":
            for command, expected in session(block.text):
                printed = TIME.sub("TIME", self.shell(command).rstrip("\n"))
                shown = TIME.sub("TIME", expected.rstrip("\n"))
                assert printed == shown or has_more_fields(printed, shown), command
        elif block.kind == "sh":
            self.script(block.text.rstrip("\n"))
        elif block.kind == "python":
            name = re.match(r"# (\w+)\.py\n", block.text)
            path = self.directory / f"{name[1] if name else 'snippet'}.py"
            path.write_text(block.text)
            self.shell(f"{shlex.quote(sys.executable)} -c 'import {path.stem}'")
        elif block.kind == "sql":
            database = re.search(r"/(\w+)\?", self.environ["DATABASE_URL"])
            assert database is not None
            text = block.text.replace("ON DATABASE app", f"ON DATABASE {database[1]}")
            (self.directory / "snippet.sql").write_text(text)
            self.shell('psql -X -q -v ON_ERROR_STOP=1 -f snippet.sql "$DATABASE_URL"')

    def script(self, text: str) -> None:
        # The tests install nothing; they may run without uv.
        text = text.replace("pip install uv", "uv --version")
        before, _, last = text.rpartition("\n")
        if SERVER.match(last):
            if before:
                self.shell(before)
            self.serve(last)
        else:
            self.shell(text)

    def shell(self, command: str) -> str:
        done = subprocess.run(
            ["bash", "-euc", command.replace(HERE, self.url)],
            cwd=ROOT if "uv run" in command else self.directory,
            env=self.environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def serve(self, command: str) -> None:
        self.stop()
        port = str(free_port())
        self.url = f"http://127.0.0.1:{port}"
        ports = dict.fromkeys(("SERVICE_PORT", "UVICORN_PORT", "GRANIAN_PORT"), port)
        with (self.directory / "server.log").open("wb") as log:
            self.server = subprocess.Popen(
                ["bash", "-c", f"exec env {command}"],
                cwd=ROOT if "uv run" in command else self.directory,
                env=self.environ | ports,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + 30
        while True:
            assert self.server.poll() is None, (self.directory / "server.log").read_text()
            try:
                assert httpx.get(f"{self.url}/health/live").status_code == 200
                break
            except httpx.TransportError:
                assert time.monotonic() < deadline, command
                time.sleep(0.02)

    def stop(self) -> None:
        if self.server is not None:
            self.server.send_signal(signal.SIGTERM)
            try:
                # uvicorn's own command ends by the signal.
                assert self.server.wait(30) in {0, -signal.SIGTERM}
            finally:
                self.server.kill()
                self.server = None


def pages_with_snippets() -> list[Path]:
    return [page for page in PAGES if any(block.kind in RUN for block in blocks(page))]


@pytest.fixture
def runner(
    page: Path, tmp_path: Path, request: pytest.FixtureRequest, new_database: Callable[[], str]
) -> Iterator[Runner]:
    if page == README:  # it starts the embedded stores in an empty directory
        if shutil.which("uv") is None:
            pytest.skip("uv is not here")
        one = Runner(tmp_path, HERE)
    elif page.name in OWN_DATABASE:
        one = Runner(tmp_path, HERE, DATABASE_URL=new_database(), REDIS_URL="off")
    else:
        request.getfixturevalue("client")  # empties the tables
        service: Service = request.getfixturevalue("service")
        url: str = request.getfixturevalue("database_url")
        one = Runner(tmp_path, service.url, DATABASE_URL=url, REDIS_URL="off")
    yield one
    one.stop()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not here")
@pytest.mark.parametrize("page", pages_with_snippets(), ids=lambda page: page.name)
def test_the_snippets_of_a_page_run_and_print_what_it_shows(page: Path, runner: Runner) -> None:
    for block in blocks(page):
        if block.kind in RUN:
            runner.run(block)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_snippet_is_of_a_kind_that_is_checked(page: Path) -> None:
    for block in blocks(page):
        assert block.kind in KINDS, f"{page.name}: a `{block.kind}` block is not run by any test"
        if block.kind == "yaml":
            yaml.safe_load(block.text)
    assert page.read_text().count("```") == 2 * len(blocks(page)), "a block that is not closed"


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: page.name)
def test_every_link_has_a_target(page: Path) -> None:
    text = BLOCK.sub("", page.read_text())
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)]*))?\)", text):
        if target.startswith(("http:", "https:")):
            continue
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{page.name}: {target}"
        if anchor:
            titles = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor in anchors, f"{page.name}: {target}#{anchor}"


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: page.name)
def test_every_module_that_a_page_names_exists(page: Path) -> None:
    for name in re.findall(r"`((?:\w+/)+\w+\.(?:py|sql))`", page.read_text()):
        assert (ROOT / name).exists() or (ROOT / "service" / name).exists(), name


def test_every_page_is_linked_from_the_readme_or_the_list_of_decisions() -> None:
    linked = {
        (page.parent / target).resolve()
        for page in (README, ROOT / "docs" / "decisions" / "README.md")
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text())
    }
    assert [str(page) for page in PAGES[1:] if page not in linked] == []


def test_the_readme_has_at_most_1200_words() -> None:
    assert len(README.read_text().split()) <= 1200, "move details to docs/"


def test_the_readme_shows_the_real_defaults_of_the_settings() -> None:
    table = README.read_text().split("\n## Settings\n")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", table, re.MULTILINE))
    fields = {Settings.variable(field): field for field in Settings.__struct_fields__}
    assert len(rows) == 10
    for name, default in rows.items():
        value = getattr(Settings(), fields[name])
        assert value is None or default.strip("`") == str(value)


def test_the_readme_lists_the_endpoints_of_the_openapi_document(client: httpx.Client) -> None:
    table = README.read_text().split("\n## Endpoints\n")[1].split("\n## ")[0]
    told = {
        (path, method.lower())
        for paths, methods in re.findall(r"^\| (`.*?) \| (.*) \|$", table, re.MULTILINE)
        for path in re.findall(r"`(.*?)`", paths)
        for method in re.findall(r"`([A-Z]+)`", methods)
    }
    served = {
        (path, method)
        for path, operations in client.get("/openapi.json").json()["paths"].items()
        for method in operations
    }
    assert told == served


@pytest.mark.parametrize("name", REFERENCES)
def test_the_generated_references_are_current(name: str) -> None:
    written = (ROOT / "docs" / "reference" / name).read_text()
    assert written == REFERENCES[name](), "run `just docs`"


def test_every_command_and_setting_has_a_line_in_the_references() -> None:
    """The generator of the references omits none."""
    settings, commands = REFERENCES["settings.md"](), REFERENCES["commands.md"]()
    for field in Settings.__struct_fields__:
        assert f"\n| `{Settings.variable(field)}` | " in settings
    for name in main.commands:
        assert f"\n## `swiftlet {name}`\n" in commands


def test_contributing_lists_every_room() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    tree = text.split("```text\nservice/\n")[1].split("```")[0]
    named = set(re.findall(r"\b([a-z]\w*)(?=/|\.py\b)", tree))
    rooms = {
        path.stem
        for path in (ROOT / "service").iterdir()
        if not path.stem.startswith("_") and path.suffix in {"", ".py"}
    }
    assert rooms <= named, "give each new room its line"
    assert {name for name in named if name not in rooms} == set()


def test_nothing_refers_to_pages_outside_of_the_repository() -> None:
    outside = re.compile(
        r"\b(?:design|contract) \(?section|\boutside\.md|\bresearch/", re.IGNORECASE
    )
    listed = subprocess.run(
        ["git", "ls-files", "service", "bench", "tests", "sql", "docs"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    ).stdout.split("\n")
    for name in listed:
        path = ROOT / name
        if path.suffix in {".py", ".md", ".sql", ".toml", ".lua", ".js"} and path != Path(__file__):
            text = path.read_text()
            assert not outside.search(text), path
            if path.suffix != ".md":
                for page in re.findall(r"\bdocs/[\w/-]+\.md\b", text):
                    assert (ROOT / page).exists(), f"{path}: {page}"
    for document in DOCUMENTS:
        assert not outside.search(document.read_text()), document
