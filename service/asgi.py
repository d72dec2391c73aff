"""The built-in application, for any ASGI server: items and users.

`granian --interface asgi service.asgi:app`, `uvicorn service.asgi:app`.
"""

import sys
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import service.items.bulk_routes as item_bulk
import service.items.routes as item_routes
import service.items.statements as item_statements
import service.users.routes as user_routes
import service.users.statements as user_statements
from service.app import create_app
from service.db.database import Database
from service.db.schema import Table
from service.db.statement import Statement
from service.items import transfer
from service.items.seed import Samples
from service.items.structs import ExportQuery, NewItem
from service.settings import Settings, SettingsError
from service.web.endpoint import Operation

PACKAGE = Path(__file__).parent
# In a checkout beside the package; in an installed wheel within it (pyproject.toml says so).
MIGRATIONS = next(
    path
    for path in (PACKAGE.parent / "sql" / "migrations", PACKAGE / "sql" / "migrations")
    if path.is_dir()
)


class Slice:
    """A hand-written slice with the attributes of a resource."""

    def __init__(self, name: str, about: str, module: Any, operations: Sequence[Operation]) -> None:
        self.name = name
        self.description = about
        self.module = module
        self.table: Table = module.listing.table
        self.operations = operations
        self.prepared: tuple[Statement[Any], ...] = module.prepared
        self.samples: Mapping[str, object] = {
            "max_price": Decimal(100),
            "min_price": Decimal(10),
            "owner_id": 1,
            "q": "%widget%",
            "role": "user",
        }
        self.new = NewItem
        self.stage = getattr(module, "stage", None)
        self.count = getattr(module, "count", None)
        self.import_ = None if self.stage is None else transfer.import_
        self.export = None if self.stage is None else self._export

    def statements(self) -> Iterator[Statement[Any]]:
        """Those of the listing."""
        yield from self.prepared
        yield from self.module.listing.samples()
        if self.stage is not None:
            yield self.module.count
            yield from self.stage.statements
            yield from self.module.exported.samples()

    def statement(self, name: str) -> Statement[Any]:
        """The statement of a name; KeyError for none."""
        for one in self.statements():
            if one.name == name:
                return one
        exported = getattr(self.module, "exported", None)
        if exported is not None and name.startswith(f"{exported.name}?"):
            found: Statement[Any] = exported.named(name)
            return found
        if name.startswith(f"{self.module.listing.name}."):
            found = self.module.listing.named(name)
            return found
        raise KeyError(name)

    def _export(
        self, db: Database, format_: Any, *, trailer: bool, name: str
    ) -> AsyncGenerator[bytes]:
        return transfer.export(db, ExportQuery(format=format_, trailer=trailer), name=name)


items = Slice(
    "items",
    "Things with a name and a price",
    item_statements,
    [*item_routes.routes, *item_bulk.routes],
)
users = Slice("users", "People, who may own items", user_statements, user_routes.routes)

try:
    settings = Settings.load()
except SettingsError as error:
    # The server would print a traceback around this one line.
    sys.exit(f"swiftlet: {error}")
app = create_app(
    settings,
    resources=(items, users),
    migrations=MIGRATIONS,
    title="Swiftlet",
    description="Items and Users over HTTP.",
    info={
        "contact": {"name": "Swiftlet"},
        "license": {"name": "MIT", "identifier": "MIT"},
    },
    seed=Samples(),
)
