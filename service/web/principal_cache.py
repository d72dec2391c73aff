"""The principals of API keys, each kept for less than a second after its look-up."""

import asyncio
from time import perf_counter
from typing import Any

from service.cache.writer import Writer
from service.db.database import Database
from service.errors import Problem, Unavailable
from service.logs import logger
from service.timing import Timing, timing
from service.web.api_keys import ApiKeys, ParsedKey, bad_key, is_match
from service.web.failures import Failures
from service.web.principal import Access, Principal

# Seconds that a principal is valid, from before its look-up was sent: so a revoked key stops
# working within a second on every worker, without a message between them.
VALID_SECONDS = 0.9
# From this age on it is looked up again in the background, so a key in use never waits.
RENEW_SECONDS = 0.45
# A key that is not valid is looked up once in so many seconds, however often it is sent.
WRONG_SECONDS = 0.5
# Seconds between two attempts to renew while the database is not available.
RETRY_SECONDS = 0.1
# Principals to keep, and keys to remember as valid or as wrong.
PRINCIPALS = 10_000
_EVERYTHING: frozenset[Access] = frozenset({"read", "write", "admin"})


class Admitted:
    """A principal, and what each request needs of it.

    Args:
        principal: the user of a key.
        valid_until: time at which it must be looked up again.
    """

    __slots__ = ("grants", "identity", "principal", "renew_at", "valid_until", "viewer")

    def __init__(self, principal: Principal, renew_at: float, valid_until: float) -> None:
        self.principal = principal
        self.grants = frozenset(access for access in _EVERYTHING if principal.may(access))
        self.identity = f"user:{principal.user_id}"
        self.viewer = principal.viewer
        self.renew_at = renew_at
        self.valid_until = valid_until


class _LookUp:
    """A look-up that runs; it was sent at `sent`, and `spent` has its times."""

    __slots__ = ("future", "sent", "spent")

    def __init__(self) -> None:
        self.sent = perf_counter()
        self.spent = Timing()
        self.future: asyncio.Future[Admitted | None] = asyncio.get_running_loop().create_future()


