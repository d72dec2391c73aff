"""Operations on up to 1000 rows in one request; all rows or none."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from msgspec import Raw

from service.db.row_changes import change_values
from service.db.upsert import Upserted
from service.errors import Conflict, FieldError
from service.resource import shapes
from service.resource.rows import described
from service.slices import MANY_ROWS, next_slice, sliced
from service.web import bulk_handlers
from service.web.body import Body
from service.web.codec import Reply, encode
from service.web.endpoint import Operation
from service.web.request import BODY_PROBLEMS, Request
from service.web.times import encode_slices, joined

if TYPE_CHECKING:
    from service.resource.declaration import Resource

PROBLEMS = (*BODY_PROBLEMS, Conflict)


def folded(text: str) -> str:
    """Fold case so that values that lower() makes equal, in any locale of PostgreSQL, are equal."""
    return text.casefold().replace("\u0307", "").replace("\u0131", "i")  # of the Turkish I


def create(of: "Resource[Any]") -> Operation:
    """POST /items/bulk."""
    adds, tags, locators, unique = of.adds, of.tags, of.conflict_locators, _unique(of)
    answer, rows, rules = of.answers.many, of.new_rows, of.rules
    body: Body[Any] = Body(rows)

    async def handler(request: Request) -> Reply:
        new = (await request.body(body)).items
        await bulk_handlers.distinct(new, unique)
        owner = request.owner
        if owner is not None:
            rules.check_many(owner, new)
        made = await bulk_handlers.add(request, adds, tags, new, locators)
        return Reply(encode(answer(await encode_slices(made))), 201)

    return of.operation(
        "POST",
        "/bulk",
        described(
            handler,
            f"create_{of.name}",
            "One statement creates all rows. The response has them in the order of the request.",
        ),
        f"Create up to 1000 {of.words.many}, all or none",
        request=rows,
        response=answer,
        status=201,
        errors=PROBLEMS,
    )


def upsert(of: "Resource[Any]") -> Operation:
    """PUT /items/bulk."""
    statement, tags, locators, unique = of.upsert, of.tags, of.conflict_locators, _unique(of)
    key: Any = of.key
    rules = of.rules
    one, many = of.answers.upserted, of.answers.upserted_many
    body: Body[Any] = Body(of.keyed_rows)
    versioned = of.version is not None

    def shown(row: Any, did: Upserted) -> Any:
        if versioned:
            return one(did.id, getattr(row, key), did.version, did.status)
        return one(did.id, getattr(row, key), did.status)

    async def handler(request: Request) -> Reply:
        given = (await request.body(body)).items
        await bulk_handlers.distinct(given, unique)
        owner = request.owner
        if owner is not None:
            rules.check_many(owner, given)
        done = await bulk_handlers.upsert(request, statement, tags, given, locators)
        rows: list[Raw] = []
        for some in sliced(list(zip(given, done, strict=True)), MANY_ROWS):
            await next_slice()
            rows.append(joined(encode([shown(row, did) for row, did in some])))
        return Reply(encode(many(**bulk_handlers.counted(done), items=rows)))

    return of.operation(
        "PUT",
        "/bulk",
        described(
            handler,
            f"upsert_{of.name}",
            f"{of.words.a.capitalize()} with an existing {key} is replaced, any other is created."
            " All are written, or none.",
        ),
        f"Create or replace up to 1000 {of.words.many} by their {key}, all or none",
        request=of.keyed_rows,
        response=many,
        errors=PROBLEMS,
    )


def change(of: "Resource[Any]") -> Operation:
    """PATCH /items/bulk."""
    statements, tags, answer = of.bulk, of.tags, of.answers.changed
    existing, changed, rules = statements.existing, statements.change, of.rules
    shape = shapes.change_many(of.words, of.change)
    body: Body[Any] = Body(shape)

    async def handler(request: Request) -> Reply:
        asked = await request.body(body)
        values = change_values(asked.set)
        if not values:
            _, missing = await bulk_handlers.by_ids(request, existing, tags, asked.ids)
            return Reply(encode(answer(0, missing)))
        owner = request.owner
        if owner is not None:
            rules.check_bulk_change(owner, asked.set)
        try:
            updated, missing = await bulk_handlers.by_ids(
                request, changed, tags, asked.ids, **values
            )
        except Conflict as conflict:
            errors = [FieldError(f"set.{one.field}", one.message) for one in conflict.errors]
            raise Conflict(conflict.detail, *errors) from None
        return Reply(encode(answer(updated, missing)))

    return of.operation(
        "PATCH",
        "/bulk",
        described(
            handler,
            f"change_{of.name}",
            "Makes the same change to the row of each id. Ids that do not exist are in `missing`.",
        ),
        f"Make one change to up to 1000 {of.words.many}; absent fields stay, null clears a field",
        request=shape,
        response=answer,
        errors=PROBLEMS,
    )


def delete(of: "Resource[Any]") -> Operation:
    """POST /items/bulk/delete."""
    statements, tags, answer, soft = of.bulk, of.tags, of.answers.deleted, of.soft_delete
    shape = shapes.delete_many(of.words, soft=soft)
    body: Body[Any] = Body(shape)

    async def handler(request: Request) -> Reply:
        asked = await request.body(body)
        statement = statements.deactivate if soft and not asked.permanent else statements.remove
        deleted, missing = await bulk_handlers.by_ids(request, statement, tags, asked.ids)
        return Reply(encode(answer(deleted, missing)))

    many = of.words.many
    return of.operation(
        "POST",
        "/bulk/delete",
        described(
            handler,
            f"delete_{of.name}",
            "Ids that do not exist are in `missing`.",
        ),
        f"Set up to 1000 {many} inactive, or remove them with permanent=true"
        if soft
        else f"Delete up to 1000 {many}",
        request=shape,
        response=answer,
        errors=PROBLEMS if of.referenced else BODY_PROBLEMS,
    )


def _unique(of: "Resource[Any]") -> Mapping[str, Callable[[Any], Any]]:
    """Return for each unique field a function that maps equal values to equal results."""
    return {
        name: folded if name in of.folded else (lambda value: value)
        for name in of.fields
        if name in of.unique
    }
