"""Items between the edge and the database: plain, and without validation."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any


@dataclass(slots=True)
class ItemData:
    """All that a client decides about an item."""

    name: str
    description: str | None = None
    price: Decimal | None = None
    is_active: bool = True

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "description": self.description,
            "price": self.price,
            "is_active": self.is_active,
        }


@dataclass(slots=True)
class ItemUpdateData:
    """A change. None means "keep", so a PATCH cannot clear a field."""

    name: str | None = None
    description: str | None = None
    price: Decimal | None = None
    is_active: bool | None = None

    def to_patch_dict(self) -> dict[str, Any]:
        values = {
            "name": self.name,
            "description": self.description,
            "price": self.price,
            "is_active": self.is_active,
        }
        return {name: value for name, value in values.items() if value is not None}
