"""BlackSheep and asyncpg: bodies bound to Pydantic models, JSON by orjson, as it recommends both.

granian --interface asgi --loop uvloop bench.opponents.blacksheep_asyncpg:app
"""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import asyncpg
import orjson
from blacksheep import Application, FromJSON, Request, Response, json, not_found
from blacksheep.exceptions import BadRequest
from blacksheep.settings.json import json_settings
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bench.opponents.store import REFUSED, Items, connected

Name = Annotated[str, Field(min_length=1, max_length=255)]
Price = Annotated[float, Field(ge=0, lt=10**10)]


class NewItem(BaseModel):
    model_config = ConfigDict(str_strip_whitespace=True)

    name: Name
    description: str | None = None
    price: Price | None = None
    is_active: bool = True


class ItemChange(BaseModel):
    """Told from each other by `exclude_unset`: absent, and null."""

    model_config = ConfigDict(str_strip_whitespace=True)

    name: Name = ""
    description: str | None = None
    price: Price | None = None
    is_active: bool = True


def dumps(value: Any) -> str:
    return orjson.dumps(value).decode()


json_settings.use(loads=orjson.loads, dumps=dumps)  # type: ignore[no-untyped-call]  # it has no annotations
app = Application()


@app.lifespan  # type: ignore[untyped-decorator]  # it has no annotations
async def pool(application: Application) -> AsyncIterator[None]:
    async with connected() as items:
        application.services.register(Items, instance=items)
        yield


@app.router.get("/items/{item_id}")
async def read_item(item_id: int, items: Items) -> Response:
    return shown(await items.get(item_id))


@app.router.get("/items")
async def list_items(
    request: Request,
    items: Items,
    page: int = 1,
    per_page: int = 10,
    is_active: bool | None = None,
) -> Response:
    # Not bound: the binder would decode a `%41` in the text once more. An empty one is no
    # parameter to BlackSheep.
    q = request.query.get("q", [None])[0]
    if page < 1 or not 1 <= per_page <= 100 or (q is not None and not 1 <= len(q) <= 255):
        raise BadRequest("page, per_page or q is out of bounds")
    rows, total = await items.find(page=page, per_page=per_page, is_active=is_active, q=q)
    found = [dict(row) for row in rows]
    return json({"items": found, "total": total, "page": page, "per_page": per_page})


@app.router.post("/items")
async def create_item(data: FromJSON[NewItem], items: Items) -> Response:
    new = data.value
    added = await items.add(new.name, new.description, new.price, new.is_active)
    return json(dict(added), 201)


@app.router.put("/items/{item_id}")
async def replace_item(item_id: int, data: FromJSON[NewItem], items: Items) -> Response:
    new = data.value
    replaced = await items.replace(item_id, new.name, new.description, new.price, new.is_active)
    return shown(replaced)


@app.router.patch("/items/{item_id}")
async def change_item(item_id: int, request: Request, items: Items) -> Response:
    # Not bound: for the binder, `{}` is a missing body.
    change = ItemChange.model_validate_json(await request.read() or b"")
    return shown(await items.change(item_id, change.model_dump(exclude_unset=True)))


@app.router.delete("/items/{item_id}")
async def delete_item(item_id: int, items: Items, permanent: bool = False) -> Response:
    if not permanent:
        return shown(await items.deactivate(item_id))
    if not await items.remove(item_id):
        return not_found({"detail": "Item not found"})
    return Response(204)


@app.router.get("/health")
async def health() -> Response:
    return json({"message": "healthy"})


def shown(item: asyncpg.Record | None) -> Response:
    if item is None:
        return not_found({"detail": "Item not found"})
    return json(dict(item))


async def refused(_: Application, __: Request, error: Exception) -> Response:
    return json({"detail": str(error)}, 400)


# The handler that BlackSheep has for ValidationError fails when the input is not UTF-8.
for kind in (*REFUSED, ValidationError):
    app.exceptions_handlers[kind] = refused
