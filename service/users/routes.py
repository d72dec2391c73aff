"""The users' handlers, then their route list."""

from msgspec import structs

from service.cache.epochs import Slots
from service.db.changes import change_values, fields_set
from service.errors import Conflict, NotFound
from service.users import statements
from service.users.statements import facets
from service.users.structs import (
    DeleteQuery,
    NewUser,
    NewUsers,
    UpsertedUser,
    UpsertedUsers,
    User,
    UserChange,
    UserQuery,
    UserSummary,
)
from service.web import many, paging, rows
from service.web.body import Body
from service.web.endpoint import Operation
from service.web.request import BODY_PROBLEMS, Request
from service.web.wire import Query, Reply, encode

new_user = Body(NewUser)
new_users = Body(NewUsers)
user_change = Body(UserChange)
user_query = Query(UserQuery)
delete_query = Query(DeleteQuery)


class UserPage(paging.Page[UserSummary], frozen=True):
    """A page of users by number; `total` and `pages` are null with `total=none`."""


class UserCursorPage(paging.CursorPage[UserSummary], frozen=True):
    """A page of users by cursor; `total` only when asked for, `next_cursor` null at the end."""


async def list_users(request: Request) -> Reply:
    """By page (`page`, `per_page`), or by cursor: `cursor=` starts, and `next_cursor` goes on."""
    query = request.query(user_query)
    return await paging.show(request, await paging.find(request, statements.listing, query))


def list_depends(request: Request) -> Slots:
    return facets.listed(request.query(user_query))


def list_costly(request: Request) -> bool:
    return paging.costly(request.query(user_query), ("q", "role"))


async def create_user(request: Request) -> Reply:
    """`email` and `username` are unique without regard to case."""
    new = await request.body(new_user)
    return await rows.add(request, statements.add, facets, structs.astuple(new))


async def read_user(request: Request) -> Reply:
    """A user who was deleted without `permanent=true` is shown with `is_active: false`."""
    return await rows.read(request, statements.by_id)


def user_depends(request: Request) -> Slots:
    return facets.row(request.row_id())


async def replace_user(request: Request) -> Reply:
    """The user is replaced as a whole: optional fields that are missing take their default."""
    request.row_id()
    new = structs.asdict(await request.body(new_user))
    return rows.shown(await rows.write(request, statements.writes.replace, facets, new, **new))


async def change_user(request: Request) -> Reply:
    """A field that is absent stays, null clears it; `{}` changes nothing."""
    request.row_id()
    change = await request.body(user_change)
    values = change_values(change)
    if not values:
        return rows.shown(await rows.unchanged(request, statements.by_id))
    return rows.shown(
        await rows.write(request, statements.writes.change, facets, fields_set(change), **values)
    )


async def delete_user(request: Request) -> Reply:
    """The user stays, inactive; with `permanent=true` the user is gone, and the answer is 204.

    As long as the user owns items, that is refused with 409.
    """
    request.row_id()
    if request.query(delete_query).permanent:
        await rows.write(request, statements.writes.remove, facets)
        return Reply(status=204)
    return rows.shown(
        await rows.write(request, statements.writes.deactivate, facets, ("is_active",))
    )


async def upsert_users(request: Request) -> Reply:
    """A user whose email exists is replaced, any other is created: all of them, or none."""
    given = (await request.body(new_users)).items
    many.distinct(given, "email", "username", alike=folded)
    done = await many.upsert(request, statements.upsert, facets, given, statements.in_the_way)
    items = [
        UpsertedUser(one.id, user.email, one.version, one.status)
        for user, one in zip(given, done, strict=True)
    ]
    return Reply(encode(UpsertedUsers(**many.counted(done), items=items)))


def folded(text: str) -> str:
    """Alike for all that is alike to some lower() of PostgreSQL's, and so never two of one row."""
    return text.casefold().replace("\u0307", "").replace("\u0131", "i")  # of the Turkish I


THIS = "/users/{id}"
WRITE_FAILS = (*BODY_PROBLEMS, NotFound, Conflict)

routes = [
    Operation(
        "GET",
        THIS,
        read_user,
        "Read a user",
        gives=User,
        fails=(NotFound,),
        depends=user_depends,
    ),
    Operation(
        "GET",
        "/users",
        list_users,
        "List users, by page or by cursor",
        query=UserQuery,
        gives=(UserPage, UserCursorPage),
        depends=list_depends,
        costly=list_costly,
    ),
    Operation(
        "POST",
        "/users",
        create_user,
        "Create a user",
        takes=NewUser,
        gives=User,
        status=201,
        fails=(*BODY_PROBLEMS, Conflict),
    ),
    Operation(
        "PUT",
        THIS,
        replace_user,
        "Replace a user; what is missing takes its default",
        takes=NewUser,
        gives=User,
        fails=WRITE_FAILS,
    ),
    Operation(
        "PATCH",
        THIS,
        change_user,
        "Change a user; absent keeps, null clears",
        takes=UserChange,
        gives=User,
        fails=WRITE_FAILS,
    ),
    Operation(
        "DELETE",
        THIS,
        delete_user,
        "Set a user inactive, or with permanent=true remove it (204)",
        query=DeleteQuery,
        gives=User,
        fails=(NotFound, Conflict),
    ),
    Operation(
        "PUT",
        "/users/bulk",
        upsert_users,
        "Create or replace up to 1000 users by their email, all or none",
        takes=NewUsers,
        gives=UpsertedUsers,
        fails=(*BODY_PROBLEMS, Conflict),
    ),
]
