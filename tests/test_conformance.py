"""Every resource, ours and those of each other shape, passes the tests that a user's can run."""

import asyncio
from collections.abc import Callable, Iterator

import asyncpg
import pytest
from shapes_app import app
from sqlalchemy.schema import CreateIndex, CreateTable

from service.conformance import Conformance
from service.conformance.served import Served, serving
from service.db.schema import functions, triggers
from service.db.statement import DIALECT
from service.embedded.data_directory import Stores


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
