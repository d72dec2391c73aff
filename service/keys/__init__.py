"""API keys: who may use the service, and for what."""

from service.keys import handlers, statements
from service.keys.authenticator import Authenticator
from service.keys.structs import Key, KeyFields
from service.resource import Resource
from service.resource.operations import OPERATIONS
from service.users import users

keys = Resource(
    "keys",
    KeyFields,
    row=Key,
    table=statements.table,
    description="API keys of users",
    filters=("user_id",),
    references={"user_id": users},
    under=("user_id",),
    newest=100,
    newest_in_lists=False,
    owner="user_id",
    private=True,
    without=(*OPERATIONS, "create_under"),
    extra=handlers.operations,
    extra_statements=statements.statements,
)
# For `create_app(auth=...)`.
api_keys = Authenticator()
