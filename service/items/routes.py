"""The items' handlers, then their route list."""

from msgspec import UNSET, structs

from service.cache.generations import EVERYTHING, Tags
from service.db.changes import change_values, fields_set
from service.errors import (
    Conflict,
    FieldError,
    Invalid,
    InvalidLines,
    NotFound,
)
from service.items import statements, transfer
from service.items.statements import owner_tags, tags
from service.items.structs import (
    DeleteQuery,
    ExportQuery,
    ImportQuery,
    Item,
    ItemChange,
    ItemQuery,
    ListedItem,
    NewItem,
    OwnedItemQuery,
)
from service.web import paging, row_handlers
from service.web.body import Body
from service.web.codec import Query, Reply, encode
from service.web.endpoint import Operation
from service.web.formats import reader
from service.web.inflate import decoded
from service.web.request import BODY_PROBLEMS, Request
from service.web.stream import Chunks
from service.web.upload import Upload

new_item = Body(NewItem)
item_change = Body(ItemChange)
item_query = Query(ItemQuery)
owned_item_query = Query(OwnedItemQuery)
delete_query = Query(DeleteQuery)
export_query = Query(ExportQuery)
import_query = Query(ImportQuery)


class ItemPage(paging.Page[ListedItem], frozen=True):
    """A page of items by number; `total` and `pages` are null with `total=none`."""


class ItemCursorPage(paging.CursorPage[ListedItem], frozen=True):
    """A page of items by cursor; `total` only when asked for, `next_cursor` null at the end."""


FILES = {"ndjson": b"application/x-ndjson", "csv": b"text/csv; charset=utf-8"}


async def list_items(request: Request) -> Reply:
    """By page (`page`, `per_page`), or by cursor: `cursor=` starts, and `next_cursor` goes on.

    The filters go together. A page past the last one has no items, and the right total.
    """
    query = request.query(item_query)
    found = await paging.find(request, statements.listing, query)
    if query.include is UNSET:
        return await paging.show(request, found)
    wanted = [item.owner_id for item in found.items if item.owner_id is not None]
    owners = await statements.owners.several(request.db, wanted)
    items = [
        ListedItem(**structs.asdict(item), owner=owners.get(item.owner_id)) for item in found.items
    ]
    return await paging.show(request, structs.replace(found, items=items))


def list_tags(request: Request) -> Tags:
    query = request.query(item_query)
    return tags.listed(query) + (() if query.include is UNSET else owner_tags.lists)


def share_list(request: Request) -> bool:
    return paging.share(request.query(item_query), ("q", "min_price", "max_price"))


async def create_item(request: Request) -> Reply:
    """Unknown fields are ignored; strings are stripped of white space around them."""
    new = await request.body(new_item)
    return await row_handlers.add(request, statements.add, tags, structs.astuple(new))


async def import_items(request: Request) -> Reply:
    """NDJSON, or CSV with a header line, of any length; also with `Content-Encoding: gzip`.

    A row whose `sku` exists is changed where it differs, any other is created.
    """
    settings = request.state["settings"]
    skip = request.query(import_query).on_error == "skip"
    rows_of = reader(NewItem, request.header(b"content-type"), settings.body_limit)
    async with Upload(request, settings.import_limit) as body:
        file = decoded(body.parts(), request.header(b"content-encoding"), settings.import_limit)
        done = await request.write(
            lambda db: body.run(transfer.import_(db, file, rows_of, skip=skip)),
            lambda done: (EVERYTHING,) if done.created or done.updated else (),
        )
    return Reply(encode(done))


async def export_items(request: Request) -> Reply:
    """All items, or those that the filters leave, in the order of their ids."""
    query = request.query(export_query)
    if query.trailer and query.format == "csv":
        raise Invalid("a CSV has no trailer", FieldError("trailer", "only with format=ndjson"))
    chunks = Chunks(transfer.export(request.db, query, name=request.db.name))
    if request.scope["method"] != "HEAD":
        await chunks.begin(request.gone())
    file = b'attachment; filename="items.%b"' % query.format.encode()
    return Reply(
        chunks=chunks,
        content_type=FILES[query.format],
        headers=((b"content-disposition", file),),
    )


async def read_item(request: Request) -> Reply:
    """An item that was deleted without `permanent=true` is shown with `is_active: false`."""
    return await row_handlers.read(request, statements.by_id)


def item_tags(request: Request) -> Tags:
    return tags.row(request.row_id())


