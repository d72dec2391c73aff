"""Notifications: what a user is told, in a list and over HTTP."""

from service.notifications import routes, statements
from service.notifications.structs import Notification, NotificationFields
from service.resource import Resource
from service.resource.operations import OPERATIONS
from service.users import users

notifications = Resource(
    "notifications",
    NotificationFields,
    row=Notification,
    table=statements.table,
    description="What users are told",
    filters=("user_id", "unread"),
    references={"user_id": users},
    under=("user_id",),
    newest=0,
    owner="user_id",
    private=True,
    without=(*OPERATIONS, "create_under"),
    extra=routes.operations,
    extra_statements=statements.statements,
)
