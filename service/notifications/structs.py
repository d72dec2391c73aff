"""Notifications as clients see them."""

from datetime import datetime
from typing import Annotated, Any

from msgspec import Meta, Struct

Time = Annotated[datetime, Meta(tz=True)]


class NotificationFields(Struct, kw_only=True):
    """The fields by which a list is filtered; no client creates a notification."""

    user_id: int | None = None
    unread: bool = True


class Notification(Struct, frozen=True, gc=False):
    """A notification; `data` depends on its kind."""

    id: int
    user_id: int | None
    kind: Annotated[str, Meta(examples=["welcome"])]
    message: Annotated[str, Meta(examples=["Welcome, ada"])]
    data: Any
    unread: bool
    read_at: Time | None
    created_at: Time
