"""The operations of a resource, in the order of the router."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from service.resource import bulk_rows, file_handlers, lists, rows
from service.web.endpoint import Operation

if TYPE_CHECKING:
    from service.resource.declaration import Resource

# The function that builds each operation; the router tries them in this order, so the most
# frequent ones are first.
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
}


def operations(of: "Resource[Any]") -> Iterator[Operation]:
    """Yield the operations of a resource; its handlers replace built-in ones.

    Raises:
        TypeError: `handlers` names an unknown operation.
    """
    unknown = of.handlers.keys() - OPERATIONS.keys()
    if unknown:
        raise TypeError(
            f"{of.name}: {min(unknown)!r} is not an operation;"
            f" the operations are: {', '.join(OPERATIONS)}"
        )
    for name, make in OPERATIONS.items():
        own = of.handlers.get(name)
        if isinstance(own, Operation):
            yield own
        elif of.serves(name):
            made = make(of)
            yield made if own is None else made._replace(handler=own)
    for field in of.under:
        yield from lists.under(of, field)
