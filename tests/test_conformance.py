"""Every resource, ours and those of each other shape, passes the tests that a user's can run."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from conftest import ROOT
from msgspec import Struct
from shapes_app import NewTag, app
from sqlalchemy.schema import CreateIndex, CreateTable

from service.conformance import Conformance
from service.conformance.served import Served, serving
from service.db.schema import functions, triggers
from service.db.statement import DIALECT
from service.embedded.data_directory import Stores
from service.resource import Resource


class TestEveryShape(Conformance):
    app = "shapes_app:app"

    @pytest.fixture(scope="class")
    @classmethod
    def served(
        cls,
        new_database: Callable[[], str],
        stores: Stores,
        tmp_path_factory: pytest.TempPathFactory,
    ) -> Iterator[Served]:
        url = new_database()
        asyncio.run(make_tables(url))
        directory = tmp_path_factory.mktemp("conformance")
        redis = stores.redis_url or "off"
        with serving(cls.app, directory, DATABASE_URL=url, REDIS_URL=redis) as one:
            yield one

    def test_an_operation_is_left_out_replaced_or_added(self, served: Served) -> None:
        path = "/v1/orders"
        assert served.client.patch(f"{path}/bulk", json={"ids": [], "set": {}}).status_code == 405
        assert served.client.delete(f"{path}/1").status_code == 405
        refused = served.client.post(f"{path}/bulk/delete", json={"ids": []})
        assert (refused.status_code, refused.json()["detail"]) == (405, "orders are kept")
        before = served.client.get(f"{path}/count").json()["orders"]
        served.client.post(path, json={"number": "one more"})
        assert served.client.get(f"{path}/count").json() == {"orders": before + 1}
        told = served.client.get("/openapi.json").json()["paths"]
        assert set(told[f"{path}/{{id}}"]) == {"get", "put", "patch"}
        assert told[f"{path}/count"]["get"]["operationId"] == "countOrders"


def test_a_user_runs_them_in_three_lines(tmp_path: Path) -> None:
    """On stores of its own, migrated by the application's migrations."""
    test = """
from service.conformance import Conformance
class TestNotes(Conformance):
    app = "notes:app"
"""
    (tmp_path / "test_notes.py").write_text(test)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_notes.py"]
    ran = subprocess.run(
        [*command, "-k", "returned_and_can_be_read"],
        cwd=tmp_path,
        # pytest closes the folder of its temporary files to others: not the one that we use.
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT / "examples" / "notes"),
            "PYTEST_DEBUG_TEMPROOT": str(tmp_path),
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "2 passed" in ran.stdout, ran.stdout + ran.stderr


class NewThing(Struct):
    """A body."""

    name: str
    parts: list[str] = []


@pytest.mark.parametrize(
    ("message", "options"),
    (
        ("'colour' is not a field", {"sorts": ("colour",)}),
        ("'colour' is not a field", {"filters": ("min_colour",)}),
        ("'colour' is not a field", {"key": "colour"}),
        ("can't be called 'limit'", {"filters": ("limit",)}),
        ("'n' in `under` must be in `references`", {"under": ("n",)}),
        ("needs 'box_id' in `references`", {"include": {"box": NewTag}}),
        ("'fly' is not an operation", {"without": ("fly",)}),
        ("'fly' is not an operation", {"handlers": {"fly": None}}),
    ),
)
def test_an_impossible_declaration_is_rejected(message: str, options: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=message):
        Resource("tags", NewTag, **options)


def test_a_field_without_a_column_is_refused() -> None:
    with pytest.raises(TypeError, match=r"NewThing.parts is list\[str\]: use one of str, bool"):
        Resource("things", NewThing)


async def make_tables(url: str) -> None:
    """As in code, without the indexes that need an extension."""
    connection = await asyncpg.connect(url)
    try:
        for table in app.tables:
            await connection.execute(str(CreateTable(table).compile(dialect=DIALECT)))
            for index in table.indexes:
                if not index.info.get("optional"):
                    await connection.execute(str(CreateIndex(index).compile(dialect=DIALECT)))
        for statement in (*functions(app.tables), *triggers(app.tables)):
            await connection.execute(statement.replace("{schema}", "public"))
    finally:
        await connection.close()
