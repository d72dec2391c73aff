"""Starlette and asyncpg as they are commonly put together.

    granian --interface asgi --loop uvloop bench.opponents.starlette_asyncpg:app

Bodies are checked by msgspec, which decodes and checks in one step; ours does the same, so the
comparison is not one of validators. Answers are written by orjson, in the response class that
Starlette's documentation shows.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypedDict

import asyncpg
import msgspec
import orjson
from msgspec import Meta, Struct
from starlette import requests
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bench.opponents.store import REFUSED, Items, connected
from bench.opponents.structs import ItemChange, NewItem


class State(TypedDict):
    items: Items


Request = requests.Request[State]


class OrjsonResponse(JSONResponse):
    def render(self, content: Any) -> bytes:
        return orjson.dumps(content)


class ListQuery(Struct):
    page: Annotated[int, Meta(ge=1)] = 1
    per_page: Annotated[int, Meta(ge=1, le=100)] = 10
    is_active: bool | None = None
    q: Annotated[str, Meta(min_length=1, max_length=255)] | None = None


class DeleteQuery(Struct):
    permanent: bool = False


new_item = msgspec.json.Decoder(NewItem)
item_change = msgspec.json.Decoder(ItemChange)


async def read_item(request: Request) -> Response:
    return shown(await request.state["items"].get(item_id(request)))


async def list_items(request: Request) -> Response:
    query = msgspec.convert(dict(request.query_params), ListQuery, strict=False)
    rows, total = await request.state["items"].find(
        page=query.page, per_page=query.per_page, is_active=query.is_active, q=query.q
    )
    page = {"total": total, "page": query.page, "per_page": query.per_page}
    return OrjsonResponse({"items": [dict(row) for row in rows], **page})


async def create_item(request: Request) -> Response:
    new = new_item.decode(await request.body())
    added = await request.state["items"].add(*msgspec.structs.astuple(new))
    return OrjsonResponse(dict(added), 201)


async def replace_item(request: Request) -> Response:
    new = new_item.decode(await request.body())
    replaced = request.state["items"].replace(item_id(request), *msgspec.structs.astuple(new))
    return shown(await replaced)


async def change_item(request: Request) -> Response:
    change = item_change.decode(await request.body())
    values = msgspec.to_builtins(change)  # leaves out what is unset
    return shown(await request.state["items"].change(item_id(request), values))


async def delete_item(request: Request) -> Response:
    query = msgspec.convert(dict(request.query_params), DeleteQuery, strict=False)
    if not query.permanent:
        return shown(await request.state["items"].deactivate(item_id(request)))
    if not await request.state["items"].remove(item_id(request)):
        raise HTTPException(404, "Item not found")
    return Response(status_code=204)


async def health(_: Request) -> Response:
    return OrjsonResponse({"message": "healthy"})


def item_id(request: Request) -> int:
    try:
        return int(request.path_params["item_id"])
    except ValueError:
        raise HTTPException(422, "The id is not an integer") from None


def shown(item: asyncpg.Record | None) -> Response:
    if item is None:
        raise HTTPException(404, "Item not found")
    return OrjsonResponse(dict(item))


async def invalid(_: requests.Request, error: Exception) -> Response:
    return OrjsonResponse({"detail": str(error)}, 422)


async def failed(_: requests.Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return OrjsonResponse({"detail": error.detail}, error.status_code)


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[State]:
    async with connected() as items:
        yield {"items": items}


app = Starlette(
    routes=[
        Route("/items/{item_id}", read_item),
        Route("/items", list_items),
        Route("/items", create_item, methods=["POST"]),
        Route("/items/{item_id}", replace_item, methods=["PUT"]),
        Route("/items/{item_id}", change_item, methods=["PATCH"]),
        Route("/items/{item_id}", delete_item, methods=["DELETE"]),
        Route("/health", health),
    ],
    exception_handlers={
        HTTPException: failed,
        msgspec.MsgspecError: invalid,
        UnicodeDecodeError: invalid,  # msgspec's, for a body that is not UTF-8
        **dict.fromkeys(REFUSED, invalid),
    },
    lifespan=lifespan,
)
