"""Users: people, who may own items."""

from service.resource import Resource
from service.users.structs import NewUser, User, UserSummary

users = Resource(
    "users",
    NewUser,
    row=User,
    summary=UserSummary,
    description="People, who may own items",
    key="email",
    folded=("email", "username"),
    sorts=("username",),
    filters=("is_active", "role"),
    search=("username", "email", "full_name"),
    referenced=True,
    owner="id",
    private=True,
    admin_fields=("role",),
    admin_only=("create", "upsert"),
    fillfactor=None,
    without=("bulk_create", "bulk_change", "bulk_delete", "import", "export"),
)