async def replace_item(request: Request) -> Reply:
    """The item is replaced as a whole: optional fields that are missing take their default."""
    request.row_id()
    new = structs.asdict(await request.body(new_item))
    return row_handlers.shown(
        await row_handlers.write(request, statements.writes.replace, tags, new, **new)
    )


async def change_item(request: Request) -> Reply:
    """A field that is absent stays, null clears it; `{}` changes nothing."""
    request.row_id()
    change = await request.body(item_change)
    values = change_values(change)
    if not values:
        return row_handlers.shown(await row_handlers.unchanged(request, statements.by_id))
    return row_handlers.shown(
        await row_handlers.write(
            request, statements.writes.change, tags, fields_set(change), **values
        )
    )


async def delete_item(request: Request) -> Reply:
    """The item stays, inactive; with `permanent=true` it is gone, and the answer is 204."""
    request.row_id()
    if request.query(delete_query).permanent:
        await row_handlers.write(request, statements.writes.remove, tags)
        return Reply(status=204)
    return row_handlers.shown(
        await row_handlers.write(request, statements.writes.deactivate, tags, ("is_active",))
    )


async def list_owned_items(request: Request) -> Reply:
    """As the list of all items, for those of one user."""
    query = _owned(request)
    found = await paging.find(request, statements.listing, query)
    if not found.items and await statements.owner_exists.get(request.db, query.owner_id) is None:
        raise NotFound("there is no such user")
    return await paging.show(request, found)


def owned_tags(request: Request) -> Tags:
    return tags.listed(_owned(request)) + owner_tags.row(request.row_id())


async def create_owned_item(request: Request) -> Reply:
    """`owner_id` in the body is ignored: the user in the path owns the item."""
    owner_id = request.row_id()
    new = await request.body(new_item)
    new.owner_id = owner_id
    try:
        return await row_handlers.add(request, statements.add, tags, structs.astuple(new))
    except Conflict as conflict:
        if any(error.field == "owner_id" for error in conflict.errors):
            raise NotFound("there is no such user") from None
        raise


def _owned(request: Request) -> ItemQuery:
    owner_id = request.row_id()
    return ItemQuery(**structs.asdict(request.query(owned_item_query)), owner_id=owner_id)


THIS = "/items/{id}"
WRITE_FAILS = (*BODY_PROBLEMS, NotFound, Conflict)

routes = [
    Operation(
        "GET",
        THIS,
        read_item,
        "Read an item",
        response=Item,
        errors=(NotFound,),
        cache_tags=item_tags,
    ),
    Operation(
        "GET",
        "/items",
        list_items,
        "List items, by page or by cursor",
        query=ItemQuery,
        response=(ItemPage, ItemCursorPage),
        cache_tags=list_tags,
        share=share_list,
    ),
    Operation(
        "POST",
        "/items",
        create_item,
        "Create an item",
        request=NewItem,
        response=Item,
        status=201,
        errors=(*BODY_PROBLEMS, Conflict),
    ),
    Operation(
        "POST",
        "/items/import",
        import_items,
        "Bring in a file of items: whose sku stands is changed, any other is new",
        query=ImportQuery,
        files=("application/x-ndjson", "text/csv"),
        response=transfer.Imported,
        errors=(*BODY_PROBLEMS, InvalidLines),
    ),
    Operation(
        "GET",
        "/items/export",
        export_items,
        "Write the items into a file, in one snapshot",
        query=ExportQuery,
        files=("application/x-ndjson", "text/csv"),
    ),
    Operation(
        "PUT",
        THIS,
        replace_item,
        "Replace an item; what is missing takes its default",
        request=NewItem,
        response=Item,
        errors=WRITE_FAILS,
    ),
    Operation(
        "PATCH",
        THIS,
        change_item,
        "Change an item; absent keeps, null clears",
        request=ItemChange,
        response=Item,
        errors=WRITE_FAILS,
    ),
    Operation(
        "DELETE",
        THIS,
        delete_item,
        "Set an item inactive, or with permanent=true remove it (204)",
        query=DeleteQuery,
        response=Item,
        errors=(NotFound,),
    ),
    Operation(
        "GET",
        "/users/{id}/items",
        list_owned_items,
        "List a user's items, by page or by cursor",
        query=OwnedItemQuery,
        response=(ItemPage, ItemCursorPage),
        errors=(NotFound,),
        cache_tags=owned_tags,
    ),
    Operation(
        "POST",
        "/users/{id}/items",
        create_owned_item,
        "Create an item that the user owns",
        request=NewItem,
        response=Item,
        status=201,
        errors=(*BODY_PROBLEMS, NotFound, Conflict),
    ),
]
