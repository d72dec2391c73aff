"""Rules about imports, files and names in service/."""

import ast
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

from service.asgi import app

PACKAGE = ROOT / "service"
SLICES = {one.name for one in app.resources}
# A room that shows rows of several slices.
VIEWS = {"dashboard"}
# Slices with a foreign key to another slice.
REFERENCES = {
    (one.name, parent.name) for one in app.resources for parent in one.references.values()
}

# Lowest rank first: a module imports only from rooms of a lower rank.
RANKS: tuple[frozenset[str], ...] = (
    frozenset(
        {
            "settings",
            "errors",
            "logs",
            "embedded",
            "metrics",
            "timing",
            "traceparent",
            "threads",
            "slices",
        }
    ),
    frozenset({"http1"}),
    # Each of the two has types of the other: a batch has a span, and a span shows a batch.
    frozenset({"db", "tracing"}),
    frozenset({"cache"}),
    # It uses the cache's client of Redis.
    frozenset({"limits"}),
    frozenset({"migrations"}),
    # Posts of the service to others.
    frozenset({"outgoing"}),
    frozenset({"web"}),
    frozenset({"jobs", "changes"}),
    frozenset({"webhooks"}),
    frozenset({"resource"}),
    frozenset(SLICES),
    frozenset(VIEWS),
    # `admin` explains the statements of resources.
    frozenset({"admin", "health", "monitoring", "sample_data", "sampling"}),
    frozenset({"app", "app_state"}),
    # The servers know uvicorn's and granian's ways, and load an application by its name.
    frozenset({"asgi", "server"}),
    # It checks what all others need.
    frozenset({"doctor"}),
    frozenset({"cli"}),
    frozenset({"__main__"}),
    # Tests for a resource of anybody's: only they know pytest, so nothing imports them.
    frozenset({"conformance"}),
)
RANK = {room: rank for rank, rooms in enumerate(RANKS) for room in rooms}

# Modules that build SQL or tables; Alembic uses SQLAlchemy too.
SQLALCHEMY = {"db.schema", "db.statement", "db.quoting", "db.job_table", "db.change_log"}
SQLALCHEMY |= {"jobs.spool_statements", "jobs.figure_statements", "db.webhook_tables"}
SQLALCHEMY |= {f"migrations.{room}" for room in ("env", "migrate", "revision", "snapshot")}
SQLALCHEMY |= {
    f"db.{room}"
    for room in (
        "adaptive",
        "arrays",
        "batch",
        "bulk",
        "row_changes",
        "conflicts",
        "copy",
        "filters",
        "guarded",
        "idempotency",
        "kept_totals",
        "keyset",
        "letter_case",
        "newest",
        "ownership",
        "shape",
        "staging",
        "staging_statements",
        "upsert",
        "writes",
    )
}
SQLALCHEMY |= {f"resource.{room}" for room in ("columns", "declaration", "list_filters")}


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
def test_modules_import_only_from_lower_rooms(name: str, tree: ast.Module) -> None:
    here = name.partition(".")[0]
    if here == "__init__":
        return
    for room in rooms(tree):
        if room == here:
            continue
        assert RANK[room] <= RANK[here], f"{name} imports {room}, which has a higher rank"
        assert RANK[room] < RANK[here] or here not in SLICES or (here, room) in REFERENCES, (
            f"{name} imports {room}: a slice may import another only with a foreign key to it;"
            " move shared code to a lower room"
        )


@each_module
def test_sqlalchemy_is_imported_only_where_sql_is_made(name: str, tree: ast.Module) -> None:
    allowed = name in SQLALCHEMY or name.endswith(".statements")
    uses = any(one.split(".")[0] == "sqlalchemy" for one in imports(tree))
    assert allowed or not uses, f"{name}: put SQL into a module of the list SQLALCHEMY"


# Names of a slice that other rooms may use with another meaning: word, room, reason.
SHARED_WORDS: tuple[tuple[str, str, str], ...] = (
    (
        "items",
        "web",
        "the member of every list and body of many rows (docs/decisions/list-envelope)",
    ),
    ("items", "resource", "the same"),
    ("items", "conformance", "the same"),
    ("is_active", "db.shape", "the convention of a soft delete, written once"),
    ("user_id", "web", "who sent a request, in any application"),
    ("user_id", "jobs", "who caused a job, in any application"),
    ("user_id", "db.job_table", "the same"),
    ("user_id", "resource.import_job", "who sent the file, in any application"),
    ("expires_at", "cache", "the end of a cached response"),
    ("username", "cache.client", "an argument of redis-py"),
    ("username", "settings.urls", "a part of a URL of Redis"),
    ("username", "embedded.postgres", "an option of initdb"),
)
# Modules for the built-in resources outside of their slices.
BUILT_IN = {"asgi", "cli.accounts", "cli.first_key"}
# Common English words, which a search cannot distinguish from columns.
ENGLISH = {"name", "description", "role", "keys"}


def words_used(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield identifiers and words in strings, with lines; not docstrings or `.items` of a dict."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=word) | ast.arg(arg=word):
                yield word, node.lineno
            case ast.Attribute(attr=word) if word != "items":
                yield word, node.lineno
            case ast.keyword(arg=str(word)):
                yield word, node.value.lineno
            case ast.Constant(value=str(text)) if id(node) not in docstrings:
                yield from ((word, node.lineno) for word in re.findall(r"\w+", text))
            case ast.ImportFrom(module=str(module)):
                yield from ((word, node.lineno) for word in module.split("."))


def test_the_library_names_no_table_or_column_of_a_slice() -> None:
    """Applications have other tables, so the library must not depend on those of a slice."""
    theirs = {one.name for one in app.resources} | {
        field for one in app.resources for field in one.new.__struct_fields__
    }
    theirs -= ENGLISH
    assert {"items", "users", "sku", "price", "owner_id", "email", "username"} <= theirs
    found, used = [], set()
    for name, tree in modules():
        room = name.partition(".")[0]
        if room in SLICES | VIEWS or name in BUILT_IN:
            continue
        for word, line in words_used(tree):
            allowed = [one for one in SHARED_WORDS if one[0] == word and one[1] in {room, name}]
            used |= {*allowed}
            if word in theirs and not allowed:
                found.append(f"{name}:{line}: {word}")
    assert found == []
    assert used == {*SHARED_WORDS}, "remove the unused entry of SHARED_WORDS"


def test_structs_import_only_msgspec_and_the_standard_library() -> None:
    for name, tree in modules():
        if name.endswith(".structs"):
            foreign = {one.split(".")[0] for one in imports(tree)} & {"service", "sqlalchemy"}
            assert not foreign, f"{name}: Structs must be usable without the rest of the service"


def test_base_http_middleware_is_not_used() -> None:
    """Starlette's BaseHTTPMiddleware needs a stream and a task group: 89 us per request."""
    for name, tree in modules():
        assert not any("BaseHTTPMiddleware" in one for one in imports(tree)), name


def test_files_have_at_most_300_lines() -> None:
    """A longer file has more than one topic: split it."""
    for path in PACKAGE.rglob("*.py"):
        lines = len(path.read_text().splitlines())
        name = str(path.relative_to(PACKAGE))
        assert lines <= 300, f"{name} has {lines} lines: split it"


def test_no_two_rooms_share_a_name() -> None:
    names = [Path(name.replace(".", "/")).name for name, _ in modules()]
    kernel = [name for name in names if name not in {"routes", "statements", "structs"}]
    twice = {a for a, b in itertools.combinations(sorted(kernel), 2) if a == b}
    assert not twice
