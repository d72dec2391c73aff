"""Items as they travel: what a client may send, and what it gets back."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal, Self

from msgspec import UNSET, Meta, Struct, UnsetType

Name = Annotated[str, Meta(min_length=1, max_length=255, examples=["Widget"])]
SKU = Annotated[str, Meta(min_length=1, max_length=64, examples=["W-1"])]
ID = Annotated[int, Meta(ge=1, le=2**63 - 1)]
AnyID = Annotated[int, Meta(examples=[1])]
Time = Annotated[datetime, Meta(tz=True)]
Search = Annotated[str, Meta(min_length=1, max_length=255)]
PageNumber = Annotated[int, Meta(ge=1, le=10**9)]
PageSize = Annotated[int, Meta(ge=1, le=100)]
# Titles name the enumerations in the OpenAPI document, and so in a generated client.
Sort = Annotated[
    Literal["id", "-id", "created_at", "-created_at", "name", "-name", "price", "-price"],
    Meta(title="ItemSort"),
]
Total = Annotated[Literal["exact", "estimated", "none"], Meta(title="Total")]
Role = Annotated[Literal["user", "admin"], Meta(title="Role")]
Status = Annotated[Literal["created", "updated", "unchanged"], Meta(title="UpsertStatus")]
Format = Annotated[Literal["ndjson", "csv"], Meta(title="FileFormat")]
OnError = Annotated[Literal["abort", "skip"], Meta(title="OnError")]
Include = Annotated[Literal["owner"], Meta(title="ItemInclude")]


class Price(Decimal):
    """An exact price, 0 <= p < 10**10 with at most 4 decimals, without trailing zeros."""

    LIMIT: ClassVar = Decimal(10**10)
    STEP: ClassVar = Decimal("0.0001")
    SCHEMA: ClassVar[dict[str, Any]] = {
        "type": "number",
        "minimum": 0,
        "exclusiveMaximum": 10**10,
        "examples": [29.99],
    }

    @classmethod
    def parse(cls, value: object) -> Self:
        """From a number as it came, unrounded: an int, or a Decimal of its digits.

        Raises:
            ValueError: not a number, out of range, or too many decimals.
        """
        if isinstance(value, bool) or not isinstance(value, int | Decimal):
            kind = type(value).__name__
            got = {"dict": "object", "list": "array"}.get(kind, kind)  # as msgspec calls them
            raise ValueError(f"Expected `number`, got `{got}`")  # noqa: TRY004 - msgspec's convention
        if not 0 <= value < cls.LIMIT:
            raise ValueError("Expected `number` >= 0 and < 10000000000")
        exact = Decimal(value)
        rounded = exact.quantize(cls.STEP)
        if rounded != exact:
            raise ValueError("Expected `number` with at most 4 decimals")
        plain = rounded.normalize()
        # normalize() writes 100 as 1E+2; PostgreSQL and people read 100.
        return cls(plain if plain.as_tuple().exponent <= 0 else plain.quantize(Decimal(1)))  # type: ignore[operator]  # finite, so the exponent is an int


class NewItem(Struct, kw_only=True):
    """What POST and PUT take."""

    sku: SKU | None = None
    name: Name
    description: Annotated[str, Meta(examples=["A useful widget"])] | None = None
    price: Price | None = None
    is_active: bool = True
    owner_id: ID | None = None


class ItemChange(Struct):
    """What PATCH takes: absent keeps, null clears."""

    sku: SKU | UnsetType | None = UNSET
    name: Name | UnsetType = UNSET
    description: str | UnsetType | None = UNSET
    price: Price | UnsetType | None = UNSET
    is_active: bool | UnsetType = UNSET
    owner_id: ID | UnsetType | None = UNSET


class Item(Struct, frozen=True, gc=False):
    """An item as it is shown; the order of the fields is that of the columns in every statement."""

    id: int
    sku: str | None
    name: str
    description: str | None
    price: Decimal | None
    is_active: bool
    owner_id: int | None
    version: int
    created_at: Time
    updated_at: Time | None


class KeyedItem(NewItem, kw_only=True):
    """An item to upsert: by its sku."""

    sku: SKU


class NewItems(Struct):
    """What POST /items/bulk takes."""

    items: Annotated[list[NewItem], Meta(max_length=1000)]


class KeyedItems(Struct):
    """What PUT /items/bulk takes."""

    items: Annotated[list[KeyedItem], Meta(max_length=1000)]


class ItemsChange(Struct):
    """What PATCH /items/bulk takes: one change for all; ids that no row can have are missing."""

    ids: Annotated[list[AnyID], Meta(max_length=1000)]
    set: ItemChange


class ItemsDelete(Struct):
    """What POST /items/bulk/delete takes."""

    ids: Annotated[list[AnyID], Meta(max_length=1000)]
    permanent: bool = False


class Items(Struct, frozen=True):
    """The items that were made, in the order in which they were given."""

    items: list[Item]


class UpsertedItem(Struct, frozen=True, gc=False):
    """What became of an item that was given."""

    id: int
    sku: str
    version: int
    status: Status


class UpsertedItems(Struct, frozen=True):
    """How many became what, and each in the order in which it was given."""

    created: int
    updated: int
    unchanged: int
    items: list[UpsertedItem]


class ItemsChanged(Struct, frozen=True):
    """How many were changed, and the ids of which there is no item."""

    updated: int
    missing: list[int]


class ItemsDeleted(Struct, frozen=True):
    """How many were deleted, and the ids of which there is no item."""

    deleted: int
    missing: list[int]


class Owner(Struct, frozen=True, gc=False):
    """The user behind `owner_id`."""

    id: int
    email: str
    username: str
    full_name: str | None
    role: Role
    is_active: bool


class ListedItem(Item, frozen=True, gc=False):
    """An item in a list; `owner` only with `include=owner`, and null where nobody owns it."""

    owner: Owner | UnsetType | None = UNSET


class OwnedItemQuery(Struct, frozen=True):
    """The parameters of a user's items."""

    page: PageNumber | UnsetType = UNSET
    per_page: PageSize = 10
    cursor: str | UnsetType = UNSET
    sort: Sort = "id"
    total: Total | UnsetType = UNSET
    is_active: bool | UnsetType = UNSET
    q: Search | UnsetType = UNSET
    min_price: Price | UnsetType = UNSET
    max_price: Price | UnsetType = UNSET


class ItemQuery(OwnedItemQuery, frozen=True):
    """The parameters of the list."""

    owner_id: ID | UnsetType = UNSET
    include: Include | UnsetType = UNSET


class ExportQuery(Struct, frozen=True):
    """The parameters of an export: the filters of the list, and what the file is to be."""

    format: Format = "ndjson"
    trailer: bool = False
    is_active: bool | UnsetType = UNSET
    q: Search | UnsetType = UNSET
    owner_id: ID | UnsetType = UNSET
    min_price: Price | UnsetType = UNSET
    max_price: Price | UnsetType = UNSET


class ImportQuery(Struct, frozen=True):
    """What becomes of a file of which lines are wrong: nothing is written, or they are skipped."""

    on_error: OnError = "abort"


class DeleteQuery(Struct, frozen=True):
    """`permanent=true` removes the row; else it is only set inactive."""

    permanent: bool = False
