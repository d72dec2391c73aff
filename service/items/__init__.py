"""Items: things with a name and a price, which users may own."""

from service.items.structs import Item, NewItem, Owner
from service.resource import Resource
from service.users import users

items = Resource(
    "items",
    NewItem,
    row=Item,
    description="Things with a name and a price",
    key="sku",
    sorts=("name", "price"),
    filters=("is_active", "owner_id", "min_price", "max_price"),
    search=("name",),
    references={"owner_id": users},
    under=("owner_id",),
    include={"owner": Owner},
    owner="owner_id",
    changes=True,
)
