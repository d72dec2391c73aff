"""GET /users/{id}/dashboard."""

from service.cache.generations import Tags
from service.dashboard import statements
from service.dashboard.statements import Dashboard
from service.db.batch import single_flight
from service.db.database import Database
from service.errors import NotFound
from service.items import items
from service.notifications import notifications
from service.resource.included import encode_several
from service.users import users
from service.users.own_user import own_user
from service.web.codec import Reply
from service.web.endpoint import Operation
from service.web.request import Request
from service.web.times import encode_rows


async def read_dashboard(request: Request) -> Reply:
    """The user, figures, the 10 items that changed last, and at most 20 unread notifications.

    `total_price` is the sum of the prices of the active items. The newest notification comes first.
    """
    user_id = own_user(request)
    found = await find(request.db, user_id)
    if found is None:
        raise NotFound("there is no such user")
    # Each part by itself: encode_rows looks for names of fields, which several parts have.
    return Reply(
        b'{"user":%b,"stats":%b,"recent":[%b],"notifications":[%b]}'
        % (
            encode_rows(found.user, (found.user,)),
            encode_rows(found.stats, (found.stats,)),
            b",".join(await encode_several(found.recent)),
            b",".join(await encode_several(found.notifications)),
        )
    )


async def find(db: Database, user_id: int) -> Dashboard | None:
    """Return the dashboard of a user; concurrent requests for one user share it."""
    return await single_flight(db, statements.find, {"id": user_id}, _first)


def _first(records: list[list[object]]) -> Dashboard | None:
    return statements.find.row(*records[0]) if records else None


def _tags(request: Request) -> Tags:
    user_id = request.row_id()
    return (
        *users.tags.row(user_id),
        *items.tags.having("owner_id", user_id),
        *notifications.tags.having("user_id", user_id),
    )


dashboard = Operation(
    "GET",
    f"{users.path}/{{id}}/dashboard",
    read_dashboard,
    "Read the dashboard of a user",
    response=Dashboard,
    errors=(NotFound,),
    cache_tags=_tags,
    tag=users.tag,
    private=True,
    statements=(statements.find,),
)
