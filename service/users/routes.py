"""The users' handlers, then their route list."""

from msgspec import structs

from service.db.writes import change_values
from service.errors import Conflict, NotFound, Stale
from service.users import statements
from service.users.structs import DeleteQuery, NewUser, User, UserChange, UserQuery, UserSummary
from service.web import conditional, paging
from service.web.endpoint import BODY_PROBLEMS, Operation, Request
from service.web.wire import Body, Header, Query, Reply, encode

new_user = Body(NewUser)
user_change = Body(UserChange)
user_query = Query(UserQuery)
delete_query = Query(DeleteQuery)


async def list_users(request: Request) -> Reply:
    query = request.query(user_query)
    return paging.show(request, await paging.find(request, statements.listing, query))


async def create_user(request: Request) -> Reply:
    user = await statements.add.run(request.db, structs.astuple(await request.body(new_user)))
    return Reply(encode(user), 201, (*_headers(user), (b"location", b"/users/%d" % user.id)))


async def read_user(request: Request) -> Reply:
    user = await statements.by_id.get(request.db, request.row_id())
    if user is None:
        raise NotFound("there is no such user")
    if conditional.not_modified(request.header(b"if-none-match"), user.version):
        return Reply(status=304, headers=_headers(user))
    return _shown(user)


async def replace_user(request: Request) -> Reply:
    user_id = request.row_id()
    new = structs.asdict(await request.body(new_user))
    return _shown(await conditional.write(request, statements.writes.replace, user_id, **new))


async def change_user(request: Request) -> Reply:
    user_id = request.row_id()
    values = change_values(await request.body(user_change))
    if values:
        return _shown(await conditional.write(request, statements.writes.change, user_id, **values))
    match = conditional.if_match(request.header(b"if-match"))
    user = await statements.by_id.get(request.db, user_id)
    if user is None or (match is not None and not match.allows(user.version)):
        raise conditional.refusal(match, user.version if user else None)
    return _shown(user)


async def delete_user(request: Request) -> Reply:
    user_id = request.row_id()
    if request.query(delete_query).permanent:
        await conditional.write(request, statements.writes.remove, user_id)
        return Reply(status=204)
    return _shown(await conditional.write(request, statements.writes.deactivate, user_id))


def _shown(user: User) -> Reply:
    return Reply(encode(user), headers=_headers(user))


def _headers(user: User) -> tuple[Header, ...]:
    return ((b"etag", conditional.etag(user.version)), REVALIDATE)


# A client may keep an answer, and asks each time whether it still holds.
REVALIDATE = (b"cache-control", b"private, no-cache")

THIS = "/users/{id}"
WRITE_FAILS = (*BODY_PROBLEMS, NotFound, Conflict, Stale)

routes = [
    Operation("GET", THIS, read_user, "Read a user", gives=User, fails=(NotFound,)),
    Operation(
        "GET",
        "/users",
        list_users,
        "List users, by page or by cursor",
        query=UserQuery,
        gives=(paging.Page[UserSummary], paging.CursorPage[UserSummary]),
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
        fails=(NotFound, Conflict, Stale),
    ),
]
