"""The id of the user in a path."""

from service.errors import NotFound
from service.web.request import Request


def own_user(request: Request) -> int:
    """Return the id of the user in the path.

    Raises:
        NotFound: the request is limited to another user, as if there were no such user.
    """
    user_id = request.row_id()
    if request.owner not in {None, user_id}:
        raise NotFound("there is no such user")
    return user_id
