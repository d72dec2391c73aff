"""The users' table. Constraints are named `<table>_<field>_<key|fkey|check>`: errors.py reads them.

Every index has a reader; tests/test_plans.py names it.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ColumnElement,
    DateTime,
    Identity,
    Index,
    PrimaryKeyConstraint,
    Table,
    Text,
    collate,
    func,
    text,
)

from service.db.schema import COUNTED, metadata, trigrams

users = Table(
    "users",
    metadata,
    Column("id", BigInteger, Identity(always=True), nullable=False),
    Column("email", Text, nullable=False),
    Column("username", Text, nullable=False),
    Column("full_name", Text),
    Column("role", Text, nullable=False, server_default="user"),
    Column("is_active", Boolean, nullable=False, server_default=text("true")),
    Column("version", BigInteger, nullable=False, server_default=text("1")),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("updated_at", DateTime(timezone=True)),
    PrimaryKeyConstraint("id", name="users_pkey"),
    CheckConstraint("role IN ('user', 'admin')", name="users_role_check"),
    CheckConstraint("length(email) <= 254", name="users_email_check"),
    CheckConstraint("length(username) BETWEEN 3 AND 50", name="users_username_check"),
    CheckConstraint("length(full_name) BETWEEN 1 AND 200", name="users_full_name_check"),
    info=COUNTED,
)

# Bytes, not a locale: the same order on every machine, and no index to rebuild after a libc update.
username: ColumnElement[str] = collate(users.c.username, "C")

# One order per sort, read forwards and backwards; `id` breaks ties. `id` alone is the primary key.
Index("users_created_at_idx", users.c.created_at, users.c.id)
Index("users_username_idx", username, users.c.id)

# The rare side of a filter: the common side is found at once in any other order.
Index("users_inactive_idx", users.c.id, postgresql_where=text("NOT is_active"))
Index("users_admin_idx", users.c.id, postgresql_where=text("role = 'admin'"))

# One person, one account: unique without regard to case.
Index("users_email_key", func.lower(users.c.email), unique=True)
Index("users_username_key", func.lower(users.c.username), unique=True)

# ILIKE lowers the pattern anew for every row; lower() LIKE finds the same in less time.
Index(
    "users_search_idx",
    *(func.lower(users.c[name]).label(name) for name in ("username", "email", "full_name")),
    **trigrams("username", "email", "full_name"),
)
