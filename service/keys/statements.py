"""The table of API keys, and the statements beside those that the declaration derives."""

from datetime import datetime
from typing import Any, Literal

from msgspec import Struct
from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKeyConstraint,
    Identity,
    Index,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    any_,
    bindparam,
    cast,
    delete,
    extract,
    func,
    insert,
    literal_column,
    or_,
    select,
    text,
    update,
)

from service.db.batch import BatchLoader
from service.db.statement import Statement, columns
from service.keys.structs import Key
from service.users import users

# Keys of a user that have not expired.
MAX_KEYS = 20

table = Table(
    "keys",
    MetaData(),
    Column("id", BigInteger, Identity(always=True), nullable=False),
    Column("user_id", BigInteger, nullable=False),
    Column("name", Text, nullable=False),
    Column("prefix", Text, nullable=False),
    Column("secret_hash", LargeBinary, nullable=False),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("expires_at", DateTime(timezone=True)),
    Column("last_used_at", DateTime(timezone=True)),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    PrimaryKeyConstraint("id", name="keys_pkey"),
    UniqueConstraint("prefix", name="keys_prefix_key"),
    ForeignKeyConstraint(["user_id"], [users.table.c.id], name="keys_user_id_fkey"),
    CheckConstraint("length(name) BETWEEN 1 AND 100", name="keys_name_check"),
    CheckConstraint("isfinite(expires_at)", name="keys_expires_at_check"),
    CheckConstraint("octet_length(secret_hash) = 32", name="keys_secret_hash_check"),
    CheckConstraint(
        "cardinality(scopes) >= 1 AND scopes <@ ARRAY['read', 'write', 'admin']",
        name="keys_scopes_check",
    ),
    # The time of the last use is written into the same page, so no index changes (HOT).
    postgresql_with={"fillfactor": "90"},
)
Index("keys_created_at_idx", table.c.created_at, table.c.id)
Index("keys_user_id_idx", table.c.user_id, table.c.id)

keys, people = table.c, users.table.c
_valid = or_(keys.expires_at.is_(None), keys.expires_at > func.now())


class Owner(Struct, frozen=True, gc=False):
    """The user of a key, as far as a new key depends on it."""

    id: int
    role: str
    is_active: bool


class StoredKey(Struct, frozen=True):
    """What authentication needs of a key; `seconds_left` is null if it does not expire."""

    id: int
    user_id: int
    prefix: str
    secret_hash: bytes
    scopes: list[Literal["read", "write", "admin"]]
    seconds_left: float | None
    role: str


class UsedKey(Struct, frozen=True, gc=False):
    """A key, for the invalidation of cached lists."""

    id: int
    user_id: int


class ShownKey(Struct, frozen=True):
    """A key in `swiftlet keys list`."""

    id: int
    email: str
    name: str
    prefix: str
    scopes: list[str]
    expires_at: datetime | None
    last_used_at: datetime | None
    valid: bool


_stored = (
    select(
        keys.id,
        keys.user_id,
        keys.prefix,
        keys.secret_hash,
        keys.scopes,
        # The clock of the database decides: the workers may be on several machines.
        cast(extract("epoch", keys.expires_at - func.now()), Double).label("seconds_left"),
        people.role,
    )
    .join(users.table, people.id == keys.user_id)
    .where(people.is_active)
    .subquery("stored_keys")
)
by_prefix: BatchLoader[StoredKey] = BatchLoader("keys.by_prefix", StoredKey, _stored, key="prefix")

# Keys of one user are made one after another, so that no two requests exceed MAX_KEYS together.
lock_owner = Statement(
    "keys.lock_owner",
    Owner,
    select(*columns(Owner, users.table))
    .where(people.id == bindparam("id", type_=BigInteger))
    .with_for_update(key_share=True),
    order=("id",),
    prepare=False,
)

_fields = ("user_id", "name", "prefix", "secret_hash", "scopes", "expires_at")
_count = (
    select(func.count())
    .where(keys.user_id == bindparam("user_id", type_=BigInteger), _valid)
    .scalar_subquery()
)
issue = Statement(
    "keys.issue",
    Key,
    insert(table)
    .from_select(
        _fields,
        select(*(bindparam(name, type_=keys[name].type) for name in _fields)).where(
            _count < literal_column(str(MAX_KEYS))
        ),
    )
    .returning(*columns(Key, table)),
    prepare=False,
)
revoke = Statement(
    "keys.revoke",
    UsedKey,
    delete(table)
    .where(keys.id == bindparam("id"), keys.user_id == bindparam("user_id"))
    .returning(*columns(UsedKey, table)),
    order=("id", "user_id"),
    prepare=False,
)
revoke_any = Statement(
    "keys.revoke_any",
    UsedKey,
    delete(table).where(keys.id == bindparam("id")).returning(*columns(UsedKey, table)),
    order=("id",),
    prepare=False,
)
# A key that another transaction changes or removes is left out: its time is not worth the wait.
_unwritten = (
    select(keys.id)
    .where(
        keys.id == any_(bindparam("ids", type_=ARRAY(BigInteger))),
        or_(
            keys.last_used_at.is_(None),
            keys.last_used_at < func.now() - text("interval '1 minute'"),
        ),
    )
    .order_by(keys.id)
    .with_for_update(key_share=True, skip_locked=True)
    .cte("unwritten")
)
use = Statement(
    "keys.use",
    UsedKey,
    update(table)
    .values(last_used_at=func.now())
    .where(keys.id == _unwritten.c.id)
    .returning(*columns(UsedKey, table)),
    order=("ids",),
    prepare=False,
)

user_by_email = Statement(
    "keys.user_by_email",
    int,
    select(people.id).where(func.lower(people.email) == func.lower(bindparam("email", type_=Text))),
    order=("email",),
    prepare=False,
)
_shown = select(
    keys.id,
    people.email,
    keys.name,
    keys.prefix,
    keys.scopes,
    keys.expires_at,
    keys.last_used_at,
    (people.is_active & _valid).label("valid"),
).join(users.table, people.id == keys.user_id)
every = Statement("keys.every", ShownKey, _shown.order_by(keys.id), prepare=False)
of_user = Statement(
    "keys.of_user",
    ShownKey,
    _shown.where(keys.user_id == bindparam("user_id")).order_by(keys.id),
    order=("user_id",),
    prepare=False,
)
exists = Statement(
    "keys.exist",
    bool,
    select(select(keys.id).exists().label("exist")),
    prepare=False,
)

statements: tuple[Statement[Any], ...] = (
    *by_prefix.prepared,
    lock_owner,
    issue,
    revoke,
    revoke_any,
    use,
    user_by_email,
    every,
    of_user,
    exists,
)
