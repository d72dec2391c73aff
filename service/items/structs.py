"""Items as they travel: what a client may send, and what it gets back."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal, Self

from msgspec import Meta, Struct

Name = Annotated[str, Meta(min_length=1, max_length=255, examples=["Widget"])]
SKU = Annotated[str, Meta(min_length=1, max_length=64, examples=["W-1"])]
ID = Annotated[int, Meta(ge=1, le=2**63 - 1)]
Time = Annotated[datetime, Meta(tz=True)]
Role = Annotated[Literal["user", "admin"], Meta(title="Role", examples=["user"])]


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
    # The bound above keeps NaN and Infinity out too: PostgreSQL sorts both above every number.
    CHECK: ClassVar = "{0} >= 0 AND {0} < 10000000000 AND {0} = round({0}, 4)"
    # No price reaches this, so it can stand for "no price" in an order.
    LAST: ClassVar = "10000000000"

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
    """The body of POST and PUT."""

    sku: SKU | None = None
    name: Name
    description: Annotated[str, Meta(examples=["A useful widget"])] | None = None
    price: Price | None = None
    is_active: bool = True
    owner_id: ID | None = None


class Item(Struct, frozen=True, gc=False):
    """An item in a response; the columns of every statement have the order of these fields."""

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


class Owner(Struct, frozen=True, gc=False):
    """The user behind `owner_id`."""

    id: int
    email: str
    username: str
    full_name: str | None
    role: Role
    is_active: bool
