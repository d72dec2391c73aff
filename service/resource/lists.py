"""Lists of a resource: all rows, and the rows of a parent."""

from collections.abc import Mapping
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from msgspec import UNSET, structs

from service.cache.generations import TableTags, Tags
from service.db.batch import BatchLoader
from service.errors import Conflict, NotFound
from service.resource import shapes
from service.resource.rows import described
from service.web import paging
from service.web.body import Body
from service.web.codec import Query, Reply
from service.web.endpoint import Handler, Operation
from service.web.request import BODY_PROBLEMS, Request

if TYPE_CHECKING:
    from service.resource.declaration import Resource


def all_rows(of: "Resource[Any]") -> Operation:
    """GET /items."""
    listing, tags, asked, counted = of.listing, of.tags, Query(of.query), of.counted_filters
    parents: list[TableTags] = [of.references[f"{name}_id"].tags for name in of.include]

    async def handler(request: Request) -> Reply:
        return await paging.show(request, await paging.find(request, listing, request.query(asked)))

    def list_tags(request: Request) -> Tags:
        return tags.listed(request.query(asked))

    def tags_with_parents(request: Request) -> Tags:
        query = request.query(asked)
        if query.include is UNSET:
            return tags.listed(query)
        return tags.listed(query) + tuple(tag for parent in parents for tag in parent.lists)

    def share(request: Request) -> bool:
        return paging.share(request.query(asked), counted)

    lists = _with_parents(of, asked) if of.include else handler
    return of.operation(
        "GET",
        "",
        described(
            lists,
            f"list_{of.name}",
            "By page (`page`, `per_page`), or by cursor: start with an empty `cursor=`, continue"
            " with `next_cursor`.\n\nA row must match all filters. A page after the last one has"
            f" no {of.words.many}; its total is still correct.",
        ),
        f"List {of.words.many}, by page or by cursor",
        query=of.query,
        response=of.pages,
        cache_tags=tags_with_parents if of.include else list_tags,
        share=share,
    )


def _with_parents(of: "Resource[Any]", asked: Query[Any]) -> Handler:
    """Return the handler of a list with parents, with one more statement for each parent."""
    listing, shown = of.listing, of.summary
    loaders: Mapping[str, BatchLoader[Any]] = of.loaders

    async def handler(request: Request) -> Reply:
        query = request.query(asked)
        found = await paging.find(request, listing, query)
        if query.include is UNSET:
            return await paging.show(request, found)
        name = query.include
        field = f"{name}_id"
        wanted = [id_ for row in found.items if (id_ := getattr(row, field)) is not None]
        parents = await loaders[name].several(request.db, wanted)
        rows = [
            shown(**structs.asdict(row), **{name: parents.get(getattr(row, field))})
            for row in found.items
        ]
        return await paging.show(request, structs.replace(found, items=rows))

    return handler


def under(of: "Resource[Any]", field: str) -> list[Operation]:
    """GET and POST /users/{id}/items: list the rows of a parent, and create one."""
    return [_list_under(of, field), _create_under(of, field)]


def _list_under(of: "Resource[Any]", field: str) -> Operation:
    parent, tags, listing = of.references[field], of.tags, of.listing
    exists, parent_tags, full = of.exists[field], parent.tags, of.query
    names = [name for name in of.filter_names if name != field]
    filters = shapes.filter_fields(of.fields, [n for n in names if n != "q"], q="q" in names)
    query_type = shapes.list_query(of.words, of.sorts, filters, ())
    asked: Query[Any] = Query(query_type)

    def query_of(request: Request) -> Any:
        row_id = request.row_id()
        return full(**structs.asdict(request.query(asked)), **{field: row_id})

    async def handler(request: Request) -> Reply:
        query = query_of(request)
        found = await paging.find(request, listing, query)
        if not found.items and await exists.get(request.db, getattr(query, field)) is None:
            raise NotFound(f"there is no such {parent.words.one}")
        return await paging.show(request, found)

    def list_tags(request: Request) -> Tags:
        return tags.listed(query_of(request)) + parent_tags.row(request.row_id())

    many, one = of.words.many, parent.words.one
    return Operation(
        "GET",
        f"{parent.path}/{{id}}/{of.segment}",
        described(handler, f"list_{one}_{many}", f"Like the list of all {many}, for one {one}."),
        f"List the {many} of {parent.words.a}, by page or by cursor",
        query=query_type,
        response=of.pages,
        errors=(NotFound,),
        cache_tags=list_tags,
        tag=parent.tag,
    )


def _create_under(of: "Resource[Any]", field: str) -> Operation:
    parent, add = of.references[field], of.adder
    new_type = shapes.below(of.words, parent.words, of.new, of.fields[field])
    body: Body[Any] = Body(new_type)
    values_of = attrgetter(*of.fields, field)  # one more name, so that the result is a tuple

    async def handler(request: Request) -> Reply:
        parent_id = request.row_id()
        new = await request.body(body)
        setattr(new, field, parent_id)
        try:
            return await add(request, values_of(new)[:-1], last=True)
        except Conflict as conflict:
            if any(error.field == field for error in conflict.errors):
                raise NotFound(f"there is no such {parent.words.one}") from None
            raise

    one = parent.words.one
    return Operation(
        "POST",
        f"{parent.path}/{{id}}/{of.segment}",
        described(
            handler,
            f"create_{one}_{of.words.one}",
            f"`{field}` in the body is ignored: the path has the id of the {one}.",
        ),
        f"Create {of.words.a} of {parent.words.a}",
        request=new_type,
        response=of.row,
        status=201,
        errors=(*BODY_PROBLEMS, NotFound, Conflict),
        tag=parent.tag,
    )
