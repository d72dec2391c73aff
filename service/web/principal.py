"""Who sent a request."""

from collections.abc import Callable, MutableMapping
from typing import Any, Literal

from msgspec import Struct

# What an operation needs: nothing, or a scope of the API key.
Access = Literal["open", "read", "write", "admin"]
Scope = Literal["read", "write", "admin"]
# Whether a response depends on the principal; a function of the scope of a request in ASGI.
Private = bool | Callable[[MutableMapping[str, Any]], bool]
# The viewer of an admin, see Principal.viewer.
ADMIN = "admin"


class Principal(Struct, frozen=True):
    """The user of an API key.

    Args:
        user_id: id of the user.
        key_id: id of the key.
        scopes: what the key may do.
        admin: whether the key has the scope `admin` and the user is an admin.
    """

    user_id: int
    key_id: int
    scopes: frozenset[Scope]
    admin: bool = False

    @property
    def id(self) -> int:
        """The id of the user, as log lines have it."""
        return self.user_id

    def may(self, access: Access) -> bool:
        """Return whether the key may do what needs this."""
        if self.admin or access == "open":
            return True
        return access != "admin" and access in self.scopes

    @property
    def owner(self) -> int | None:
        """The user to whose rows this principal is limited; None for an admin."""
        return None if self.admin else self.user_id

    @property
    def viewer(self) -> str:
        """The part of the cache key for responses that differ between principals.

        All admins see the same, any other user only their own rows.
        """
        return ADMIN if self.admin else str(self.user_id)


def owner_of(viewer: str) -> int | None:
    """Return the owner from a viewer; None for an admin, or if everyone sees the same."""
    return None if viewer in {"", ADMIN} else int(viewer)
