"""The operations of a resource and their order."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from service.db.statement import RefusedError
from service.resource import bulk_rows, change_feed, file_handlers, included, lists, rows
from service.web.endpoint import Operation

if TYPE_CHECKING:
    from service.resource.declaration import Resource

# Functions that build the operations, the most frequent first: the router tries them in this order.
OPERATIONS: dict[str, Callable[["Resource[Any]"], Operation]] = {
    "read": rows.read,
    "list": lists.all_rows,
    "create": rows.create,
    "import": file_handlers.import_,
    "export": file_handlers.export,
    "replace": rows.replace,
    "change": rows.change,
    "delete": rows.delete,
    "bulk_create": bulk_rows.create,
    "upsert": bulk_rows.upsert,
    "bulk_change": bulk_rows.change,
    "bulk_delete": bulk_rows.delete,
    "changes": change_feed.changes,
}
# Those under each parent of `under`.
UNDER = ("list_under", "create_under")


def check_operations(name: str, given: Iterable[str], more: Iterable[str] = ()) -> None:
    """Check the names of operations in a declaration; `more` are allowed too.

    Raises:
        RefusedError: one is not an operation.
    """
    known = (*OPERATIONS, *more)
    if unknown := sorted({*given}.difference(known)):
        raise RefusedError(
            f"{name}: {unknown[0]!r} is not an operation; the operations are: {', '.join(known)}"
        )


def operations(of: "Resource[Any]") -> Iterator[Operation]:
    """Yield the operations of a resource; its own handlers replace the derived ones."""
    for name, make in OPERATIONS.items():
        own = of.handlers.get(name)
        if isinstance(own, Operation):
            yield own
        elif of.serves(name):
            made = make(of)
            if name in of.admin_only or (name == "changes" and "list" in of.admin_only):
                made = made._replace(access="admin")
            yield made if own is None else made._replace(handler=own)
    for field in of.under:
        for made in lists.under(of, field):
            name = "list" if made.method == "GET" else "create"
            admin = of.admin_only & {name, f"{name}_under"}
            yield made._replace(access="admin") if admin else made


def served(of: "Resource[Any]", resources: Sequence["Resource[Any]"]) -> list[Operation]:
    """Return the operations of a resource in an application that serves these resources.

    The read and the list have `include` for the children of the resource that are served too.

    Raises:
        RefusedError: a child has the name of a field.
    """
    children = included.children(of, resources)
    if not children:
        return of.operations
    in_lists = [child for child in children if child.of.newest_in_lists]
    pages = of.pages
    made: list[Operation] = []
    for one in of.operations:
        if (one.method, one.path) == ("GET", f"{of.path}/{{id}}") and of.derives("read"):
            made.append(included.read(of, one, children))
        elif (one.method, one.path) == ("GET", of.path) and in_lists and of.derives("list"):
            listed = lists.all_rows(of, in_lists)
            pages = listed.response
            made.append(listed._replace(access=one.access, limit=one.limit))
        else:
            made.append(one)
    # The lists under a parent have the same pages: the document has one Struct of each name.
    return [one._replace(response=pages) if one.response is of.pages else one for one in made]
