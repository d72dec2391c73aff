"""Users as they travel: what a client may send, and what it gets back."""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

# Plausible, no more: one @, no white space or control characters, a dot in the domain.
Email = Annotated[
    str,
    Meta(
        max_length=254,
        pattern=r"^[^@\s\x00-\x1f\x7f,;<>()\[\]\\]+@[^@\s\x00-\x1f\x7f,;<>()\[\]\\.]+(\.[^@\s\x00-\x1f\x7f,;<>()\[\]\\.]+)+$",
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
# Titles name the enumerations in the OpenAPI document, and so in a generated client.
Role = Annotated[Literal["user", "admin"], Meta(title="Role")]
Total = Annotated[Literal["exact", "estimated", "none"], Meta(title="Total")]
Status = Annotated[Literal["created", "updated", "unchanged"], Meta(title="UpsertStatus")]
Time = Annotated[datetime, Meta(tz=True)]
Search = Annotated[str, Meta(min_length=1, max_length=255)]
PageNumber = Annotated[int, Meta(ge=1, le=10**9)]
PageSize = Annotated[int, Meta(ge=1, le=100)]
Sort = Annotated[
    Literal["id", "-id", "created_at", "-created_at", "username", "-username"],
    Meta(title="UserSort"),
]


class NewUser(Struct):
    """What POST and PUT take."""

    email: Email
    username: Username
    full_name: FullName | None = None
    role: Role = "user"
    is_active: bool = True


class UserChange(Struct):
    """What PATCH takes: absent keeps, null clears."""

    email: Email | UnsetType = UNSET
    username: Username | UnsetType = UNSET
    full_name: FullName | UnsetType | None = UNSET
    role: Role | UnsetType = UNSET
    is_active: bool | UnsetType = UNSET


class User(Struct, frozen=True, gc=False):
    """A user as shown; the order of the fields is that of the columns in every statement."""

    id: int
    email: str
    username: str
    full_name: str | None
    role: Role
    is_active: bool
    version: int
    created_at: Time
    updated_at: Time | None


class NewUsers(Struct):
    """What PUT /users/bulk takes."""

    items: Annotated[list[NewUser], Meta(max_length=1000)]


class UpsertedUser(Struct, frozen=True, gc=False):
    """What became of a user who was given."""

    id: int
    email: str
    version: int
    status: Status


class UpsertedUsers(Struct, frozen=True):
    """How many became what, and each in the order in which they were given."""

    created: int
    updated: int
    unchanged: int
    items: list[UpsertedUser]


class UserSummary(Struct, frozen=True, gc=False):
    """A user in a list."""

    id: int
    email: str
    username: str
    full_name: str | None
    role: Role
    is_active: bool


class UserQuery(Struct, frozen=True):
    """The parameters of the list."""

    page: PageNumber | UnsetType = UNSET
    per_page: PageSize = 10
    cursor: str | UnsetType = UNSET
    sort: Sort = "id"
    total: Total | UnsetType = UNSET
    is_active: bool | UnsetType = UNSET
    role: Role | UnsetType = UNSET
    q: Search | UnsetType = UNSET


class DeleteQuery(Struct, frozen=True):
    """`permanent=true` removes the row; else it is only set inactive."""

    permanent: bool = False
