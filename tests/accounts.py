"""Users and API keys for tests of a server with authentication."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, Literal, NamedTuple, TypeVar

from msgspec import structs

from service.cache.writer import Writer
from service.db.database import Database
from service.db.writable import WritableDatabase
from service.keys.issuing import issue
from service.keys.structs import NewKey
from service.users import users
from service.users.structs import NewUser

Done = TypeVar("Done")
Scope = Literal["read", "write", "admin"]
_numbers = itertools.count(1)


class Account(NamedTuple):
    """A user with a key."""

    user_id: int
    key_id: int
    key: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}


def write(url: str, work: Callable[[WritableDatabase], Awaitable[Done]]) -> Done:
    """Write as the commands do."""

    async def run() -> Done:
        db = Database(url, size=None, batching=False)
        try:
            return await Writer(db).run(work, lambda _: ())
        finally:
            await db.close()

    return asyncio.run(run())


def account(
    url: str,
    role: Literal["user", "admin"] = "user",
    scopes: list[Scope] | None = None,
    *,
    user_id: int | None = None,
    expires_at: datetime | None = None,
) -> Account:
    """Make a user and a key of theirs; with `user_id` only the key."""
    name = f"user{next(_numbers)}"
    person = NewUser(email=f"{name}@example.com", username=name, role=role)

    async def make(db: WritableDatabase) -> Account:
        owner: Any = user_id or (await users.add.run(db, structs.astuple(person))).id
        new = NewKey(name="test", scopes=scopes, expires_at=expires_at)
        made = await issue(db, owner, new, for_admin=True)
        return Account(owner, made.id, made.key)

    return write(url, make)
