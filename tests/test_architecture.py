"""Rules of the house that an import can break."""

import ast
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

from service.asgi import app

PACKAGE = ROOT / "service"
SLICES = {one.name for one in app.resources}
# Where a foreign key refers to another slice.
REFERENCES = {
    (one.name, parent.name) for one in app.resources for parent in one.references.values()
}

# From the ground up: a module imports only from rooms below its own.
RANKS: tuple[frozenset[str], ...] = (
    frozenset({"settings", "errors", "logs", "embedded"}),
    frozenset({"http1"}),
    frozenset({"db"}),
    frozenset({"cache"}),
    frozenset({"migrations"}),
    frozenset({"web"}),
    frozenset({"resource"}),
    frozenset(SLICES),
    frozenset({"health"}),
    frozenset({"app"}),
    # The servers know uvicorn's and granian's ways, and load an application by its name.
    frozenset({"asgi", "server"}),
    frozenset({"cli"}),
    frozenset({"__main__"}),
    # Tests for a resource of anybody's: only they know pytest, so nothing imports them.
    frozenset({"conformance"}),
)
RANK = {room: rank for rank, rooms in enumerate(RANKS) for room in rooms}

# SQL is made where the tables and the statements are; Alembic speaks SQLAlchemy too.
SQLALCHEMY = {"db.schema", "db.statement"}
SQLALCHEMY |= {f"migrations.{room}" for room in ("env", "migrate", "revision", "snapshot")}
SQLALCHEMY |= {
    f"db.{room}"
    for room in (
        "adaptive",
        "arrays",
        "batch",
        "bulk",
        "changes",
        "conflicts",
        "copy",
        "filters",
        "kept_totals",
        "keyset",
        "shape",
        "staging",
        "staging_statements",
        "writes",
    )
}
SQLALCHEMY |= {"resource.columns", "resource.declaration"}


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        yield name.removesuffix(".__init__"), ast.parse(path.read_text())


def imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms(tree: ast.Module) -> Iterator[str]:
    for name in imports(tree):
        parts = name.split(".")
        if parts[0] == "service" and len(parts) > 1:
            yield parts[1]


def test_every_room_has_a_rank() -> None:
    found = {name.partition(".")[0] for name, _ in modules()} - {"__init__"}
    assert found == set(RANK), "a new room: give it its rank here, and its line in CONTRIBUTING.md"


each_module = pytest.mark.parametrize(
    ("name", "tree"), [pytest.param(*module, id=module[0]) for module in modules()]
)


@each_module
def test_imports_only_point_down(name: str, tree: ast.Module) -> None:
    here = name.partition(".")[0]
    if here == "__init__":
        return
    for room in rooms(tree):
        if room == here:
            continue
        assert RANK[room] <= RANK[here], f"{name} imports {room}, which stands above it"
        assert RANK[room] < RANK[here] or here not in SLICES or (here, room) in REFERENCES, (
            f"{name} imports {room}: a slice imports another only where a foreign key refers to it;"
            " what both need goes down"
        )


@each_module
def test_only_statements_know_sqlalchemy(name: str, tree: ast.Module) -> None:
    allowed = name in SQLALCHEMY or name.endswith(".statements")
    uses = any(one.split(".")[0] == "sqlalchemy" for one in imports(tree))
    assert allowed or not uses, f"{name}: SQL belongs into a statements.py"


def test_structs_need_msgspec_and_the_standard_library_alone() -> None:
    for name, tree in modules():
        if name.endswith(".structs"):
            foreign = {one.split(".")[0] for one in imports(tree)} & {"service", "sqlalchemy"}
            assert not foreign, f"{name}: what travels must be readable without the kernel"


def test_nothing_wraps_a_request_in_a_base_class() -> None:
    """BaseHTTPMiddleware costs a memory stream, a task group and 89 us a request."""
    for name, tree in modules():
        assert not any("BaseHTTPMiddleware" in one for one in imports(tree)), name


def test_files_are_read_without_scrolling_for_long() -> None:
    """What needs more than 300 lines is two rooms."""
    for path in PACKAGE.rglob("*.py"):
        lines = len(path.read_text().splitlines())
        name = str(path.relative_to(PACKAGE))
        assert lines <= 300, f"{name} has {lines} lines: is it one room?"


def test_the_same_name_is_not_two_rooms() -> None:
    names = [Path(name.replace(".", "/")).name for name, _ in modules()]
    kernel = [name for name in names if name not in {"routes", "statements", "structs"}]
    twice = {a for a, b in itertools.combinations(sorted(kernel), 2) if a == b}
    assert not twice
