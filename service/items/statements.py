"""Every statement the items run, in the order of their routes."""

from typing import Any

from sqlalchemy import BigInteger, and_, bindparam, literal_column, not_, select

from service.cache.generations import TableTags
from service.db.batch import BatchLoader, GroupCommit
from service.db.bulk import Adds, Bulk, Upsert, absent, taken
from service.db.copy import Export
from service.db.filters import Bound, Choice, FilterIndex, search
from service.db.keyset import Listing
from service.db.staging import StagingTable
from service.db.statement import Statement
from service.db.writes import Writes
from service.items.structs import Item, ItemChange, KeyedItem, NewItem, Owner
from service.db.schema import totals
from service.items.tables import PRICE_LIMIT, item_name, item_price, items
from service.users.tables import users

# What cached answers depend on: the items, and the users shown beside them.
tags = TableTags("items", "owner_id", "is_active")
owner_tags = TableTags("users")

add = GroupCommit("items.add", Item, items, NewItem, key="sku")
by_id = BatchLoader("items.by_id", Item, items)
writes = Writes("items", Item, items, NewItem, ItemChange)
adds = Adds("items.add_all", Item, items, NewItem, "sku")
upsert = Upsert("items.upsert", items, KeyedItem, "sku")
bulk = Bulk("items", items, ItemChange)
# Where among many rows the one is that PostgreSQL has refused, by its field.
conflict_locators = {
    "sku": taken("items.sku_taken", items, "sku"),
    "owner_id": absent("items.owner_absent", items, "owner_id", users),
}

by_price = FilterIndex("items_price_idx", "price")
listing = Listing(
    "items",
    Item,
    items,
    keys={
        "id": items.c.id,
        "created_at": items.c.created_at,
        "name": item_name,
        "price": item_price,
    },
    filters={
        "is_active": Choice(
            {True: items.c.is_active.is_(True), False: not_(items.c.is_active)},
            {False: FilterIndex("items_inactive_idx", "id")},
        ),
        "q": search("items_search_idx", items.c.name),
        "owner_id": Bound(
            items.c.owner_id == bindparam("owner_id"),
            served_by=FilterIndex("items_owner_id_idx", "id"),
            one_plan=True,
        ),
        # On the expression of the index; "no price" stands at its upper end.
        "min_price": Bound(
            and_(item_price >= bindparam("min_price"), item_price < literal_column(PRICE_LIMIT)),
            served_by=by_price,
        ),
        "max_price": Bound(item_price <= bindparam("max_price"), served_by=by_price),
    },
    totals=totals,
)

count = Statement("items.count", int, listing.totals[()], prepare=False)
exported = Export("items.export", listing, Item)
stage = StagingTable("items.import", items, NewItem, key="sku")

owners = BatchLoader("items.owners", Owner, users)
owner_exists = Statement(
    "items.owner_exists",
    int,
    select(users.c.id).where(users.c.id == bindparam("id", type_=BigInteger)),
    order=("id",),
)

prepared: tuple[Statement[Any], ...] = (
    *add.prepared,
    *by_id.prepared,
    *owners.prepared,
    owner_exists,
    *writes.prepared,
    *adds.prepared,
    *upsert.prepared,
    *bulk.prepared,
    *conflict_locators.values(),
)
