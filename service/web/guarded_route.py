"""A Starlette route of an application, behind the guard."""

from time import perf_counter
from typing import Any

from starlette.routing import BaseRoute, Match
from starlette.types import Message, Receive, Scope, Send

from service.errors import Problem
from service.web.codec import Header
from service.web.endpoint import Refused
from service.web.guard import Rule, admit, limit_headers
from service.web.request import Request

# In a scope: the route takes the method too.
_FULL = "swiftlet.full_match"
# What a route needs is not known, so it is what most operations with the method need.
READS, WRITES = Rule("read", method="GET"), Rule("write", method="POST")


class GuardedRoute(BaseRoute):
    """A route that needs a key with the scope `read` for GET and HEAD, else `write`.

    Args:
        route: a Route, a Mount or any other route.
    """

    def __init__(self, route: BaseRoute) -> None:
        self.route = route

    @property
    def methods(self) -> set[str] | None:
        """The methods of the route; None if it does not say."""
        return getattr(self.route, "methods", None)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match as the route does."""
        match, found = self.route.matches(scope)
        return match, {**found, _FULL: match is Match.FULL}

    def url_path_for(self, name: str, /, **path_params: Any) -> Any:
        """Return the path as the route does."""
        return self.route.url_path_for(name, **path_params)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check the request, then run the route; a method that it does not take needs no key."""
        guard = scope["state"]["guard"]
        limit: tuple[Header, ...] = ()
        if guard is not None and scope.pop(_FULL, False):
            rule = READS if scope.get("method") in {"GET", "HEAD"} else WRITES
            try:
                await admit(guard, rule, Request(scope, receive), perf_counter())
            except Problem as problem:
                await Refused(problem, route_of(self.route))(scope, receive, send)
                return
            limit = limit_headers(scope)
        metrics = scope["state"]["metrics"]
        if not limit and (metrics is None or scope["type"] != "http"):
            await self.route.handle(scope, receive, send)
            return
        started, status = perf_counter(), 500  # as the server answers when the route raises

        async def adding(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if limit:
                    message["headers"] = [*message.get("headers", ()), *limit]
            await send(message)

        try:
            await self.route.handle(scope, receive, adding)
        finally:
            if metrics is not None and scope["type"] == "http":
                took = perf_counter() - started
                metrics.request(scope["method"], route_of(self.route), status, took)


def route_of(route: BaseRoute) -> str:
    """Return the route for metrics: the template of its path, or `other` if it has none."""
    path = getattr(route.route if isinstance(route, GuardedRoute) else route, "path", None)
    return path if isinstance(path, str) and path else "other"
