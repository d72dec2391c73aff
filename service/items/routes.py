"""The items' handlers, then their route list."""

from msgspec import UNSET, structs

from service.db.writes import change_values
from service.errors import Conflict, NotFound, Stale
from service.items import statements
from service.items.structs import (
    DeleteQuery,
    Item,
    ItemChange,
    ItemQuery,
    ItemWithOwner,
    NewItem,
    OwnedItemQuery,
)
from service.web import conditional, paging
from service.web.endpoint import BODY_PROBLEMS, Operation, Request
from service.web.wire import Body, Header, Query, Reply, encode

new_item = Body(NewItem)
item_change = Body(ItemChange)
item_query = Query(ItemQuery)
owned_item_query = Query(OwnedItemQuery)
delete_query = Query(DeleteQuery)


async def list_items(request: Request) -> Reply:
    query = request.query(item_query)
    found = await paging.find(request, statements.listing, query)
    if query.include is UNSET:
        return paging.show(request, found)
    wanted = [item.owner_id for item in found.items if item.owner_id is not None]
    owners = await statements.owners.several(request.db, wanted)
    items = [
        ItemWithOwner(**structs.asdict(item), owner=owners.get(item.owner_id))
        for item in found.items
    ]
    return paging.show(request, structs.replace(found, items=items))


async def create_item(request: Request) -> Reply:
    return await _add(request, await request.body(new_item))


async def read_item(request: Request) -> Reply:
    item = await statements.by_id.get(request.db, request.row_id())
    if item is None:
        raise NotFound("there is no such item")
    if conditional.not_modified(request.header(b"if-none-match"), item.version):
        return Reply(status=304, headers=_headers(item))
    return _shown(item)


async def replace_item(request: Request) -> Reply:
    item_id = request.row_id()
    new = structs.asdict(await request.body(new_item))
    return _shown(await conditional.write(request, statements.writes.replace, item_id, **new))


async def change_item(request: Request) -> Reply:
    item_id = request.row_id()
    values = change_values(await request.body(item_change))
    if values:
        return _shown(await conditional.write(request, statements.writes.change, item_id, **values))
    match = conditional.if_match(request.header(b"if-match"))
    item = await statements.by_id.get(request.db, item_id)
    if item is None or (match is not None and not match.allows(item.version)):
        raise conditional.refusal(match, item.version if item else None)
    return _shown(item)


async def delete_item(request: Request) -> Reply:
    item_id = request.row_id()
    if request.query(delete_query).permanent:
        await conditional.write(request, statements.writes.remove, item_id)
        return Reply(status=204)
    return _shown(await conditional.write(request, statements.writes.deactivate, item_id))


async def list_owned_items(request: Request) -> Reply:
    owner_id = request.row_id()
    owned = structs.asdict(request.query(owned_item_query))
    query = ItemQuery(**owned, owner_id=owner_id)
    found = await paging.find(request, statements.listing, query)
    if not found.items and await statements.owner_exists.get(request.db, owner_id) is None:
        raise NotFound("there is no such user")
    return paging.show(request, found)


async def create_owned_item(request: Request) -> Reply:
    owner_id = request.row_id()
    new = await request.body(new_item)
    new.owner_id = owner_id
    try:
        return await _add(request, new)
    except Conflict as conflict:
        if any(error.field == "owner_id" for error in conflict.errors):
            raise NotFound("there is no such user") from None
        raise


async def _add(request: Request, new: NewItem) -> Reply:
    item = await statements.add.run(request.db, structs.astuple(new))
    return Reply(encode(item), 201, (*_headers(item), (b"location", b"/items/%d" % item.id)))


def _shown(item: Item) -> Reply:
    return Reply(encode(item), headers=_headers(item))


def _headers(item: Item) -> tuple[Header, ...]:
    return ((b"etag", conditional.etag(item.version)), REVALIDATE)


# A client may keep an answer, and asks each time whether it still holds.
REVALIDATE = (b"cache-control", b"private, no-cache")

THIS = "/items/{id}"
WRITE_FAILS = (*BODY_PROBLEMS, NotFound, Conflict, Stale)

routes = [
    Operation("GET", THIS, read_item, "Read an item", gives=Item, fails=(NotFound,)),
    Operation(
        "GET",
        "/items",
        list_items,
        "List items, by page or by cursor",
        query=ItemQuery,
        gives=(
            paging.Page[Item],
            paging.CursorPage[Item],
            paging.Page[ItemWithOwner],
            paging.CursorPage[ItemWithOwner],
        ),
    ),
    Operation(
        "POST",
        "/items",
        create_item,
        "Create an item",
        takes=NewItem,
        gives=Item,
        status=201,
        fails=(*BODY_PROBLEMS, Conflict),
    ),
    Operation(
        "PUT",
        THIS,
        replace_item,
        "Replace an item; what is missing takes its default",
        takes=NewItem,
        gives=Item,
        fails=WRITE_FAILS,
    ),
    Operation(
        "PATCH",
        THIS,
        change_item,
        "Change an item; absent keeps, null clears",
        takes=ItemChange,
        gives=Item,
        fails=WRITE_FAILS,
    ),
    Operation(
        "DELETE",
        THIS,
        delete_item,
        "Set an item inactive, or with permanent=true remove it (204)",
        query=DeleteQuery,
        gives=Item,
        fails=(NotFound, Conflict, Stale),
    ),
    Operation(
        "GET",
        "/users/{id}/items",
        list_owned_items,
        "List a user's items, by page or by cursor",
        query=OwnedItemQuery,
        gives=(paging.Page[Item], paging.CursorPage[Item]),
        fails=(NotFound,),
    ),
    Operation(
        "POST",
        "/users/{id}/items",
        create_owned_item,
        "Create an item that the user owns",
        takes=NewItem,
        gives=Item,
        status=201,
        fails=(*BODY_PROBLEMS, NotFound, Conflict),
    ),
]
