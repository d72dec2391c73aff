"""Every statement the users run, in the order of their routes."""

from typing import Any

from sqlalchemy import Text, bindparam, insert, literal_column, not_, or_, select

from service.db.keyset import Bound, Choice, Listing, containing
from service.db.statement import Statement, binds, columns
from service.db.writes import Write, changing, deactivating, removing, replacing
from service.tables import username, users
from service.users.structs import NewUser, User, UserChange, UserSummary

user = columns(User, users)

add = Statement(
    "users.add",
    User,
    insert(users).values(binds(NewUser, users)).returning(*user),
    order=NewUser.__struct_fields__,
)

by_id = Statement(
    "users.by_id", User, select(*user).where(users.c.id == bindparam("id")), order=("id",)
)

replace = Write("users.replace", User, users, replacing(users, NewUser))
change = Write("users.change", User, users, changing(users, UserChange))
deactivate = Write("users.deactivate", User, users, deactivating(users))
remove = Write("users.remove", User, users, removing(users))

_pattern = bindparam("q", type_=Text)
listing = Listing(
    "users",
    UserSummary,
    users,
    keys={"id": users.c.id, "created_at": users.c.created_at, "username": username},
    filters={
        "is_active": Choice({True: users.c.is_active.is_(True), False: not_(users.c.is_active)}),
        "role": Choice(
            {role: users.c.role == literal_column(f"'{role}'") for role in ("user", "admin")}
        ),
        "q": Bound(
            or_(
                *(
                    column.ilike(_pattern, escape="\\")
                    for column in (users.c.username, users.c.email, users.c.full_name)
                )
            ),
            containing,
        ),
    },
)

writes: tuple[Write[Any], ...] = (replace, change, deactivate, remove)
hot: tuple[Statement[Any], ...] = (
    add,
    by_id,
    *(half for write in writes for half in (write.plain, write.guarded)),
)
