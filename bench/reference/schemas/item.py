"""Items at the edge: what a client may send, and what it gets back."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

SHARED = ConfigDict(
    validate_assignment=False,
    validate_default=False,
    str_strip_whitespace=True,
    extra="ignore",
)

Name = Annotated[str, Field(min_length=1, max_length=255)]
# Decimal on the way in: asyncpg would write the float 29.99 with all the digits of its binary form.
Price = Annotated[Decimal, Field(ge=0, lt=10**10, decimal_places=4)]


class ItemCreate(BaseModel):
    model_config = SHARED

    name: Name
    description: str | None = None
    price: Price | None = None
    is_active: bool = True


class ItemUpdate(BaseModel):
    model_config = SHARED

    name: Name | None = None
    description: str | None = None
    price: Price | None = None
    is_active: bool | None = None


class ItemRead(BaseModel):
    model_config = ConfigDict(**SHARED, from_attributes=True)

    id: int
    name: str
    description: str | None
    price: float | None
    is_active: bool
    created_at: datetime
    updated_at: datetime | None


class ItemPage(BaseModel):
    model_config = ConfigDict(**SHARED, from_attributes=True)

    items: list[ItemRead]
    total: int
    page: int
    per_page: int
