"""Items in the database. Knows mappings and models, nothing of Pydantic or HTTP."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from bench.reference.models.item import Item


class ItemCRUD:
    def __init__(self, db: AsyncSession) -> None:
        self.db = db

    async def get(self, item_id: int) -> Item | None:
        return await self.db.get(Item, item_id)

    async def find(
        self, *, offset: int, limit: int, is_active: bool | None, q: str | None
    ) -> tuple[Sequence[Item], int]:
        """The page's items, and how many there are on all pages."""
        where: list[ColumnElement[bool]] = []
        if is_active is not None:
            where.append(Item.is_active.is_(is_active))
        if q is not None:
            literal = q.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
            where.append(Item.name.ilike(f"%{literal}%", escape="\\"))
        page = select(Item).where(*where).order_by(Item.id).offset(offset).limit(limit)
        items = (await self.db.scalars(page)).all()
        total = await self.db.scalar(select(func.count()).select_from(Item).where(*where))
        return items, total or 0

    async def create(self, values: Mapping[str, Any]) -> Item:
        item = Item(**values)
        self.db.add(item)
        await self.db.commit()
        await self.db.refresh(item)
        return item

    async def update(self, item_id: int, values: Mapping[str, Any]) -> Item | None:
        item = await self.get(item_id)
        if item is None or not values:
            return item
        for name, value in values.items():
            setattr(item, name, value)
        item.updated_at = func.now()
        await self.db.commit()
        await self.db.refresh(item)
        return item

    async def deactivate(self, item_id: int) -> Item | None:
        return await self.update(item_id, {"is_active": False})

    async def remove(self, item_id: int) -> bool:
        item = await self.get(item_id)
        if item is None:
            return False
        await self.db.delete(item)
        await self.db.commit()
        return True
