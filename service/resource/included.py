"""What `include` adds to rows: the newest rows of their children, and their parents.

A child is a resource with the parent in `under`. The parent does not know it, because it is
declared before; `operations.served` finds the children that an application serves.
"""

from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import UNSET, Raw, Struct

from service.cache.generations import Tags
from service.db.newest import NewestRows
from service.db.statement import RefusedError
from service.resource import shapes
from service.resource.rows import described
from service.slices import next_slice
from service.web.codec import Query, Reply
from service.web.endpoint import Operation
from service.web.paging import is_long
from service.web.request import Request
from service.web.times import encode_each, encode_rows

if TYPE_CHECKING:
    from service.resource.declaration import Resource
    from service.resource.statements import Statements

# Bytes of encoded rows that are put together in a slice.
SLICE_BYTES = 65_536
WITHOUT_ETAG = (
    "A response with `include` has no ETag, because it has more than one row: If-Match and"
    " If-None-Match are ignored."
)


class Child(NamedTuple):
    """A resource whose rows can be included in those of a parent.

    Args:
        name: of the resource, and so of the member and the value of `include`.
        field: its field with the id of the parent.
        of: the resource.
    """

    name: str
    field: str
    of: "Resource[Any]"

    @property
    def loader(self) -> NewestRows[Any]:
        """Its statement."""
        return self.of.newest_by[self.field]

    def tags(self, parent: int) -> Tags:
        """What the rows of a parent depend on."""
        return self.of.tags.having(self.field, parent)

    async def members(self, found: tuple[list[Any], int]) -> bytes:
        """Return the newest rows of a parent and the number of all, as members of its JSON."""
        newest, total = found
        name = self.name.encode()
        if is_long(newest):
            body = b"[%b]" % b",".join(await _encode_long(newest))
        else:
            body = encode_rows(newest, newest)
        return b'"%b":%b,"%b_total":%d' % (name, body, name, total)


def children(of: "Resource[Any]", resources: Iterable["Resource[Any]"]) -> list[Child]:
    """Return the children of a resource among those that an application serves.

    A private child that the parent does not own is not among them, and no child that only an admin
    can list.

    Raises:
        RefusedError: a child has the name of a field.
    """
    found = [
        Child(one.name, field, one)
        for one in resources
        for field in one.under
        if one.newest and one.references[field] is of and _may_be_shown(one, field, of)
    ]
    taken = {*of.row.__struct_fields__, *of.summary_row.__struct_fields__, *of.include}
    for child in found:
        if clash := sorted(taken & {child.name, f"{child.name}_total"}):
            raise RefusedError(
                f"{of.name}: include={child.name} adds a member {clash[0]!r}, which"
                f" {of.words.a} already has: set newest=0 in {child.name}"
            )
    return found


def loaders(of: "Statements[Any]") -> dict[str, NewestRows[Any]]:
    """Return the statements of a child, by its field with the id of the parent."""
    if not of.newest:
        return {}
    return {
        field: NewestRows(
            f"{of.name}.newest_by_{field.removesuffix('_id')}",
            of.summary_row,
            of.table,
            field,
            of.newest,
        )
        for field in of.under
    }


def read(of: "Resource[Any]", plain: Operation, given: Sequence[Child]) -> Operation:
    """GET /users/{id} with `include`, made from the operation without it."""
    read_row, row_tags = plain.handler, plain.cache_tags
    assert row_tags is not None  # noqa: S101 - every read is cached
    by_name = {child.name: child for child in given}
    query = shapes.detail_query(of.words, [*by_name])
    asked: Query[Any] = Query(query)

    def names(request: Request) -> Sequence[str]:
        found = request.query(asked).include
        return () if found is UNSET else found

    def handler(request: Request) -> Awaitable[Reply]:
        # Without a coroutine of its own, a read without `include` costs no more than before.
        return read_included(request) if request.has_query else read_row(request)

    async def read_included(request: Request) -> Reply:
        wanted = names(request)
        reply = await read_row(request)
        if not wanted:
            return reply
        parent = request.row_id()
        members = [
            await child.members(await child.loader.get(request.db, parent))
            for child in map(by_name.__getitem__, wanted)
        ]
        return Reply(with_members(reply.body, members))

    def tags(request: Request) -> Tags:
        found = row_tags(request)
        if not request.has_query:
            return found
        for name in names(request):
            found += by_name[name].tags(request.row_id())
        return found

    each = " ".join(_described(child) for child in given)
    return plain._replace(
        handler=described(
            handler,
            plain.handler.__name__,
            f"{plain.handler.__doc__ or ''}\n\n{each} {WITHOUT_ETAG}".strip(),
        ),
        query=query,
        response=shapes.detailed(of.words, of.row, summaries(given)),
        cache_tags=tags,
    )


def summaries(given: Iterable[Child]) -> dict[str, type[Struct]]:
    """Return the Structs of included rows, as in the list of the child."""
    return {child.name: child.of.summary_row for child in given}


def parent_members(name: str, parents: Mapping[int, Struct]) -> dict[int | None, bytes]:
    """Return each parent as a member of the JSON of a row; for None that of a row without one."""
    start = f'"{name}":'.encode()
    bodies = encode_each(list(parents.values()))
    found: dict[int | None, bytes] = {
        one: start + body for one, body in zip(parents, bodies, strict=True)
    }
    found[None] = start + b"null"
    return found


def with_members(row: bytes, members: Iterable[bytes]) -> bytes:
    """Return the JSON of a row with further members.

    The parts are encoded by themselves, because encode_rows must know the type of a row.
    """
    return row[:-1] + b"," + b",".join(members) + b"}"


async def encode_with_members(
    shown: Sequence[Struct], members: Sequence[Sequence[bytes]]
) -> list[Raw]:
    """Return the JSON of each row with its further members; other tasks may run in between."""
    bodies = await encode_several(shown)
    encoded, size = [], 0
    for body, more in zip(bodies, members, strict=True):
        one = with_members(body, more)
        encoded.append(Raw(one))
        size += len(one)
        if size > SLICE_BYTES:
            size = 0
            await next_slice()
    return encoded


async def encode_several(shown: Sequence[Struct]) -> list[bytes]:
    """Encode rows of one type, each by itself; other tasks may run between long ones."""
    return await _encode_long(shown) if is_long(shown) else encode_each(shown)


async def _encode_long(shown: Sequence[Struct]) -> list[bytes]:
    """Encode row by row: a hundred rows may have a hundred megabytes."""
    encoded = []
    for row in shown:
        await next_slice()
        encoded.append(encode_rows(row, (row,)))
    return encoded


def _may_be_shown(child: "Resource[Any]", field: str, of: "Resource[Any]") -> bool:
    """Return whether every client that reads a row may read its children too.

    A private child is shown by its owner only, and only if the owner is private too.
    """
    if child.admin_only & {"list", "list_under"}:
        return False
    if not child.rules.private:
        return True
    own = of.rules.private and of.rules.field == "id"
    return own and child.rules.field == field


def _described(child: Child) -> str:
    return (
        f"`include={child.name}` adds the newest {child.of.newest} {child.of.words.many}, and in"
        f" `{child.name}_total` the number of all."
    )
