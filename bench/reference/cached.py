"""The reference with Redis in front of its reads: cache-aside, each write forgets what it outdates.

    uvicorn bench.reference.cached:app --loop uvloop --http httptools --no-access-log

A hit is answered as it lies in Redis. The lists lie in the fields of one hash, so that a write
forgets all of them by one key: to look for keys by a pattern would go through every cached item.
A read that began before a write may still store what it saw; it stays for at most `TTL`.
"""

import os

from fastapi import APIRouter, Response
from redis.asyncio import Redis

from bench.reference.database import Database
from bench.reference.main import create_app
from bench.reference.models.item import Item
from bench.reference.routers import item as plain
from bench.reference.routers.item import ItemId, Page, PerPage, Search
from bench.reference.schemas.item import ItemCreate, ItemPage, ItemRead, ItemUpdate

TTL = 300
LISTS = "items:lists"

# The default pool, but for its limit: it refuses the 101st caller at once.
redis = Redis.from_url(os.environ["REDIS_URL"], max_connections=1000)
router = APIRouter(prefix="/items", tags=["items"])


@router.get("/{item_id}", response_model=ItemRead)
async def read_item(item_id: ItemId, db: Database) -> Response:
    kept = await redis.get(key(item_id))
    if kept is None:
        item = await plain.read_item(item_id, db)
        kept = ItemRead.model_validate(item).model_dump_json()
        await redis.set(key(item_id), kept, ex=TTL)
    return Response(kept, media_type="application/json")


@router.get("", response_model=ItemPage)
async def list_items(
    db: Database,
    page: Page = 1,
    per_page: PerPage = 10,
    is_active: bool | None = None,
    q: Search = None,
) -> Response:
    field = f"{page}:{per_page}:{is_active}:{q or ''}"
    kept = await redis.hget(LISTS, field)
    if kept is None:
        found = await plain.list_items(db, page, per_page, is_active, q)
        kept = ItemPage.model_validate(found).model_dump_json()
        async with redis.pipeline(transaction=False) as pipeline:
            pipeline.hset(LISTS, field, kept)
            pipeline.expire(LISTS, TTL, nx=True)
            await pipeline.execute()
    return Response(kept, media_type="application/json")


@router.post("", response_model=ItemRead, status_code=201)
async def create_item(body: ItemCreate, db: Database) -> Item:
    item = await plain.create_item(body, db)
    await redis.delete(LISTS)
    return item


@router.put("/{item_id}", response_model=ItemRead)
async def replace_item(item_id: ItemId, body: ItemCreate, db: Database) -> Item:
    item = await plain.replace_item(item_id, body, db)
    await forget(item_id)
    return item


@router.patch("/{item_id}", response_model=ItemRead)
async def change_item(item_id: ItemId, body: ItemUpdate, db: Database) -> Item:
    item = await plain.change_item(item_id, body, db)
    await forget(item_id)
    return item


@router.delete("/{item_id}", response_model=ItemRead)
async def delete_item(item_id: ItemId, db: Database, permanent: bool = False) -> Item | Response:
    answer = await plain.delete_item(item_id, db, permanent)
    await forget(item_id)
    return answer


async def forget(item_id: int) -> None:
    await redis.delete(key(item_id), LISTS)


def key(item_id: int) -> str:
    return f"items:{item_id}"


app = create_app(router)
