"""Operations on one row: read, create, replace, change, delete."""

from typing import TYPE_CHECKING, Any

from msgspec import structs

from service.cache.generations import Tags
from service.db.row_changes import fields_set
from service.db.writes import Call
from service.errors import Conflict, NotFound
from service.resource.shapes import DeleteQuery
from service.web import row_handlers
from service.web.body import Body
from service.web.codec import Query, Reply
from service.web.direct_waiter import DirectHandler
from service.web.endpoint import Handler, Operation
from service.web.request import BODY_PROBLEMS, Request
from service.web.row_reads import RowReads
from service.web.row_writes import RowWrites

if TYPE_CHECKING:
    from service.resource.declaration import Resource

WRITE_PROBLEMS = (*BODY_PROBLEMS, NotFound, Conflict)
REFERENCED = " If rows of other tables refer to it, it is not removed, and the response is 409."
delete_query = Query(DeleteQuery)


def described(handler: Any, name: str, description: str) -> Handler:
    """Set the name and description that the OpenAPI document shows; return the handler."""
    handler.__name__ = handler.__qualname__ = name
    handler.__doc__ = description
    named: Handler = handler
    return named


def read(of: "Resource[Any]") -> Operation:
    """GET /items/{id}."""
    by_id, tags, show = of.by_id, of.tags, of.show
    owns = of.rules.owns if of.rules.private else None
    inactive = (
        f"{of.words.a.capitalize()} that was deleted without `permanent=true` is shown with"
        f" `{of.active}: false`."
    )

    async def handler(request: Request) -> Reply:
        row = await by_id.get(request.db, request.row_id())
        if row is None or (owns is not None and not owns(request.owner, row)):
            raise NotFound("there is no such row")
        return show(row)

    def row_tags(request: Request) -> Tags:
        return tags.row(request.row_id())

    return of.operation(
        "GET",
        "/{id}",
        described(
            DirectHandler(handler, RowReads(by_id, tags, of.version, private=of.rules.private)),
            f"read_{of.words.one}",
            inactive if of.soft_delete else "",
        ),
        f"Read {of.words.a}",
        response=of.row,
        errors=(NotFound,),
        cache_tags=row_tags,
        private=of.rules.private,
    )


def create(of: "Resource[Any]") -> Operation:
    """POST /items."""
    add, body, astuple, rules = of.adder, Body(of.new), structs.astuple, of.rules

    async def handler(request: Request) -> Reply:
        new = await request.body(body)
        owner = request.owner
        if owner is not None:
            rules.check_new(owner, new)
        return await add(request, astuple(new), last=True)

    direct = RowWrites(
        body,
        lambda new, _: (None, astuple(new)),
        of.add.submit,
        lambda row, _: of.tags.written(row),
        of.version,
        of.path,
    )

    folded = " and ".join(f"`{name}`" for name in of.folded)
    verb = "are" if len(of.folded) > 1 else "is"
    return of.operation(
        "POST",
        "",
        described(
            DirectHandler(handler, direct),
            f"create_{of.words.one}",
            (
                f"{folded} {verb} unique; case is ignored."
                if folded
                else "Unknown fields are ignored. White space around strings is removed."
            )
            + rules.of_new,
        ),
        f"Create {of.words.a}",
        request=of.new,
        response=of.row,
        status=201,
        errors=(*BODY_PROBLEMS, Conflict),
    )


def replace(of: "Resource[Any]") -> Operation:
    """PUT /items/{id}."""
    write, tags, show, body = of.writes.replace, of.tags, of.show, Body(of.new)
    fields, by_id, rules, limited = of.new.__struct_fields__, of.by_id, of.rules, body
    if of.replacement is not of.new:
        limited = Body(of.replacement)

    async def handler(request: Request) -> Reply:
        request.row_id()
        owner = request.owner
        if owner is None:
            given = await request.body(body)
        else:
            given = await request.body(limited)
            await rules.check_replacement(request, owner, given, by_id)
        return show(await row_handlers.write(request, write, tags, fields, given))

    return of.operation(
        "PUT",
        "/{id}",
        described(
            handler,
            f"replace_{of.words.one}",
            f"All fields of the {of.words.one} are replaced. A missing optional field gets its"
            f" default.{rules.of_write}",
        ),
        f"Replace {of.words.a}; missing fields get their default",
        request=of.new,
        response=of.row,
        errors=WRITE_PROBLEMS,
    )


def change(of: "Resource[Any]") -> Operation:
    """PATCH /items/{id}."""
    write, by_id, tags, show, body = of.writes.change, of.by_id, of.tags, of.show, Body(of.change)
    version, rules, unchanged = of.version, of.rules, of.change()

    async def handler(request: Request) -> Reply:
        request.row_id()
        asked = await request.body(body)
        fields = fields_set(asked)
        if not fields:
            return show(await row_handlers.unchanged(request, by_id, version, rules.owns))
        owner = request.owner
        if owner is not None:
            await rules.check_change(request, owner, asked, by_id)
        return show(await row_handlers.write(request, write, tags, fields, asked))

    def plan(asked: Any, row_id: int) -> tuple[int, Call] | None:
        return None if asked == unchanged else (row_id, Call(write, None, None, row_id, asked))

    direct = RowWrites(
        body,
        plan,
        write.among.submit,
        lambda row, asked: tags.written(row, fields_set(asked)),
        version,
    )
    return of.operation(
        "PATCH",
        "/{id}",
        described(
            DirectHandler(handler, direct),
            f"change_{of.words.one}",
            "An absent field keeps its value, null clears it; `{}` changes nothing."
            + rules.of_write,
        ),
        f"Change {of.words.a}; absent fields stay, null clears a field",
        request=of.change,
        response=of.row,
        errors=WRITE_PROBLEMS,
    )


def delete(of: "Resource[Any]") -> Operation:
    """DELETE /items/{id}."""
    return _soft_delete(of) if of.soft_delete else _delete(of)


def _soft_delete(of: "Resource[Any]") -> Operation:
    deactivate, remove, tags, show = of.writes.deactivate, of.writes.remove, of.tags, of.show
    active = (of.active,)

    async def handler(request: Request) -> Reply:
        request.row_id()
        if request.query(delete_query).permanent:
            await row_handlers.write(request, remove, tags)
            return Reply(status=204)
        return show(await row_handlers.write(request, deactivate, tags, active))

    one = of.words.one
    return of.operation(
        "DELETE",
        "/{id}",
        described(
            handler,
            f"delete_{one}",
            f"Sets the {one} inactive. With `permanent=true` it is removed, and the response is"
            f" 204.{REFERENCED if of.referenced else ''}",
        ),
        f"Set {of.words.a} inactive, or remove it with permanent=true (204)",
        query=DeleteQuery,
        response=of.row,
        errors=(NotFound, *((Conflict,) if of.referenced else ())),
    )


def _delete(of: "Resource[Any]") -> Operation:
    remove, tags = of.writes.remove, of.tags

    async def handler(request: Request) -> Reply:
        await row_handlers.write(request, remove, tags)
        return Reply(status=204)

    return of.operation(
        "DELETE",
        "/{id}",
        described(
            handler,
            f"delete_{of.words.one}",
            f"Removes the {of.words.one}.{REFERENCED if of.referenced else ''}",
        ),
        f"Delete {of.words.a}",
        status=204,
        errors=(NotFound, *((Conflict,) if of.referenced else ())),
    )
