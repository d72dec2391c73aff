"""API keys as they travel: what a client may send, and what it gets back."""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

ID = Annotated[int, Meta(ge=1, le=2**63 - 1)]
Time = Annotated[datetime, Meta(tz=True)]
Name = Annotated[
    str,
    Meta(min_length=1, max_length=100, description="1 to 100 characters", examples=["laptop"]),
]
# The title names the enumeration in the OpenAPI document, and so in a generated client.
Scope = Annotated[Literal["read", "write", "admin"], Meta(title="Scope", examples=["read"])]
# In the order in which they are stored and shown.
SCOPES: tuple[Literal["read", "write", "admin"], ...] = ("read", "write", "admin")
# The maximum is generous, so that a scope given twice is no error.
# How the first part of a key looks, by which its owner recognizes it.
Prefix = Annotated[str, Meta(examples=["svc_live_4fRb0QxT"])]
Shown = Annotated[str, Meta(examples=["laptop"])]
Scopes = Annotated[list[Scope], Meta(min_length=1, max_length=10, examples=[["read"]])]


class NewKey(Struct, kw_only=True):
    """The body of POST; without `scopes` the key may read and write, if the key that makes it may.

    `expires_at` is in the future; null means that the key does not expire.
    """

    name: Name
    scopes: Scopes | None = None
    expires_at: Time | None = None


class KeyFields(Struct, kw_only=True):
    """The columns of a key by which the declaration derives its lists."""

    user_id: ID
    name: Name
    expires_at: Time | None = None


class Key(Struct, frozen=True):
    """A key in a response. Its secret is not stored, and the hash of the secret never shown.

    `prefix` is the beginning of the key, by which its owner recognizes it. `last_used_at` is
    written about once a minute.
    """

    id: int
    user_id: int
    name: Shown
    prefix: Prefix
    scopes: list[Scope]
    expires_at: Time | None
    last_used_at: Time | None
    created_at: Time


class IssuedKey(Struct, frozen=True):
    """A new key, with the whole `key`: this response is the only one that shows it."""

    id: int
    user_id: int
    name: Shown
    prefix: Prefix
    scopes: list[Scope]
    expires_at: Time | None
    last_used_at: Time | None
    created_at: Time
    key: Annotated[str, Meta(examples=["svc_live_4fRb0QxT_<the secret>"])]
