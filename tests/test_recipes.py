"""The recipes of CONTRIBUTING.md lead to a service that works; each is done in a scratch copy."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, STORES

from service.conformance.served import serving

CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
FIELD = "    owner_id: ID | None = None\n", "    owner_id: int | None\n"
TEST = """

def test_an_item_has_a_colour(client: httpx.Client) -> None:
    made = client.post("/items", json={"name": "Widget", "colour": "red"}).json()
    assert made["colour"] == "red"
    assert client.patch(f"/items/{made['id']}", json={"colour": None}).json()["colour"] is None
    assert client.post("/items", json={"name": "Widget", "colour": "r" * 21}).status_code == 422
"""
READINGS = '''"""Readings of meters: no text, key or soft delete, and a word of SQL as a name."""

from decimal import Decimal
from typing import Annotated

from msgspec import Meta, Struct

from service.items import items
from service.resource import ID, Resource, Time


class NewReading(Struct, kw_only=True):
    """What POST and PUT take."""

    item_id: ID
    order: Annotated[int, Meta(ge=0)] = 0
    value: Decimal
    taken_at: Time | None = None


readings = Resource(
    "readings",
    NewReading,
    path="/v1/readings",
    sorts=("order", "taken_at"),
    filters=("item_id", "min_value"),
    references={"item_id": items},
    under=("item_id",),
)
'''

ENDPOINTS = """\
| `/v1/readings` | `GET`, `POST` |
| `/v1/readings/{id}` | `GET`, `PUT`, `PATCH`, `DELETE` |
| `/items/{id}/readings` | `GET`, `POST` |
| `/v1/readings/bulk` | `POST`, `PATCH` |
| `/v1/readings/bulk/delete` | `POST` |
| `/v1/readings/import` | `POST` |
| `/v1/readings/export` | `GET` |
"""


def section(title: str) -> str:
    """The text under a title of CONTRIBUTING.md."""
    return CONTRIBUTING.split(f"\n## {title}\n")[1].split("\n## ")[0]


def commands(text: str) -> list[str]:
    """The lines of its `sh` blocks."""
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    return [line.strip() for block in blocks for line in block.splitlines()]


class Copy:
    """The tracked files in a folder of their own, run by the Python of this environment."""

    def __init__(self, directory: Path, url: str) -> None:
        self.directory = directory
        listed = subprocess.run(
            ["git", "ls-files", "-z", "-c", "-o", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for name in listed.split("\0"):
            if (ROOT / name).is_file():
                (directory / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, directory / name)
        self.before = self.files()
        kept = {name: one for name, one in os.environ.items() if not name.startswith("SERVICE_")}
        self.environ = {
            # pytest closes the folder of its temporary files to others: not the one that we use.
            "PYTEST_DEBUG_TEMPROOT": str(directory.parent),
            **kept,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(directory),
            "DATABASE_URL": url,
            "REDIS_URL": "off",
            "TEST_STORES": STORES,
        }

    def files(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.directory)): path.read_bytes()
            for path in self.directory.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }

    def changed(self) -> list[str]:
        now = self.files()
        names = self.before.keys() | now.keys()
        return sorted(name for name in names if self.before.get(name) != now.get(name))

    def replace(self, name: str, *pairs: tuple[str, str]) -> None:
        path = self.directory / name
        text = path.read_text()
        for old, new in pairs:
            assert text.count(old) == 1, f"{name}: {old}"
            text = text.replace(old, new)
        path.write_text(text)

    def run(self, command: str) -> str:
        """Run a line of the recipe; uv is left out, and `just` is read, since CI has neither."""
        for name in re.findall(r"(?<=just )[\w ]+", command):
            for recipe in name.split():
                body = re.search(rf"^{recipe}:\n((?:    .*\n)+)", self.justfile, re.MULTILINE)
                assert body, f"no recipe {recipe}"
                for line in body[1].splitlines():
                    self.run(line.strip())
            return ""
        done = subprocess.run(
            ["bash", "-euc", command.removeprefix("uv run ")],
            cwd=self.directory,
            env=self.environ,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    @property
    def justfile(self) -> str:
        return (self.directory / "justfile").read_text()


@pytest.fixture
def scratch(tmp_path: Path, new_database: Callable[[], str]) -> Copy:
    directory = tmp_path / "copy"
    directory.mkdir()
    return Copy(directory, new_database())


@pytest.mark.slow
def test_a_field_takes_four_files_and_is_served_everywhere(scratch: Copy, tmp_path: Path) -> None:
    before, after = FIELD
    scratch.replace(
        "service/items/structs.py",
        (before, f"{before}    colour: Annotated[str, Meta(max_length=20)] | None = None\n"),
        (after, f"{after}    colour: str | None\n"),
    )
    for command in commands(section("A field in three steps")):
        scratch.run(command)
    test = scratch.directory / "tests" / "test_items.py"
    test.write_text(test.read_text() + TEST)
    *others, migration, listing, tests = scratch.changed()
    assert others == ["service/items/structs.py"]
    assert re.fullmatch(r"sql/migrations/\d{4}_items_have_a_colour\.py", migration)
    assert (listing, tests) == ("sql/statements.sql", "tests/test_items.py")
    assert "agree" in scratch.run("swiftlet migrate check")
    scratch.run("pytest -q tests/test_items.py -k colour")

    environ = {name: scratch.environ[name] for name in ("PYTHONPATH", "DATABASE_URL", "REDIS_URL")}
    with serving("service.asgi:app", tmp_path, **environ) as served:
        client = served.client
        body = {"sku": "A", "name": "Widget", "colour": "red"}
        made = client.post("/items", json=body).json()
        path = f"/items/{made['id']}"
        assert client.patch(path, json={"colour": "blue"}).json()["colour"] == "blue"
        assert client.put(path, json={**body, "colour": "green"}).json()["colour"] == "green"
        assert client.get(path).json()["colour"] == "green"
        assert client.get("/items").json()["items"][0]["colour"] == "green"
        file = client.get("/items/export", params={"format": "csv"}).text
        assert file.splitlines()[0].split(",")[7] == "colour"
        answer = client.post(
            "/items/import",
            content=file.replace("green", "grey"),
            headers={"content-type": "text/csv"},
        )
        assert answer.json()["updated"] == 1
        assert client.get(path).json()["colour"] == "grey"
        shown = client.get("/openapi.json").json()["components"]["schemas"]
        assert "colour" in shown["Item"]["properties"]
        assert "colour" in shown["ItemChange"]["properties"]


@pytest.mark.slow  # starts two servers with their stores
def test_a_resource_in_five_steps_passes_the_conformance_tests(scratch: Copy) -> None:
    (scratch.directory / "service" / "readings.py").write_text(READINGS)
    settings = "from service.settings import Settings"
    imported = f"from service.readings import readings\n{settings}"
    scratch.replace(
        "service/asgi.py",
        (settings, imported),
        (
            "resources=(items, users, keys, notifications),",
            "resources=(items, users, keys, notifications, readings),",
        ),
    )
    scratch.replace(
        "tests/shapes_app.py",
        (settings, imported),
        ("tags, measures, orders),", "tags, measures, orders, readings),"),
    )
    scratch.replace("CONTRIBUTING.md", ("  items/  users/ ", "  items/  users/  readings.py "))
    scratch.replace("README.md", ("| `/health`, ", f"{ENDPOINTS}| `/health`, "))
    steps = section("A resource in five steps")
    for command in commands(steps):
        scratch.run(command.replace("notes", "readings"))
    assert "agree" in scratch.run("swiftlet migrate check")
    rules = "tests/test_architecture.py tests/test_readme.py"
    scratch.run(f"pytest -q {rules} -k 'room or endpoints or readings'")
