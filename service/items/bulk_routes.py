"""The handlers of many items at once, then their route list."""

from service.db.changes import change_values
from service.errors import Conflict, FieldError
from service.items import statements
from service.items.statements import bulk, tags
from service.items.structs import (
    Items,
    ItemsChange,
    ItemsChanged,
    ItemsDelete,
    ItemsDeleted,
    KeyedItems,
    NewItems,
    UpsertedItem,
    UpsertedItems,
)
from service.web import bulk_handlers
from service.web.body import Body
from service.web.codec import Reply, encode
from service.web.endpoint import Operation
from service.web.request import BODY_PROBLEMS, Request
from service.web.times import encode_rows

new_items = Body(NewItems)
keyed_items = Body(KeyedItems)
items_change = Body(ItemsChange)
items_delete = Body(ItemsDelete)


async def create_items(request: Request) -> Reply:
    """In one statement; the answer has them in the order in which they were given."""
    new = (await request.body(new_items)).items
    bulk_handlers.distinct(new, "sku")
    made = await bulk_handlers.add(
        request, statements.adds, tags, new, statements.conflict_locators
    )
    return Reply(encode_rows(Items(made), made), 201)


async def upsert_items(request: Request) -> Reply:
    """An item whose sku exists is replaced, any other is created; all of them, or none."""
    given = (await request.body(keyed_items)).items
    bulk_handlers.distinct(given, "sku")
    done = await bulk_handlers.upsert(
        request, statements.upsert, tags, given, statements.conflict_locators
    )
    items = [
        UpsertedItem(one.id, item.sku, one.version, one.status)
        for item, one in zip(given, done, strict=True)
    ]
    return Reply(encode(UpsertedItems(**bulk_handlers.counted(done), items=items)))


async def change_items(request: Request) -> Reply:
    """The same change for each id; those of which there is no item are `missing`."""
    asked = await request.body(items_change)
    values = change_values(asked.set)
    if not values:
        _, missing = await bulk_handlers.by_ids(request, bulk.there, tags, asked.ids)
        return Reply(encode(ItemsChanged(0, missing)))
    try:
        updated, missing = await bulk_handlers.by_ids(
            request, bulk.change, tags, asked.ids, **values
        )
    except Conflict as conflict:
        errors = [FieldError(f"set.{one.field}", one.message) for one in conflict.errors]
        raise Conflict(conflict.detail, *errors) from None
    return Reply(encode(ItemsChanged(updated, missing)))


async def delete_items(request: Request) -> Reply:
    """Those of which there is no item are `missing`."""
    asked = await request.body(items_delete)
    statement = bulk.remove if asked.permanent else bulk.deactivate
    deleted, missing = await bulk_handlers.by_ids(request, statement, tags, asked.ids)
    return Reply(encode(ItemsDeleted(deleted, missing)))


ALL = "/items/bulk"
FAILS = (*BODY_PROBLEMS, Conflict)

routes = [
    Operation(
        "POST",
        ALL,
        create_items,
        "Create up to 1000 items, all or none",
        request=NewItems,
        response=Items,
        status=201,
        errors=FAILS,
    ),
    Operation(
        "PUT",
        ALL,
        upsert_items,
        "Create or replace up to 1000 items by their sku, all or none",
        request=KeyedItems,
        response=UpsertedItems,
        errors=FAILS,
    ),
    Operation(
        "PATCH",
        ALL,
        change_items,
        "Change up to 1000 items alike; absent keeps, null clears",
        request=ItemsChange,
        response=ItemsChanged,
        errors=FAILS,
    ),
    Operation(
        "POST",
        f"{ALL}/delete",
        delete_items,
        "Set up to 1000 items inactive, or with permanent=true remove them",
        request=ItemsDelete,
        response=ItemsDeleted,
        errors=BODY_PROBLEMS,
    ),
]
