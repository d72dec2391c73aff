"""The tables of items and users, written by hand: the declarations must give the same tables."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ColumnElement,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    collate,
    func,
    literal_column,
    text,
)

from service.db.schema import trigrams

__all__ = ["ForeignKey"]  # for the tests that write more tables

metadata = MetaData()
COUNTED = {"counted": True}

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

# ILIKE folds the pattern again for every row; lower() LIKE finds the same rows faster.
Index(
    "users_search_idx",
    *(func.lower(users.c[name]).label(name) for name in ("username", "email", "full_name")),
    **trigrams("username", "email", "full_name"),
)

# A CHECK keeps prices below this limit, so it can represent "no price" in an order.
PRICE_LIMIT = "10000000000"

items = Table(
    "items",
    metadata,
    Column("id", BigInteger, Identity(always=True), nullable=False),
    Column("sku", Text),
    Column("name", Text, nullable=False),
    Column("description", Text),
    Column("price", Numeric),
    Column("is_active", Boolean, nullable=False, server_default=text("true")),
    Column("owner_id", BigInteger),
    Column("version", BigInteger, nullable=False, server_default=text("1")),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("updated_at", DateTime(timezone=True)),
    PrimaryKeyConstraint("id", name="items_pkey"),
    UniqueConstraint("sku", name="items_sku_key"),
    ForeignKeyConstraint(["owner_id"], ["users.id"], name="items_owner_id_fkey"),
    CheckConstraint("length(sku) BETWEEN 1 AND 64", name="items_sku_check"),
    CheckConstraint("length(name) BETWEEN 1 AND 255", name="items_name_check"),
    # The bound above keeps NaN and Infinity out too: PostgreSQL sorts both above every number.
    CheckConstraint(
        f"price >= 0 AND price < {PRICE_LIMIT} AND price = round(price, 4)",
        name="items_price_check",
    ),
    # Free space in each page, so that an update can stay in the page of the old row (HOT).
    postgresql_with={"fillfactor": "90"},
    info=COUNTED,
)

item_name: ColumnElement[str] = collate(items.c.name, "C")

# Keyset columns must not be null: no price sorts after every price, as PostgreSQL's own order does.
item_price: ColumnElement[object] = func.coalesce(items.c.price, literal_column(PRICE_LIMIT))

# One order per sort, read forwards and backwards; `id` breaks ties. `id` alone is the primary key.
Index("items_created_at_idx", items.c.created_at, items.c.id)
Index("items_name_idx", item_name, items.c.id)
Index("items_price_idx", item_price, items.c.id)

# The items of a user, and their count as an index-only scan. Items without an owner are not in it.
Index(
    "items_owner_id_idx",
    items.c.owner_id,
    items.c.id,
    postgresql_where=text("owner_id IS NOT NULL"),
)
# The rare side of a filter: the common side is found at once in any other order.
Index("items_inactive_idx", items.c.id, postgresql_where=text("NOT is_active"))

# ILIKE folds the pattern again for every row; lower() LIKE finds the same rows faster.
Index("items_search_idx", func.lower(items.c.name).label("name"), **trigrams("name"))
