"""HttpArena's CRUD profile on our kernel; class "tuned": prepared statements, a pool of our own.

    DATABASE_URL=… [REDIS_URL=…] granian --interface asgi bench.httparena.app:app

DATABASE_MAX_CONN bounds the connections of all WORKERS (1) together, SERVICE_POOL (4) of each.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from os import environ
from typing import Annotated, Any, NamedTuple

import sqlalchemy as sa
from msgspec import Meta, Raw, Struct, structs
from sqlalchemy.dialects.postgresql import JSONB, insert

from service.cache.generations import TableTags, Tags
from service.cache.store import Cache
from service.cache.writer import Writer
from service.db.database import Database
from service.db.statement import Statement, binds
from service.errors import NotFound
from service.settings import Settings
from service.web.body import Body
from service.web.codec import Query, Reply, encode
from service.web.endpoint import Operation
from service.web.request import Request
from service.web.routing import Paths

CACHED_SECONDS, CACHED_BYTES = 0.2, 2**26

Int = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]


class Change(Struct):
    name: str
    price: Int
    quantity: Int


class New(Change):
    id: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    category: str


class ListQuery(Struct):
    category: str
    page: Annotated[int, Meta(ge=1, le=10**9)] = 1
    limit: Annotated[int, Meta(ge=1, le=50)] = 10


class Rating(Struct, gc=False):
    score: int
    count: int


class Item(Struct, gc=False):
    id: int
    name: str
    category: str
    price: int
    quantity: int
    active: bool
    tags: Raw  # PostgreSQL's own text of the array, never read
    rating: Rating


def item(*row: Any) -> Item:
    return Item(*(*row[:6], Raw(row[6]), Rating(*row[7:])))


items = sa.Table(
    "items",
    sa.MetaData(),
    sa.Column("id", sa.BigInteger),
    *(sa.Column(name, sa.Text) for name in ("name", "category")),
    *(sa.Column(name, sa.Integer) for name in ("price", "quantity")),
    sa.Column("active", sa.Boolean),
    sa.Column("tags", JSONB),
    *(sa.Column(name, sa.Integer) for name in ("rating_score", "rating_count")),
)
this = items.c.id == sa.bindparam("id")
by_id = Statement("crud.by_id", item, sa.select(items).where(this))
changed = sa.update(items).where(this).values(binds(Change, items))
change = Statement("crud.change", int, changed.returning(items.c.id))
listed = sa.select(items).where(items.c.category == sa.bindparam("category")).order_by(items.c.id)
limit, offset = (sa.bindparam(name, type_=sa.BigInteger) for name in ("limit", "offset"))
page = Statement("crud.page", item, listed.limit(limit).offset(offset))
rest: dict[str, Any] = {"active": sa.true(), "tags": sa.literal_column("'[]'")}
rest |= dict.fromkeys(("rating_score", "rating_count"), sa.literal_column("0"))
added = insert(items).values(**binds(New, items), **rest)
again = {name: added.excluded[name] for name in ("name", "category", "price", "quantity")}
upsert = added.on_conflict_do_update(index_elements=["id"], set_=again)
add = Statement("crud.add", item, upsert.returning(*items.c))

new_item, item_change, list_query = Body(New), Body(Change), Query(ListQuery)


class Key(NamedTuple):
    id: int


tags = TableTags("crud", "id")


def cache_tags(request: Request) -> Tags:
    return tags.listed(Key(request.row_id()))


async def read_item(request: Request) -> Reply:
    found = await by_id.get(request.db, request.row_id())
    if found is None:
        raise NotFound("there is no such item")
    return Reply(encode(found))


async def change_item(request: Request) -> Reply:
    values = {"id": request.row_id(), **structs.asdict(await request.body(item_change))}
    if await write(request, change, values) is None:
        raise NotFound("there is no such item")
    return Reply(encode(values))


async def list_items(request: Request) -> Reply:
    query = structs.asdict(request.query(list_query))
    query["offset"] = (query["page"] - 1) * query["limit"]
    found = [item(*record) for record in await page.records(request.db, **query)]
    shown = {"items": found, "total": len(found), "page": query["page"], "limit": query["limit"]}
    return Reply(encode(shown))


async def create_item(request: Request) -> Reply:
    values = structs.asdict(await request.body(new_item))
    return Reply(encode(await write(request, add, values)), 201)


async def write(request: Request, statement: Statement[Any], values: dict[str, Any]) -> Any:
    changed = tags.listed(Key(values["id"]))
    return await request.write(lambda db: statement.one(db, **values), lambda _: changed)


@asynccontextmanager
async def lifespan(_: object) -> AsyncIterator[dict[str, Any]]:
    settings = Settings.load()
    most = int(environ.get("DATABASE_MAX_CONN") or 256) // int(environ.get("WORKERS") or 1)
    size = max(1, min(most, 4 if settings.pool == "none" else settings.pool))
    db = Database(settings.required_database_url, size=size, statements=(by_id, change, page, add))
    await db.open()
    cache = Cache(
        db.pool.url,
        settings.shared_redis_url,
        limit=CACHED_BYTES,
        ttl=CACHED_SECONDS,
        fingerprint="crud",
    )
    await cache.open()
    state = {"db": db, "settings": settings, "cache": cache, "writer": Writer(db, cache)}
    yield {**state, "guard": None, "metrics": None, "tracer": None}
    await cache.close()
    await db.close()


THIS = "/crud/items/{id}"
operations = [
    Operation("GET", THIS, read_item, "Read an item", cache_tags=cache_tags, share=lambda _: True),
    Operation("PUT", THIS, change_item, "Change an item"),
    Operation("GET", "/crud/items", list_items, "List a category", query=ListQuery),
    Operation("POST", "/crud/items", create_item, "Create an item"),
]
app = Paths(operations, lifespan=lifespan)
