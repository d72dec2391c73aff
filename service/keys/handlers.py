"""Make and revoke the keys of a user. The list is derived from the declaration."""

from service.errors import Conflict, NotFound
from service.keys import statements
from service.keys.issuing import issue
from service.keys.last_used import tags
from service.keys.statements import MAX_KEYS
from service.keys.structs import IssuedKey, NewKey
from service.users import users
from service.users.own_user import own_user
from service.web.body import Body
from service.web.codec import Reply, row_id
from service.web.endpoint import Operation
from service.web.request import BODY_PROBLEMS, Request
from service.web.times import encode_rows

# The response has a secret: no cache may store it.
NO_STORE = b"no-store"
_new = Body(NewKey)


async def create_key(request: Request) -> Reply:
    """The response is the only one that shows the `key`."""
    user_id = own_user(request)
    new = await request.body(_new)
    made = await request.write(lambda db: issue(db, user_id, new, request.principal), tags.written)
    location = f"{request.root}{users.path}/{user_id}/keys/{made.id}"
    return Reply(
        encode_rows(made, (made,)),
        201,
        ((b"location", location.encode()),),
        cache_control=NO_STORE,
    )


async def revoke_key(request: Request) -> Reply:
    """The key stops working within a second, on every worker."""
    user_id = own_user(request)
    key_id = row_id(request.scope["path_params"]["key_id"])
    revoked = await request.write(
        lambda db: statements.revoke.get(db, key_id, user_id),
        lambda done: () if done is None else tags.written(done),
    )
    if revoked is None:
        raise NotFound("there is no such key")
    return Reply(status=204)


create_key.__doc__ = (
    "The response is the only one that shows the `key`. A key made with another key has at most"
    " the scopes of that one; only the key of an admin may have the scope `admin`. A user has at"
    f" most {MAX_KEYS} keys that have not expired. With an Idempotency-Key a repeated"
    " request makes no second key: it is 409, with the Location of the first one."
)

operations = (
    Operation(
        "POST",
        f"{users.path}/{{id}}/keys",
        create_key,
        "Create a key of a user",
        request=NewKey,
        response=IssuedKey,
        status=201,
        errors=(*BODY_PROBLEMS, NotFound, Conflict),
        tag=users.tag,
        replay=False,
    ),
    Operation(
        "DELETE",
        f"{users.path}/{{id}}/keys/{{key_id}}",
        revoke_key,
        "Revoke a key",
        status=204,
        errors=(NotFound,),
        tag=users.tag,
    ),
)
