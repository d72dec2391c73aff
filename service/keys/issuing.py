"""Make a key: the rules that the endpoint and the command share."""

from collections.abc import Iterable
from datetime import UTC, datetime

from msgspec import structs

from service.db.writable import WritableDatabase
from service.errors import Conflict, FieldError, Forbidden, Invalid, NotFound
from service.keys import statements
from service.keys.key_format import new_key, parse
from service.keys.statements import MAX_KEYS
from service.keys.structs import SCOPES, IssuedKey, NewKey
from service.web.principal import Principal, Scope


async def issue(
    db: WritableDatabase,
    user_id: int,
    new: NewKey,
    maker: Principal | None = None,
    *,
    for_admin: bool = False,
) -> IssuedKey:
    """Make a key of a user, and return it with its text, which is not stored.

    Args:
        db: where.
        user_id: id of the user.
        new: name, scopes and expiry. Without scopes the key may read and write.
        maker: whose key makes it; None without authentication.
        for_admin: whether an admin's key without scopes may do all that an admin may.

    Raises:
        NotFound: there is no such user.
        Forbidden: the new key would have a scope that the maker's key does not have.
        Invalid: the expiry is in the past, or the key is for an admin and the user is none.
        Conflict: the user is not active, or has MAX_KEYS keys already.
    """
    if new.expires_at is not None and new.expires_at <= datetime.now(UTC):
        raise Invalid("expires_at is not in the future", FieldError("expires_at", "must be later"))
    scopes = granted(new.scopes, maker)
    text = new_key()
    parsed = parse(text.encode())
    assert parsed is not None  # noqa: S101 - it was made in this form
    async with db.transaction() as one:
        user = await statements.lock_owner.get(one, user_id)
        if user is None:
            raise NotFound("there is no such user")
        if not user.is_active:
            raise Conflict("the user is not active: set is_active first, or take another user")
        if for_admin and new.scopes is None and user.role == "admin":
            scopes = list(SCOPES)
        if "admin" in scopes and user.role != "admin":
            why = "only an admin's key may have the scope admin"
            raise Invalid(f"scopes: {why}", FieldError("scopes", why))
        key = await statements.issue.one(
            one,
            user_id=user_id,
            name=new.name,
            prefix=parsed.public_id,
            secret_hash=parsed.secret_hash,
            scopes=scopes,
            expires_at=new.expires_at,
        )
    if key is None:
        raise Conflict(
            f"the user has {MAX_KEYS} keys that have not expired, no more are possible:"
            " delete one first"
        )
    return IssuedKey(**structs.asdict(key), key=text)


def granted(asked: Iterable[Scope] | None, maker: Principal | None) -> list[Scope]:
    """Return the scopes of a new key, each once.

    Raises:
        Forbidden: the maker's key does not have one of them.
    """
    limited = maker is not None and not maker.admin
    had = maker.scopes if maker is not None and limited else frozenset(SCOPES)
    if asked is None:
        return [one for one in SCOPES if one != "admin" and one in had]
    missing = [one for one in SCOPES if one in set(asked) - had]
    if missing:
        why = f"the key of this request does not have the scope {missing[0]}"
        raise Forbidden(f"scopes: {why}", FieldError("scopes", why))
    return [one for one in SCOPES if one in set(asked)]
