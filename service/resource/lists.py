"""Lists of a resource: all rows, and the rows of a parent."""

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from msgspec import UNSET, structs
from starlette.types import Scope

from service.cache.generations import Tags
from service.db.batch import BatchLoader
from service.db.database import Database
from service.errors import Conflict, NotFound
from service.resource import included, shapes
from service.resource.included import Child
from service.resource.rows import described
from service.slices import MANY_ROWS, next_slice
from service.web import paging
from service.web.body import Body
from service.web.codec import Query, Reply
from service.web.endpoint import Handler, Operation
from service.web.principal import Private
from service.web.request import BODY_PROBLEMS, Request

if TYPE_CHECKING:
    from service.resource.declaration import Resource


def all_rows(of: "Resource[Any]", children: Sequence[Child] = ()) -> Operation:
    """GET /items; `children` are those that `include` may name beside the parents."""
    listing, tags, counted = of.listing, of.tags, of.counted_filters
    query, answer = of.query, of.pages
    if children:
        query, answer = _with_children(of, children)
    asked: Query[Any] = Query(query)
    included_tags = {name: of.references[f"{name}_id"].tags.lists for name in of.include}
    included_tags |= {child.name: child.of.tags.lists for child in children}
    names = {child.name for child in children}

    async def handler(request: Request) -> Reply:
        return await paging.show(request, await paging.find(request, listing, request.query(asked)))

    def list_tags(request: Request) -> Tags:
        return tags.listed(request.query(asked))

    def tags_with_included(request: Request) -> Tags:
        query = request.query(asked)
        found = tags.listed(query)
        for name in () if query.include is UNSET else query.include:
            found += included_tags[name]
        return found

    def share(request: Request) -> bool:
        query = request.query(asked)
        shown = query.include if names and query.include is not UNSET else ()
        # The newest rows of ten parents take 1 ms, more than a request to Redis.
        return paging.share(query, counted) or not names.isdisjoint(shown)

    lists = _including(of, asked, children) if included_tags else handler
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
        query=query,
        response=answer,
        cache_tags=tags_with_included if included_tags else list_tags,
        share=share,
        private=of.rules.private or _include_is_private(of),
    )


def _include_is_private(of: "Resource[Any]") -> Private:
    """Whether a list depends on the principal only if it includes a parent."""
    parents = (of.references[f"{name}_id"] for name in of.include)
    return _may_include if any(parent.rules.private for parent in parents) else False


def _may_include(scope: Scope) -> bool:
    """Whether the query may have `include`; a name can be percent-encoded."""
    query = scope["query_string"]
    return b"include" in query or b"%" in query


def _with_children(of: "Resource[Any]", children: Sequence[Child]) -> tuple[Any, Any]:
    """Return the Structs of the parameters and of the pages of a list with children."""
    filters = shapes.filter_fields(of.fields, of.filters, q=bool(of.search))
    include = [*of.include, *(child.name for child in children)]
    shown = shapes.listed(of.words, of.summary_row, of.include, included.summaries(children))
    query = shapes.list_query(of.words, of.sorts, filters, include)
    return query, shapes.pages(of.words, shown)


def _including(of: "Resource[Any]", asked: Query[Any], children: Sequence[Child]) -> Handler:
    """Return the handler of a list with `include`: one more statement for each name in it."""
    listing = of.listing
    loaders: Mapping[str, BatchLoader[Any]] = of.loaders
    rules = {name: of.references[f"{name}_id"].rules for name in of.include}
    by_name = {child.name: child for child in children}

    async def handler(request: Request) -> Reply:
        query = request.query(asked)
        found = await paging.find(request, listing, query)
        if query.include is UNSET:
            return await paging.show(request, found)
        members: list[list[bytes]] = [[] for _ in found.items]
        for name in query.include:
            if name in loaders:
                ids = [getattr(row, f"{name}_id") for row in found.items]
                wanted = (one for one in ids if one is not None)
                parents = await loaders[name].several(request.db, wanted)
                parents = rules[name].visible(request.owner, parents)
                shown = included.parent_members(name, parents)
                for one, more in zip(ids, members, strict=True):
                    more.append(shown.get(one) or shown[None])
            else:
                child = by_name[name]
                newest = await child.loader.several(request.db, (row.id for row in found.items))
                encoded = 0
                for row, more in zip(found.items, members, strict=True):
                    encoded += len(newest[row.id][0])
                    if encoded > MANY_ROWS:
                        encoded = 0
                        await next_slice()
                    more.append(await child.members(newest[row.id]))
        rows = await included.encode_with_members(found.items, members)
        return await paging.show(request, structs.replace(found, items=rows))

    return handler


