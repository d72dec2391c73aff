"""Every statement the users run, in the order of their routes."""

from typing import Any

from sqlalchemy import literal_column, not_

from service.cache.generations import TableTags
from service.db.batch import BatchLoader, GroupCommit
from service.db.bulk import Upsert, taken
from service.db.filters import Choice, FilterIndex, search
from service.db.keyset import Listing
from service.db.statement import Statement
from service.db.writes import Writes
from service.db.schema import totals
from service.users.tables import username, users
from service.users.structs import NewUser, User, UserChange, UserSummary

# What cached answers depend on.
tags = TableTags("users", "role", "is_active")

add = GroupCommit("users.add", User, users, NewUser, key="email", folded=True)
by_id = BatchLoader("users.by_id", User, users)
writes = Writes("users", User, users, NewUser, UserChange)
upsert = Upsert("users.upsert", users, NewUser, "email", folded=True)
# Where among many rows the one is that PostgreSQL has refused, by its field.
conflict_locators = {
    "username": taken("users.username_taken", users, "username", folded=True, key="email")
}

listing = Listing(
    "users",
    UserSummary,
    users,
    keys={"id": users.c.id, "created_at": users.c.created_at, "username": username},
    filters={
        "is_active": Choice(
            {True: users.c.is_active.is_(True), False: not_(users.c.is_active)},
            {False: FilterIndex("users_inactive_idx", "id")},
        ),
        "role": Choice(
            {role: users.c.role == literal_column(f"'{role}'") for role in ("user", "admin")},
            {"admin": FilterIndex("users_admin_idx", "id")},
        ),
        "q": search("users_search_idx", users.c.username, users.c.email, users.c.full_name),
    },
    totals=totals,
)

prepared: tuple[Statement[Any], ...] = (
    *add.prepared,
    *by_id.prepared,
    *writes.prepared,
    *upsert.prepared,
    *conflict_locators.values(),
)
