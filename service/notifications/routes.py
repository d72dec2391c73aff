"""Mark notifications as read. The list is derived from the declaration."""

from service.cache.generations import Tags
from service.errors import NotFound
from service.notifications import statements
from service.notifications.notify import tags
from service.notifications.statements import MAX_READ
from service.notifications.structs import FoundNotification, NotificationsRead, ReadNotifications
from service.users import users
from service.users.own_user import own_user
from service.web.body import Body
from service.web.codec import Reply, encode, row_id
from service.web.endpoint import Operation
from service.web.request import BODY_PROBLEMS, Request

_CHANGED = ("unread",)
_body = Body(ReadNotifications)


async def mark_notification_read(request: Request) -> Reply:
    """Sets `unread` to false and `read_at` to now. A second request changes nothing."""
    user_id = own_user(request)
    notification_id = row_id(request.scope["path_params"]["notification_id"])
    found = await request.write(
        lambda db: statements.mark_read.get(db, notification_id, user_id), _tags
    )
    if found is None:
        raise NotFound("there is no such notification")
    return Reply(status=204)


def _tags(found: FoundNotification | None) -> Tags:
    return tags.written(found, _CHANGED) if found is not None and found.unread else ()


async def mark_notifications_read(request: Request) -> Reply:
    user_id = own_user(request)
    asked = await request.body(_body)
    found = await request.write(
        lambda db: db.fetch(statements.mark_all_read, (user_id, asked.up_to)),
        # All are of one user, so the tags of one are those of all lists that show them.
        lambda found: (
            _tags(FoundNotification(found[0]["id"], user_id, unread=True)) if found else ()
        ),
    )
    if not found and await users.by_id.get(request.db, user_id) is None:
        raise NotFound("there is no such user")
    return Reply(encode(NotificationsRead(len(found))))


mark_notifications_read.__doc__ = (
    "Marks the unread notifications with an id of at most `up_to` as read, the oldest first. What"
    " has come after the client read its list stays unread. A request marks at most"
    f" {MAX_READ:,}: repeat it while `read` is {MAX_READ:,}."
)

operations = (
    Operation(
        "POST",
        f"{users.path}/{{id}}/notifications/{{notification_id}}/read",
        mark_notification_read,
        "Mark a notification as read",
        status=204,
        errors=(NotFound,),
        tag=users.tag,
    ),
    Operation(
        "POST",
        f"{users.path}/{{id}}/notifications/read",
        mark_notifications_read,
        "Mark notifications as read",
        request=ReadNotifications,
        response=NotificationsRead,
        errors=(*BODY_PROBLEMS, NotFound),
        tag=users.tag,
    ),
)
