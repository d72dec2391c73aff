"""Derive the Structs of a declaration: rows, changes, queries, bulk bodies."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType, new_class
from typing import Annotated, Any, Literal, NamedTuple

from msgspec import UNSET, Meta, Struct, UnsetType, defstruct

from service.db.adaptive import MOST_PER_PAGE
from service.db.statement import RefusedError
from service.resource.fields import Field
from service.web.include import include_of
from service.web.paging import CursorPage, Page

Many = Meta(max_length=1000)
AnyID = Annotated[int, Meta(examples=[1])]
Search = Annotated[str, Meta(min_length=1, max_length=255)]
PageNumber = Annotated[int, Meta(ge=1, le=10**9)]
PageSize = Annotated[int, Meta(ge=1, le=MOST_PER_PAGE)]
# Titles are the names of enumerations in the OpenAPI document and in generated clients.
Total = Annotated[Literal["exact", "estimated", "none"], Meta(title="Total")]
Status = Annotated[Literal["created", "updated", "unchanged"], Meta(title="UpsertStatus")]
Format = Annotated[Literal["ndjson", "csv"], Meta(title="FileFormat")]
OnError = Annotated[Literal["abort", "skip"], Meta(title="OnError")]

# Parameters of every list and export, besides the filters.
PARAMETERS = {"page", "per_page", "cursor", "sort", "total", "include", "q", "format", "trailer"}


class DeleteQuery(Struct, frozen=True):
    """`permanent=true` deletes the row; otherwise it becomes inactive."""

    permanent: bool = False


class ImportQuery(Struct, frozen=True):
    """What to do with wrong lines, and whether to answer as soon as the file is stored."""

    on_error: OnError = "abort"
    background: bool = False


class BulkChanged(NamedTuple):
    """The responses of bulk operations."""

    many: Any
    upserted: Any
    upserted_many: Any
    changed: Any
    deleted: Any


class Words(NamedTuple):
    """The names of a resource: `item`, `items`, `Item`, `Items`."""

    one: str
    many: str
    One: str
    Many: str

    @property
    def a(self) -> str:
        """Return the singular with its article: "an item", "a user"."""
        return f"{'an' if self.one[0] in 'aeio' else 'a'} {self.one.replace('_', ' ')}"


def words(name: str, singular: str | None) -> Words:
    """Return the names that are derived from the plural name of a resource."""
    one = singular or _singular(name)
    return Words(one, name, _camel(one), _camel(name))


def row(names: Words, given: Mapping[str, Field], kept: Mapping[str, Any]) -> Any:
    """Return the Struct of a row: id, fields, and the columns that the database sets."""
    shown = [("id", int), *((one.name, one.shown) for one in given.values())]
    doc = f"{names.a.capitalize()} in a response."
    return _struct(names.One, [*shown, *kept.items()], doc, frozen=True, gc=False)


def change(names: Words, given: Mapping[str, Field]) -> Any:
    """Return the Struct of the body of PATCH: every field may be absent."""
    fields = [(one.name, one.hint | UnsetType, UNSET) for one in given.values()]
    doc = "The body of PATCH: absent fields stay, null clears a field."
    return _struct(f"{names.One}Change", fields, doc)


def keyed(names: Words, new: type[Struct], key: Field) -> Any:
    """Return the Struct of an upsert: `new` with a required key."""
    if key.required and not key.null:
        return new
    fields = [(key.name, key.some)]
    doc = f"{names.a.capitalize()} to upsert by its {key.name}."
    return _struct(f"Keyed{names.One}", fields, doc, bases=(new,), kw_only=True)


def below(names: Words, parent: Words, new: type[Struct], field: Field) -> Any:
    """Return the Struct of POST under a parent, where the reference may be absent."""
    if not field.required:
        return new
    fields = [(field.name, field.hint | UnsetType, UNSET)]
    doc = f"{names.a.capitalize()} of {parent.a}; `{field.name}` is ignored."
    return _struct(f"New{parent.One}{names.One}", fields, doc, bases=(new,), kw_only=True)


def listed(
    names: Words,
    shown: type[Struct],
    include: Mapping[str, type[Struct]],
    children: Mapping[str, type[Struct]] = MappingProxyType({}),
) -> Any:
    """Return the Struct of a row in a list, with the parents and children of `include`."""
    if not include and not children:
        return shown
    parents = [(name, kind | UnsetType | None, UNSET) for name, kind in include.items()]
    told = [f"`{name}` only with `include={name}`, null without one" for name in include]
    told += [_only_with(name) for name in children]
    doc = f"{names.a.capitalize()} in a list; {'; '.join(told)}."
    fields = [*parents, *_newest(children)]
    return _struct(f"Listed{names.One}", fields, doc, bases=(shown,), frozen=True)


def detailed(names: Words, shown: type[Struct], children: Mapping[str, type[Struct]]) -> Any:
    """Return the Struct of one row in a response, with the children of `include`."""
    told = "; ".join(_only_with(name) for name in children)
    doc = f"{names.a.capitalize()} in a response; {told}."
    return _struct(f"Detailed{names.One}", _newest(children), doc, bases=(shown,), frozen=True)


def detail_query(names: Words, children: Sequence[str]) -> Any:
    """Return the Struct of the parameters of the read of a row with children."""
    fields = [("include", include_of(f"{names.One}Include", children) | UnsetType, UNSET)]
    return _struct(f"Detailed{names.One}Query", fields, "What to add to the row.", frozen=True)


def _newest(children: Mapping[str, type[Struct]]) -> list[Any]:
    return [
        field
        for name, kind in children.items()
        for field in (
            (name, list.__class_getitem__(kind) | UnsetType, UNSET),
            (f"{name}_total", int | UnsetType, UNSET),
        )
    ]


def _only_with(name: str) -> str:
    return f"`{name}`, the newest first, and `{name}_total` only with `include={name}`"


def pages(names: Words, shown: type[Struct]) -> tuple[Any, Any]:
    """Return the Structs of a page by number and a page by cursor, with readable names."""
    by_number = f"A page of {names.many} by number; `total` and `pages` are null with `total=none`."
    by_cursor = (
        f"A page of {names.many} by cursor; `total` is absent unless requested, `next_cursor` is"
        " null on the last page."
    )
    return (
        _page(f"{names.One}Page", Page[shown], by_number),  # type: ignore[valid-type]  # known only at run time
        _page(f"{names.One}CursorPage", CursorPage[shown], by_cursor),  # type: ignore[valid-type]  # as above
    )


def filter_fields(given: Mapping[str, Field], filters: Sequence[str], *, q: bool) -> list[Any]:
    """Return the parameters of the filters; `q` follows the filters with few values.

    Raises:
        RefusedError: a filter has the name of another parameter.
    """
    found = []
    if reserved := sorted(PARAMETERS.intersection(filters)):
        raise RefusedError(
            f"lists already have a parameter {reserved[0]!r}: leave it out of `filters`, or give"
            " the field another name"
        )
    for name in filters:
        field, told = given.get(name), f"Only rows with this `{name}`"
        if field is None:
            bound = "at least" if name.startswith("min_") else "at most"
            field, told = given[name[4:]], f"Only rows whose `{name[4:]}` is {bound} this"
        kind: Any = Annotated[field.some, Meta(description=told)]
        found.append((name, kind | UnsetType, UNSET))
    if q:
        few = [n for n, name in enumerate(filters) if name in given and few_values(given[name])]
        found.insert(few[-1] + 1 if few else 0, ("q", Search | UnsetType, UNSET))
    return found


def few_values(field: Field) -> bool:
    """Return whether each value of a filter has its own statement."""
    return field.kind is bool or bool(field.choices)


def list_query(
    names: Words, sorts: Sequence[str], filters: Sequence[Any], include: Sequence[str]
) -> Any:
    """Return the Struct of the parameters of a list."""
    both: Any = Literal[tuple(sign + name for name in sorts for sign in ("", "-"))]
    fields = [
        ("page", PageNumber | UnsetType, UNSET),
        ("per_page", PageSize, 10),
        ("cursor", str | UnsetType, UNSET),
        ("sort", Annotated[both, Meta(title=f"{names.One}Sort")], "id"),
        ("total", Total | UnsetType, UNSET),
        *filters,
    ]
    if include:
        kind = include_of(f"{names.One}ListInclude", include)
        fields.append(("include", kind | UnsetType, UNSET))
    return _struct(f"{names.One}Query", fields, "The parameters of the list.", frozen=True)


def export_query(names: Words, filters: Sequence[Any]) -> Any:
    """Return the Struct of the parameters of an export."""
    fields = [("format", Format, "ndjson"), ("trailer", bool, False), *filters]
    doc = "The parameters of an export: the filters of the list, and the format of the file."
    return _struct(f"{names.One}ExportQuery", fields, doc, frozen=True)


def many(name: str, of: Any, doc: str) -> Any:
    """Return the Struct of a body with up to 1000 rows."""
    return _struct(name, [("items", Annotated[list[of], Many])], doc)


def change_many(names: Words, of: Any) -> Any:
    """Return the Struct of a bulk change; impossible ids are reported as missing."""
    fields = [("ids", Annotated[list[AnyID], Many]), ("set", of)]
    doc = f"The body of a bulk PATCH: one change to many {names.many}."
    return _struct(f"{names.Many}Change", fields, doc)


def delete_many(names: Words, *, soft: bool) -> Any:
    """Return the Struct of a bulk delete."""
    fields: list[Any] = [("ids", Annotated[list[AnyID], Many])]
    if soft:
        fields.append(("permanent", bool, False))
    return _struct(f"{names.Many}Delete", fields, f"The ids of {names.many} to delete.")


def bulk_answers(names: Words, shown: Any, key: Field | None, *, versioned: bool) -> BulkChanged:
    """Return the Structs of the responses of bulk operations."""
    made = f"The created {names.many}, in the order of the request."
    upserted: Any = None
    upserted_many: Any = None
    if key is not None:
        fields = [("id", int), (key.name, key._replace(null=False, hint=key.some).shown)]
        fields += [("version", int)] if versioned else []
        became = f"The result for one {names.one} of the request."
        upserted = _struct(
            f"Upserted{names.One}", [*fields, ("status", Status)], became, frozen=True, gc=False
        )
        counts = [(what, int) for what in ("created", "updated", "unchanged")]
        each = "The number of rows per result, and all results in the order of the request."
        upserted_many = _struct(
            f"Upserted{names.Many}",
            [*counts, ("items", list.__class_getitem__(upserted))],
            each,
            frozen=True,
        )
    missing = ("missing", list[int])
    told = "and the ids that do not exist."
    return BulkChanged(
        many=_struct(f"Created{names.Many}", [("items", list[shown])], made, frozen=True),
        upserted=upserted,
        upserted_many=upserted_many,
        changed=_struct(
            f"{names.Many}Changed",
            [("updated", int), missing],
            f"The number of changed {names.many}, {told}",
            frozen=True,
        ),
        deleted=_struct(
            f"{names.Many}Deleted",
            [("deleted", int), missing],
            f"The number of deleted {names.many}, {told}",
            frozen=True,
        ),
    )


def _page(name: str, of: Any, doc: str) -> Any:
    def body(namespace: dict[str, Any]) -> None:
        namespace |= {"__doc__": doc, "__module__": __name__}

    return new_class(name, (of,), {"frozen": True}, body)


def _struct(name: str, fields: Sequence[Any], doc: str, **options: Any) -> Any:
    return defstruct(name, fields, namespace={"__doc__": doc}, module=__name__, **options)


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def _singular(name: str) -> str:
    for ending, one in (("ies", "y"), ("sses", "ss"), ("xes", "x"), ("ches", "ch"), ("shes", "sh")):
        if name.endswith(ending):
            return name.removesuffix(ending) + one
    return name.removesuffix("s")