class PrincipalCache:
    """Finds the principals of API keys, in this process or in the database.

    Attributes:
        keys: the application's keys.
        db: where they are looked up.
        writer: writes when a key was last used.
        failures: the failed authentications.
    """

    def __init__(self, keys: ApiKeys, db: Database, writer: Writer) -> None:
        self.keys = keys
        self.db = db
        self.writer = writer
        self.failures = Failures()
        # By the key with its scheme, as most clients send it: then the value of the header is found
        # as it is.
        self._found: dict[bytes, Admitted] = {}
        self._running: dict[bytes, _LookUp] = {}
        # Keys that were valid at their last look-up, so that failures of other clients with the
        # same address don't refuse them.
        self._known: dict[str, bytes] = {}
        # Keys that were not valid, and until when they are not looked up again.
        self._wrong: dict[ParsedKey, float] = {}

    def find(self, authorization: bytes, now: float) -> Admitted | None:
        """Return a principal that is in this process and valid.

        Args:
            authorization: `Bearer KEY`.
            now: perf_counter().
        """
        found = self._found.get(authorization)
        if found is not None and now >= found.renew_at:
            if now >= found.valid_until:
                return None
            found.renew_at = found.valid_until
            parsed = self.keys.parse(authorization[7:])
            if parsed is not None:
                self._begin(authorization, parsed)
        return found

    async def authenticate(self, key: bytes, address: str) -> Admitted:
        """Return the principal of a key, from a look-up if it is not in this process.

        Args:
            key: the key.
            address: of the client; see Failures.

        Raises:
            Unauthorized: the key is not valid.
            TooMany: too many keys from this address were not valid.
            Problem: 503 or 504, the database is not available.
        """
        authorization = b"Bearer " + key
        found = self.find(authorization, perf_counter())
        if found is not None:
            return found
        parsed = self.keys.parse(key)
        if parsed is None:
            raise bad_key()
        while found is None:
            known = self._known.get(parsed.public_id)
            if known is not None and is_match(known, parsed.secret_hash):
                found = await self._result(authorization, parsed)
                break
            if self._is_wrong(parsed):
                break
            name = hash(parsed)
            if self.failures.begin(address, name):
                failed = False
                try:
                    found = await self._result(authorization, parsed)
                    failed = found is None
                finally:
                    self.failures.end(address, name, failed=failed)
                break
            await self.failures.wait(address)
            found = self.find(authorization, perf_counter())
        if found is None:
            raise bad_key()
        return found

    def _is_wrong(self, parsed: ParsedKey) -> bool:
        """Whether a key was not valid at a look-up that was sent less than WRONG_SECONDS ago."""
        until = self._wrong.get(parsed)
        if until is None:
            return False
        if perf_counter() < until:
            return True
        del self._wrong[parsed]
        return False

    async def _result(self, authorization: bytes, parsed: ParsedKey) -> Admitted | None:
        """Wait for a look-up; for one that runs, if it was sent recently enough."""
        running = self._running.get(authorization)
        if running is None or perf_counter() >= running.sent + VALID_SECONDS:
            running = self._begin(authorization, parsed)
        started, spent = perf_counter(), timing.get()
        try:
            return await asyncio.shield(running.future)
        finally:
            now = perf_counter()
            if spent is not None:
                spent.add(running.spent, 0.0, now - started)
                if spent.span is not None:
                    spent.span.child("look-up of the API key", started, now)

    def _begin(self, authorization: bytes, parsed: ParsedKey) -> _LookUp:
        running = self._running[authorization] = _LookUp()
        spent = timing.get()
        if spent is not None:  # of the request that came first
            running.spent.span = spent.span
        self.db.spawn(self._look_up(authorization, parsed, running))
        return running

    async def _look_up(self, authorization: bytes, parsed: ParsedKey, running: _LookUp) -> None:
        future = running.future
        future.add_done_callback(_retrieve)
        timing.set(running.spent)
        try:
            found = await self._find_in_database(parsed, running.sent)
            self._keep(authorization, parsed, found)
            if found is None:
                _make_room(self._wrong)
                self._wrong[parsed] = running.sent + WRONG_SECONDS
            future.set_result(found)
        except asyncio.CancelledError:
            future.set_exception(Unavailable("shutting down"))
            raise
        except Exception as error:  # noqa: BLE001 - raised in each request that waits
            if not isinstance(error, Problem):
                logger.exception("the look-up of an API key failed")
            future.set_exception(error)
            kept = self._found.get(authorization)
            if kept is not None:
                kept.renew_at = min(perf_counter() + RETRY_SECONDS, kept.valid_until)
        finally:
            if self._running.get(authorization) is running:
                del self._running[authorization]

    async def _find_in_database(self, parsed: ParsedKey, sent: float) -> Admitted | None:
        record = await self.keys.look_up(self.db, parsed.public_id)
        if record is None or not is_match(record.secret_hash, parsed.secret_hash):
            return None
        valid = VALID_SECONDS
        if record.seconds_left is not None:
            if record.seconds_left <= 0:
                return None
            valid = min(valid, record.seconds_left)
        self.keys.used(self.db, self.writer, record.principal)
        return Admitted(record.principal, sent + min(valid, RENEW_SECONDS), sent + valid)

    def _keep(self, authorization: bytes, parsed: ParsedKey, found: Admitted | None) -> None:
        old = self._found.pop(authorization, None)
        if found is None:
            if self._known.get(parsed.public_id) == parsed.secret_hash:
                del self._known[parsed.public_id]
            return
        if old is not None and old.valid_until > found.valid_until:  # from a later look-up
            found = old
        _make_room(self._found)
        self._found[authorization] = found
        _make_room(self._known)
        self._known[parsed.public_id] = parsed.secret_hash
        # So no secret stays in memory after its last use.
        left = found.valid_until - perf_counter()
        asyncio.get_running_loop().call_later(left, self._drop, authorization, found)

    def _drop(self, authorization: bytes, found: Admitted) -> None:
        if self._found.get(authorization) is found:
            del self._found[authorization]


def _make_room(kept: dict[Any, Any]) -> None:
    if len(kept) >= PRINCIPALS:
        del kept[next(iter(kept))]


def _retrieve(future: asyncio.Future[Admitted | None]) -> None:
    """Without this, asyncio logs an error for which no request waits any more."""
    if not future.cancelled():
        future.exception()
