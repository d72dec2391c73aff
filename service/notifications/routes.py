"""Mark a notification as read. The list is derived from the declaration."""

from service.cache.generations import Tags
from service.errors import NotFound
from service.notifications import statements
from service.notifications.notify import tags
from service.notifications.structs import FoundNotification
from service.users import users
from service.web.codec import Reply, row_id
from service.web.endpoint import Operation
from service.web.request import Request

_CHANGED = ("unread",)


async def read_notification(request: Request) -> Reply:
    """Sets `unread` to false and `read_at` to now. A second request changes nothing."""
    user_id = request.row_id()
    if request.owner not in {None, user_id}:
        raise NotFound("there is no such user")
    notification_id = row_id(request.scope["path_params"]["notification_id"])
    found = await request.write(
        lambda db: statements.mark_read.get(db, notification_id, user_id), _tags
    )
    if found is None:
        raise NotFound("there is no such notification")
    return Reply(status=204)


def _tags(found: FoundNotification | None) -> Tags:
    return tags.written(found, _CHANGED) if found is not None and found.unread else ()


operations = (
    Operation(
        "POST",
        f"{users.path}/{{id}}/notifications/{{notification_id}}/read",
        read_notification,
        "Mark a notification as read",
        status=204,
        errors=(NotFound,),
        tag=users.tag,
    ),
)
