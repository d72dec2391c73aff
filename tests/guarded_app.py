"""An application with API keys that need no table, for test_guard.py."""

import hashlib
from typing import Any

from msgspec import Struct
from starlette.requests import Request as StarletteRequest
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from service.app import create_app
from service.cache.generations import Tags
from service.cache.writer import Writer
from service.db.database import Database
from service.items import items
from service.settings import Settings
from service.users import users
from service.web.api_keys import KeyRecord, ParsedKey
from service.web.codec import Reply, encode
from service.web.endpoint import Operation
from service.web.principal import Principal, Scope
from service.web.request import Request


class Keys:
    """Keys of the form `test_ID_SECRET`; the id says whose key it is and what it may do."""

    def __init__(self) -> None:
        self.records: dict[str, KeyRecord] = {}
        self.look_ups = 0
        self.uses = 0

    def add(
        self, name: str, *scopes: Scope, user: int = 1, admin: bool = False, left: float | None = 60
    ) -> str:
        """Return a new key."""
        principal = Principal(user, len(self.records) + 1, frozenset(scopes), admin)
        digest = hashlib.sha256(f"secret-{name}".encode()).digest()
        self.records[name] = KeyRecord(digest, principal, left)
        return f"test_{name}_secret-{name}"

    def parse(self, key: bytes) -> ParsedKey | None:
        form, _, rest = key.decode("ascii").partition("_")
        name, _, secret = rest.partition("_")
        if form != "test" or not secret:
            return None
        return ParsedKey(name, hashlib.sha256(secret.encode()).digest())

    async def look_up(self, db: Database, public_id: str) -> KeyRecord | None:
        del db
        self.look_ups += 1
        return self.records.get(public_id)

    async def is_user_active(self, db: Database, user_id: int) -> bool:
        del db
        return any(one.principal.user_id == user_id for one in self.records.values())

    def used(self, db: Database, writer: Writer, principal: Principal) -> None:
        del db, writer, principal
        self.uses += 1


class Shown(Struct):
    """Whose rows a request may use."""

    owner: int | None


def shows(path: str, summary: str, **more: Any) -> Operation:
    """Return an operation that shows whose rows a request may use."""

    async def show(request: Request) -> Reply:
        return Reply(encode(Shown(request.owner)))

    show.__name__ = f"show_{path.strip('/')}"
    return Operation("GET", path, show, summary, response=Shown, **more)


class Size(Struct):
    """The size of a body."""

    size: int


async def echo(request: Request) -> Reply:
    """Show the size of the body."""
    size = 0
    more = True
    while more:
        message = await request.receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    return Reply(encode(Size(size)))


async def fail(request: Request) -> Reply:
    """Fail, as a bug does."""
    raise RuntimeError(f"a bug at {request.path}")


async def plain(_: StarletteRequest) -> PlainTextResponse:
    return PlainTextResponse("plain")


async def talk(socket: WebSocket) -> None:
    await socket.accept()
    await socket.close()


def no_tags(_: Request) -> Tags:
    return ()


operations = [
    shows("/shared", "Cached, the same for all", cache_tags=no_tags),
    shows("/own", "Cached, private", cache_tags=no_tags, private=True),
    shows("/rows", "Not cached, private", private=True),
    Operation("GET", "/fails", fail, "Has a bug"),
    Operation("POST", "/echo", echo, "Read a body", response=Size),
    shows("/admin", "For admins", access="admin"),
    shows("/open", "For everyone", access="open", limit="off"),
    shows("/limited", "Has its own limit", limit="1/m"),
]
starlette: list[BaseRoute] = [Route("/plain", plain), Route("/plain-post", plain, methods=["POST"])]
starlette += [Mount("/plain-mount", routes=[Route("/", plain)]), WebSocketRoute("/talk", talk)]

keys = Keys()
keys.add("reader", "read")
keys.add("writer", "write", user=2)
keys.add("both", "read", "write", user=3)
keys.add("admin", "read", "write", "admin", user=4, admin=True)
app = create_app(
    Settings.load(), resources=(items, users), routes=[*operations, *starlette], auth=keys
)
