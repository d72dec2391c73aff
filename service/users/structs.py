"""Users as they travel: what a client may send, and what it gets back."""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

# Plausible, no more: one @, no white space or control characters, a dot in the domain. JavaScript's
# \s has U+FEFF and not U+0085: with both in the pattern, every reader of the document agrees.
Email = Annotated[
    str,
    Meta(
        max_length=254,
        pattern=r"^[^@\s\x00-\x1f\x7f-\x9f\ufeff,;<>()\[\]\\]+@[^@\s\x00-\x1f\x7f-\x9f\ufeff,;<>()\[\]\\.]+(\.[^@\s\x00-\x1f\x7f-\x9f\ufeff,;<>()\[\]\\.]+)+$",
        description="an address like ada@example.com",
        examples=["ada@example.com"],
    ),
]
Username = Annotated[
    str,
    Meta(
        min_length=3,
        max_length=50,
        pattern=r"^[A-Za-z0-9_.-]+$",
        description="letters A-Z and a-z, digits, or any of _ . -",
        examples=["ada"],
    ),
]
FullName = Annotated[str, Meta(min_length=1, max_length=200, examples=["Ada Lovelace"])]
# The title names the enumeration in the OpenAPI document, and so in a generated client.
Role = Annotated[Literal["user", "admin"], Meta(title="Role", examples=["user"])]
Time = Annotated[datetime, Meta(tz=True)]


class NewUser(Struct):
    """The body of POST and PUT."""

    email: Email
    username: Username
    full_name: FullName | None = None
    role: Role = "user"
    is_active: bool = True


class User(Struct, frozen=True, gc=False):
    """A user in a response; the columns of every statement have the order of these fields."""

    id: int
    email: str
    username: str
    full_name: str | None
    role: Role
    is_active: bool
    version: int
    created_at: Time
    updated_at: Time | None


class UserSummary(Struct, frozen=True, gc=False):
    """A user in a list."""

    id: int
    email: str
    username: str
    full_name: str | None
    role: Role
    is_active: bool
