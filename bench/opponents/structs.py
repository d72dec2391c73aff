"""Items as msgspec decodes and encodes them, for the opponents that use it."""

from datetime import datetime
from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

Price = Annotated[float, Meta(ge=0, lt=10**10)]


class NewItem(Struct):
    """What POST and PUT take."""

    name: str
    description: str | None = None
    price: Price | None = None
    is_active: bool = True

    def __post_init__(self) -> None:
        self.name = name(self.name)
        if self.description is not None:
            self.description = self.description.strip()


class ItemChange(Struct):
    """What PATCH takes: what is absent stays unset."""

    name: str | UnsetType = UNSET
    description: str | UnsetType | None = UNSET
    price: Price | UnsetType | None = UNSET
    is_active: bool | UnsetType = UNSET

    def __post_init__(self) -> None:
        if self.name is not UNSET:
            self.name = name(self.name)
        if isinstance(self.description, str):
            self.description = self.description.strip()


class Item(Struct):
    """What the client gets; the order is that of the columns."""

    id: int
    name: str
    description: str | None
    price: float | None
    is_active: bool
    created_at: datetime
    updated_at: datetime | None


class Page(Struct):
    items: list[Item]
    total: int
    page: int
    per_page: int


def name(given: str) -> str:
    """Without the white space around it, which does not count.

    Raises:
        ValueError: too short or too long; msgspec makes it a ValidationError.
    """
    stripped = given.strip()
    if not 1 <= len(stripped) <= 255:
        raise ValueError("Expected `str` of length 1 to 255")
    return stripped
