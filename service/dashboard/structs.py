"""The figures of a dashboard."""

from decimal import Decimal
from typing import Annotated

from msgspec import Meta, Struct

Number = Annotated[int, Meta(examples=[3])]


class DashboardStats(Struct, frozen=True, gc=False):
    """How many items a user has; `total_price` is the sum of the prices of the active ones."""

    items: Number
    active_items: Number
    total_price: Decimal
    unread_notifications: Number
