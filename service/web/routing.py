"""From a route table to an ASGI application: Starlette's Router, and a short way for most paths."""

from collections.abc import Sequence
from typing import Any

from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from service.web.endpoint import Endpoint, Operation


class Paths(Router):
    """Starlette's Router behind a dictionary of the paths that need no regular expression.

    Those are the constant ones and those that end in `/{id}`: most requests, in a quarter of the
    time. Every path also has its slash; what is at no path is answered with a problem, too.

    Args:
        operations: the route table; the operations of one path share an endpoint.
        options: of Starlette's Router, as `lifespan`.
    """

    def __init__(self, operations: Sequence[Operation], **options: Any) -> None:
        paths = dict.fromkeys(operation.path for operation in operations)
        endpoints = {
            path + slash: Endpoint(one for one in operations if one.path == path)
            for slash in ("", "/")
            for path in paths
        }
        super().__init__(
            # Constant paths first: /items/bulk is no item.
            routes=[Route(path, endpoints[path]) for path in sorted(endpoints, key=_open)],
            default=Endpoint(),
            redirect_slashes=False,
            **options,
        )
        self.constant = {path: one for path, one in endpoints.items() if not _open(path)}
        self.by_id = {
            path.removesuffix("/{id}"): one
            for path, one in endpoints.items()
            if path.endswith("/{id}") and path.count("{") == 1
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not scope["root_path"]:
            path = scope["path"]
            endpoint = self.constant.get(path)
            if endpoint is None:
                before, _, last = path.rpartition("/")
                endpoint = self.by_id.get(before) if last else None
                scope["path_params"] = {"id": last}
            if endpoint is not None:
                await endpoint(scope, receive, send)
                return
        await super().__call__(scope, receive, send)


def _open(path: str) -> bool:
    return "{" in path
