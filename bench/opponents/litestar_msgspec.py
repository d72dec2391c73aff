"""Litestar with msgspec Structs and an asyncpg pool, as its documentation has them.

    granian --interface asgi --loop uvloop bench.opponents.litestar_msgspec:app

Structs are Litestar's native models: it decodes, checks and encodes by msgspec itself.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import asyncpg
import msgspec
from litestar import Litestar, Request, Response, delete, get, patch, post, put
from litestar.datastructures import State
from litestar.exceptions import NotFoundException
from litestar.params import Parameter

from bench.opponents.store import REFUSED, Items, connected
from bench.opponents.structs import Item, ItemChange, NewItem, Page

# Litestar answers 404 for an `{item_id:int}` that is none; as a string it is converted, or a 400.
THIS = "/items/{item_id:str}"


@get(THIS)
async def read_item(item_id: int, state: State) -> Item:
    return shown(await items_of(state).get(item_id))


@get("/items")
async def list_items(
    state: State,
    page: Annotated[int, Parameter(ge=1)] = 1,
    per_page: Annotated[int, Parameter(ge=1, le=100)] = 10,
    is_active: bool | None = None,
    q: Annotated[str | None, Parameter(min_length=1, max_length=255)] = None,
) -> Page:
    rows, total = await items_of(state).find(page=page, per_page=per_page, is_active=is_active, q=q)
    return Page([Item(*row) for row in rows], total, page, per_page)


@post("/items")
async def create_item(data: NewItem, state: State) -> Item:
    return Item(*await items_of(state).add(*msgspec.structs.astuple(data)))


@put(THIS)
async def replace_item(item_id: int, data: NewItem, state: State) -> Item:
    return shown(await items_of(state).replace(item_id, *msgspec.structs.astuple(data)))


@patch(THIS)
async def change_item(item_id: int, data: ItemChange, state: State) -> Item:
    values = msgspec.to_builtins(data)  # leaves out what is unset
    return shown(await items_of(state).change(item_id, values))


@delete(THIS, status_code=200)
async def delete_item(item_id: int, state: State, permanent: bool = False) -> Response[Item | None]:
    if not permanent:
        return Response(shown(await items_of(state).deactivate(item_id)))
    if not await items_of(state).remove(item_id):
        raise NotFoundException("Item not found")
    return Response(None, status_code=204)


@get("/health")
async def health() -> dict[str, str]:
    return {"message": "healthy"}


def items_of(state: State) -> Items:
    store: Items = state.store
    return store


def shown(row: asyncpg.Record | None) -> Item:
    if row is None:
        raise NotFoundException("Item not found")
    return Item(*row)


def refused(_: Request[object, object, State], error: Exception) -> Response[dict[str, str]]:
    return Response({"detail": str(error)}, status_code=400)


@asynccontextmanager
async def lifespan(litestar: Litestar) -> AsyncIterator[None]:
    async with connected() as items:
        litestar.state.store = items
        yield


app = Litestar(
    [read_item, list_items, create_item, replace_item, change_item, delete_item, health],
    lifespan=[lifespan],
    # UnicodeDecodeError is msgspec's, for a body that is not UTF-8.
    exception_handlers=dict.fromkeys((*REFUSED, UnicodeDecodeError), refused),
)
