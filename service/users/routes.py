"""The users' handlers, then their route list."""

from msgspec import structs

from service.cache.generations import Tags
from service.db.changes import change_values, fields_set
from service.errors import Conflict, NotFound
from service.users import statements
from service.users.statements import tags
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
from service.web import bulk_handlers, paging, row_handlers
from service.web.body import Body
from service.web.codec import Query, Reply, encode
from service.web.endpoint import Operation
from service.web.request import BODY_PROBLEMS, Request

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


def list_tags(request: Request) -> Tags:
    return tags.listed(request.query(user_query))


def share_list(request: Request) -> bool:
    return paging.share(request.query(user_query), ("q", "role"))


async def create_user(request: Request) -> Reply:
    """`email` and `username` are unique without regard to case."""
    new = await request.body(new_user)
    return await row_handlers.add(request, statements.add, tags, structs.astuple(new))


async def read_user(request: Request) -> Reply:
    """A user who was deleted without `permanent=true` is shown with `is_active: false`."""
    return await row_handlers.read(request, statements.by_id)


def user_tags(request: Request) -> Tags:
    return tags.row(request.row_id())


async def replace_user(request: Request) -> Reply:
    """The user is replaced as a whole: optional fields that are missing take their default."""
    request.row_id()
    new = structs.asdict(await request.body(new_user))
    return row_handlers.shown(
        await row_handlers.write(request, statements.writes.replace, tags, new, **new)
    )


async def change_user(request: Request) -> Reply:
    """A field that is absent stays, null clears it; `{}` changes nothing."""
    request.row_id()
    change = await request.body(user_change)
    values = change_values(change)
    if not values:
        return row_handlers.shown(await row_handlers.unchanged(request, statements.by_id))
    return row_handlers.shown(
        await row_handlers.write(
            request, statements.writes.change, tags, fields_set(change), **values
        )
    )


async def delete_user(request: Request) -> Reply:
    """The user stays, inactive; with `permanent=true` the user is gone, and the answer is 204.

    As long as the user owns items, that is refused with 409.
    """
    request.row_id()
    if request.query(delete_query).permanent:
        await row_handlers.write(request, statements.writes.remove, tags)
        return Reply(status=204)
    return row_handlers.shown(
        await row_handlers.write(request, statements.writes.deactivate, tags, ("is_active",))
    )


async def upsert_users(request: Request) -> Reply:
    """A user whose email exists is replaced, any other is created: all of them, or none."""
    given = (await request.body(new_users)).items
    bulk_handlers.distinct(given, "email", "username", alike=folded)
    done = await bulk_handlers.upsert(
        request, statements.upsert, tags, given, statements.conflict_locators
    )
    items = [
        UpsertedUser(one.id, user.email, one.version, one.status)
        for user, one in zip(given, done, strict=True)
    ]
    return Reply(encode(UpsertedUsers(**bulk_handlers.counted(done), items=items)))


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
        response=User,
        errors=(NotFound,),
        cache_tags=user_tags,
    ),
    Operation(
        "GET",
        "/users",
        list_users,
        "List users, by page or by cursor",
        query=UserQuery,
        response=(UserPage, UserCursorPage),
        cache_tags=list_tags,
        share=share_list,
    ),
    Operation(
        "POST",
        "/users",
        create_user,
        "Create a user",
        request=NewUser,
        response=User,
        status=201,
        errors=(*BODY_PROBLEMS, Conflict),
    ),
    Operation(
        "PUT",
        THIS,
        replace_user,
        "Replace a user; what is missing takes its default",
        request=NewUser,
        response=User,
        errors=WRITE_FAILS,
    ),
    Operation(
        "PATCH",
        THIS,
        change_user,
        "Change a user; absent keeps, null clears",
        request=UserChange,
        response=User,
        errors=WRITE_FAILS,
    ),
    Operation(
        "DELETE",
        THIS,
        delete_user,
        "Set a user inactive, or with permanent=true remove it (204)",
        query=DeleteQuery,
        response=User,
        errors=(NotFound, Conflict),
    ),
    Operation(
        "PUT",
        "/users/bulk",
        upsert_users,
        "Create or replace up to 1000 users by their email, all or none",
        request=NewUsers,
        response=UpsertedUsers,
        errors=(*BODY_PROBLEMS, Conflict),
    ),
]
