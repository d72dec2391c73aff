"""The items' handlers. What they return, FastAPI checks and writes by the response model."""

from typing import Annotated

from fastapi import APIRouter, HTTPException, Path, Query, Response

from bench.reference.crud.item import ItemCRUD
from bench.reference.database import Database
from bench.reference.dataclasses_.item import ItemData, ItemUpdateData
from bench.reference.models.item import Item
from bench.reference.schemas.item import ItemCreate, ItemPage, ItemRead, ItemUpdate

router = APIRouter(prefix="/items", tags=["items"])

ItemId = Annotated[int, Path(le=2**63 - 1)]
Page = Annotated[int, Query(ge=1, le=10**9)]
PerPage = Annotated[int, Query(ge=1, le=100)]
Search = Annotated[str | None, Query(min_length=1, max_length=255)]


@router.get("/{item_id}", response_model=ItemRead)
async def read_item(item_id: ItemId, db: Database) -> Item:
    return found(await ItemCRUD(db).get(item_id))


@router.get("", response_model=ItemPage)
async def list_items(
    db: Database,
    page: Page = 1,
    per_page: PerPage = 10,
    is_active: bool | None = None,
    q: Search = None,
) -> dict[str, object]:
    items, total = await ItemCRUD(db).find(
        offset=(page - 1) * per_page, limit=per_page, is_active=is_active, q=q
    )
    return {"items": items, "total": total, "page": page, "per_page": per_page}


@router.post("", response_model=ItemRead, status_code=201)
async def create_item(body: ItemCreate, db: Database) -> Item:
    return await ItemCRUD(db).create(ItemData(**body.model_dump()).to_dict())


@router.put("/{item_id}", response_model=ItemRead)
async def replace_item(item_id: ItemId, body: ItemCreate, db: Database) -> Item:
    values = ItemData(**body.model_dump()).to_dict()
    return found(await ItemCRUD(db).update(item_id, values))


@router.patch("/{item_id}", response_model=ItemRead)
async def change_item(item_id: ItemId, body: ItemUpdate, db: Database) -> Item:
    values = ItemUpdateData(**body.model_dump()).to_patch_dict()
    return found(await ItemCRUD(db).update(item_id, values))


@router.delete("/{item_id}", response_model=ItemRead)
async def delete_item(item_id: ItemId, db: Database, permanent: bool = False) -> Item | Response:
    if not permanent:
        return found(await ItemCRUD(db).deactivate(item_id))
    if not await ItemCRUD(db).remove(item_id):
        raise missing()
    return Response(status_code=204)


def found(item: Item | None) -> Item:
    if item is None:
        raise missing()
    return item


def missing() -> HTTPException:
    return HTTPException(404, "Item not found")
