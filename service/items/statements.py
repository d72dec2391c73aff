"""Every statement the items run, in the order of their routes."""

from typing import Any

from sqlalchemy import BigInteger, and_, bindparam, insert, literal_column, not_, select

from service.db.keyset import Bound, Choice, Listing, containing
from service.db.statement import Statement, binds, columns
from service.db.writes import Write, changing, deactivating, removing, replacing
from service.items.structs import Item, ItemChange, NewItem
from service.tables import PRICE_LIMIT, item_name, item_price, items, users

item = columns(Item, items)

add = Statement(
    "items.add",
    Item,
    insert(items).values(binds(NewItem, items)).returning(*item),
    order=NewItem.__struct_fields__,
)

by_id = Statement(
    "items.by_id", Item, select(*item).where(items.c.id == bindparam("id")), order=("id",)
)

replace = Write("items.replace", Item, items, replacing(items, NewItem))
change = Write("items.change", Item, items, changing(items, ItemChange))
deactivate = Write("items.deactivate", Item, items, deactivating(items))
remove = Write("items.remove", Item, items, removing(items))

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
        "is_active": Choice({True: items.c.is_active.is_(True), False: not_(items.c.is_active)}),
        "q": Bound(items.c.name.ilike(bindparam("q"), escape="\\"), containing),
        "owner_id": Bound(items.c.owner_id == bindparam("owner_id")),
        # On the expression of the index; "no price" stands at its upper end.
        "min_price": Bound(
            and_(item_price >= bindparam("min_price"), item_price < literal_column(PRICE_LIMIT))
        ),
        "max_price": Bound(item_price <= bindparam("max_price")),
    },
)

owner_exists = Statement(
    "items.owner_exists",
    int,
    select(users.c.id).where(users.c.id == bindparam("id", type_=BigInteger)),
    order=("id",),
)

writes: tuple[Write[Any], ...] = (replace, change, deactivate, remove)
hot: tuple[Statement[Any], ...] = (
    add,
    by_id,
    owner_exists,
    *(half for write in writes for half in (write.plain, write.guarded)),
)
