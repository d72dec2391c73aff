"""API keys as the kernel needs them: their form, the look-up, and their last use."""

from weakref import WeakKeyDictionary

from service.cache.writer import Writer
from service.db.database import Database
from service.keys import statements
from service.keys.key_format import parse
from service.keys.last_used import LastUsed
from service.users import users
from service.web.api_keys import KeyRecord, ParsedKey
from service.web.principal import Principal


class Authenticator:
    """The keys of the table `keys`; `create_app(auth=...)`, see web.api_keys.ApiKeys."""

    def __init__(self) -> None:
        self._last_used: WeakKeyDictionary[Database, LastUsed] = WeakKeyDictionary()

    def parse(self, key: bytes) -> ParsedKey | None:
        """Return the parts of a key, without I/O; None if it has another form."""
        return parse(key)

    async def look_up(self, db: Database, public_id: str) -> KeyRecord | None:
        """Return a stored key; None if there is none, or its user is not active."""
        stored = await statements.by_prefix.get(db, public_id)
        if stored is None:
            return None
        scopes = frozenset(stored.scopes)
        # Both at once: a user that is no admin any more, and a key that never was for that.
        admin = "admin" in scopes and stored.role == "admin"
        principal = Principal(stored.user_id, stored.id, scopes, admin)
        return KeyRecord(stored.secret_hash, principal, stored.seconds_left)

    async def is_user_active(self, db: Database, user_id: int) -> bool:
        """Return whether a user exists and is active."""
        user = await users.by_id.get(db, user_id)
        return user is not None and user.is_active

    def used(self, db: Database, writer: Writer, principal: Principal) -> None:
        """Note that a key is in use; its time is written later."""
        last_used = self._last_used.get(db)
        if last_used is None:
            last_used = self._last_used[db] = LastUsed()
        last_used.note(db, writer, principal.key_id)