def under(of: "Resource[Any]", field: str) -> list[Operation]:
    """GET and POST /users/{id}/items: list the rows of a parent, and create one."""
    made = {"list_under": _list_under, "create_under": _create_under}
    return [make(of, field) for name, make in made.items() if of.serves(name)]


def _list_under(of: "Resource[Any]", field: str) -> Operation:
    parent, tags, listing = of.references[field], of.tags, of.listing
    exists, parent_tags, full = of.exists[field], parent.tags, of.query
    private = parent.rules.private
    # Each parent is the owner of its rows: who may list them is who may read the parent.
    limited = not (private and parent.rules.field == "id" and of.rules.field == field)
    names = [name for name in of.filter_names if name != field]
    filters = shapes.filter_fields(of.fields, [n for n in names if n != "q"], q="q" in names)
    query_type = shapes.list_query(of.words, of.sorts, filters, ())
    asked: Query[Any] = Query(query_type)

    def query_of(request: Request) -> Any:
        row_id = request.row_id()
        return full(**structs.asdict(request.query(asked)), **{field: row_id})

    async def handler(request: Request) -> Reply:
        query, owner = query_of(request), request.owner
        if private and owner is not None:
            await _check_parent(of, field, request.db, owner, request.row_id())
        found = await paging.find(request, listing, query, limited=limited)
        if not found.items and await exists.get(request.db, getattr(query, field)) is None:
            raise NotFound(f"there is no such {parent.words.one}")
        return await paging.show(request, found)

    def list_tags(request: Request) -> Tags:
        return tags.listed(query_of(request)) + parent_tags.row(request.row_id())

    many, one = of.words.many, parent.words.one
    text = f"Like the list of all {many}, for one {one}." if of.serves("list") else ""
    return Operation(
        "GET",
        f"{parent.path}/{{id}}/{of.segment}",
        described(handler, f"list_{one}_{many}", text),
        f"List the {many} of {parent.words.a}, by page or by cursor",
        query=query_type,
        response=of.pages,
        errors=(NotFound,),
        cache_tags=list_tags,
        tag=parent.tag,
        private=private or of.rules.private,
    )


async def _check_parent(
    of: "Resource[Any]", field: str, db: Database, owner: int, parent_id: int
) -> None:
    """Check that a parent belongs to the owner.

    Raises:
        NotFound: it does not, or it does not exist.
    """
    parent = of.references[field]
    if parent.rules.field == "id":
        found = parent_id == owner
    else:
        found = bool(await of.exists_own[field].get(db, parent_id, owner))
    if not found:
        raise NotFound(f"there is no such {parent.words.one}")


def _create_under(of: "Resource[Any]", field: str) -> Operation:
    parent, add, rules = of.references[field], of.adder, of.rules
    new_type = shapes.below(of.words, parent.words, of.new, of.fields[field])
    body: Body[Any] = Body(new_type)
    values_of = attrgetter(*of.fields, field)  # one more name, so that the result is a tuple

    async def handler(request: Request) -> Reply:
        parent_id, owner = request.row_id(), request.owner
        if owner is not None and parent.rules.private:
            await _check_parent(of, field, request.db, owner, parent_id)
        new = await request.body(body)
        setattr(new, field, parent_id)
        if owner is not None:
            rules.check_new(owner, new)
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
