"""Notifications as clients see them."""

from datetime import datetime
from typing import Annotated

from msgspec import Meta, Raw, Struct
from msgspec.structs import force_setattr

ID = Annotated[int, Meta(ge=1, le=2**63 - 1)]
Time = Annotated[datetime, Meta(tz=True)]
# The text of the database goes into the response as it is. In jsonb's text a colon is followed by
# a space, so web/times.py, which looks for `"created_at":"`, finds no name inside of it.
JSONObject = Annotated[Raw, Meta(extra_json_schema={"type": "object", "examples": [{}]})]


class NotificationFields(Struct, kw_only=True):
    """The fields by which a list is filtered; no client creates a notification."""

    user_id: ID | None = None
    unread: bool


class Notification(Struct, frozen=True, gc=False):
    """What a user is told; `data` depends on the `kind`. `read_at` is null until it is read."""

    id: int
    user_id: int | None
    kind: Annotated[str, Meta(examples=["welcome"])]
    message: Annotated[str, Meta(examples=["Welcome, ada"])]
    data: JSONObject
    unread: bool
    read_at: Time | None
    created_at: Time

    def __post_init__(self) -> None:
        """Take `data` as the text that asyncpg returns for jsonb."""
        force_setattr(self, "data", Raw(self.data))


class ReadNotifications(Struct):
    """The body of the POST that marks several as read: all unread ones up to this id."""

    up_to: Annotated[ID, Meta(examples=[17])]


class NotificationsRead(Struct, frozen=True):
    """How many are marked as read by a request."""

    read: Annotated[int, Meta(examples=[3])]


class FoundNotification(Struct, frozen=True, gc=False):
    """A notification before it is marked as read, for the invalidation of cached lists."""

    id: int
    user_id: int | None
    unread: bool


class PostedNotification(Struct, frozen=True, gc=False):
    """What is posted to SERVICE_NOTIFY_URL: what never changes, so that no attempt differs."""

    id: int
    user_id: int | None
    kind: str
    message: str
    data: JSONObject
    created_at: Time

    def __post_init__(self) -> None:
        """Take `data` as the text that asyncpg returns for jsonb."""
        force_setattr(self, "data", Raw(self.data))
