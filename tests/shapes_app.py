"""An application with a resource of each shape; its tables are made by test_conformance.py."""

import sys
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal
from uuid import UUID

from msgspec import Meta, Struct
from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Identity,
    Index,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    collate,
    func,
    text,
)

from service.app import create_app
from service.errors import NotAllowed
from service.items import items
from service.resource import ID, Resource
from service.settings import Settings
from service.users import users
from service.web.codec import Reply, encode
from service.web.endpoint import Operation
from service.web.request import Request

sys.path.insert(0, str(Path(__file__).parent.parent / "examples" / "notes"))
from notes import notes


class NewTag(Struct):
    """Neither version, times, key nor soft delete; names that our own code has too."""

    n: int
    key: str
    soft: bool = True
    tags: str | None = None
    request: str | None = None
    changed: int = 0
    statement: int = 0
    limit: int = 0


tags = Resource(
    "tags", NewTag, versioned=False, stamped=False, sorts=("n", "key", "limit"), referenced=True
)


class NewMeasure(Struct, kw_only=True):
    """A field of each type, null or not, with every kind of filter."""

    sensor_id: ID
    code: Annotated[str, Meta(max_length=20, examples=["Ab"])]
    kind: Literal["warm", "cold", "wet"] = "cold"
    count: int | None = None
    level: float = 0.5
    exact: Decimal | None = None
    taken_at: datetime | None = None
    day: date | None = None
    device: UUID | None = None
    is_active: bool = True


measures = Resource(
    "measures",
    NewMeasure,
    key="code",
    folded=("code",),
    sorts=("count", "level", "exact", "taken_at", "day", "device"),
    filters=(
        "is_active",
        "kind",
        "sensor_id",
        "device",
        "count",
        "min_level",
        "max_level",
        "min_taken_at",
        "max_day",
    ),
    search=("code",),
    references={"sensor_id": tags},
    under=("sensor_id",),
    changes=True,
)


class NewOrder(Struct, kw_only=True):
    """A table by hand under another path, with names of its own for what we keep."""

    number: Annotated[str, Meta(max_length=30)]
    remark: str | None = None


_table = Table(
    "order_lines",
    MetaData(),
    Column("id", BigInteger, Identity(always=True), nullable=False),
    Column("number", Text, nullable=False),
    Column("remark", Text),
    Column("revision", BigInteger, nullable=False, server_default=text("1")),
    Column("changed_at", DateTime(timezone=True)),
    PrimaryKeyConstraint("id", name="order_lines_pkey"),
    UniqueConstraint("number", name="order_lines_number_key"),
    info={"shape": {"version": "revision", "updated": "changed_at"}},
)
Index(
    "order_lines_remark_idx", collate(func.coalesce(_table.c.remark, text("''")), "C"), _table.c.id
)


async def refuse(_: Request) -> Reply:
    """Orders are kept."""
    raise NotAllowed("orders are kept")


async def count_orders(request: Request) -> Reply:
    """How many there are."""
    return Reply(encode({"orders": await orders.count.only(request.db)}))


orders = Resource(
    "order_lines",
    NewOrder,
    table=_table,
    path="/v1/orders",
    key="number",
    sorts=("remark",),
    changes=True,
    without=("bulk_change", "delete"),
    handlers={"bulk_delete": refuse},
    extra=(Operation("GET", "/v1/orders/count", count_orders, "Count the orders"),),
)
app = create_app(
    Settings.load(),
    resources=(items, users, notes, tags, measures, orders),
    migrations=Path(__file__).parent / "no_migrations",
)
