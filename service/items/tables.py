"""The items' table; it is declared as the users' is."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ColumnElement,
    DateTime,
    ForeignKeyConstraint,
    Identity,
    Index,
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

from service.db.schema import COUNTED, metadata, trigrams
from service.users.tables import users

# No price reaches this (the CHECK says so), so it can stand for "no price" in an order.
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
    ForeignKeyConstraint(["owner_id"], [users.c.id], name="items_owner_id_fkey"),
    CheckConstraint("length(sku) BETWEEN 1 AND 64", name="items_sku_check"),
    CheckConstraint("length(name) BETWEEN 1 AND 255", name="items_name_check"),
    # The bound above keeps NaN and Infinity out too: PostgreSQL sorts both above every number.
    CheckConstraint(
        f"price >= 0 AND price < {PRICE_LIMIT} AND price = round(price, 4)",
        name="items_price_check",
    ),
    # Room in each page for a changed row, so that an update stays beside its old version (HOT).
    postgresql_with={"fillfactor": "90"},
    info=COUNTED,
)

# Bytes, not a locale: the same order on every machine, and no index to rebuild after a libc update.
item_name: ColumnElement[str] = collate(items.c.name, "C")

# Keyset columns must not be null: no price sorts after every price, as PostgreSQL's own order does.
item_price: ColumnElement[object] = func.coalesce(items.c.price, literal_column(PRICE_LIMIT))

# One order per sort, read forwards and backwards; `id` breaks ties. `id` alone is the primary key.
Index("items_created_at_idx", items.c.created_at, items.c.id)
Index("items_name_idx", item_name, items.c.id)
Index("items_price_idx", item_price, items.c.id)

# A user's items, their count as an index-only scan; items of nobody take no room in it.
Index(
    "items_owner_id_idx",
    items.c.owner_id,
    items.c.id,
    postgresql_where=text("owner_id IS NOT NULL"),
)
# The rare side of a filter: the common side is found at once in any other order.
Index("items_inactive_idx", items.c.id, postgresql_where=text("NOT is_active"))

# ILIKE lowers the pattern anew for every row; lower() LIKE finds the same in less time.
Index("items_search_idx", func.lower(items.c.name).label("name"), **trigrams("name"))
