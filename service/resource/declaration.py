"""Declare a resource: a Struct that a client sends, and all that is derived from it."""

from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Collection,
    Coroutine,
    Mapping,
    Sequence,
)
from typing import Any

from msgspec import Struct
from sqlalchemy import MetaData, Table

from service.db.database import Database
from service.db.names import AUDIBLE
from service.db.schema import ACTIVE, COUNTED, totals
from service.db.shape import shape_of
from service.db.writable import WritableDatabase
from service.resource import columns, shapes, transfer
from service.resource.fields import fields
from service.resource.operations import OPERATIONS, operations
from service.resource.statements import Row, Statements, samples
from service.web import row_handlers
from service.web.endpoint import Handler, Operation, Tag
from service.web.row_readers import Reader

# Parameters and binds of every list and export; a filter can't have these names.
RESERVED = frozenset(
    {"page", "per_page", "cursor", "sort", "total", "q", "include", "format", "trailer"}
    | {"limit", "offset", "last_id", "last_key"}
)


class Resource(Statements[Row]):
    """A table and its HTTP operations, derived from the Struct that a client sends.

    ```python
    class NewNote(Struct, kw_only=True):
        slug: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
        title: Annotated[str, Meta(min_length=1, max_length=200, examples=["Shopping"])]
        owner_id: ID | None = None
        pinned: bool = False

    notes = Resource("notes", NewNote, key="slug", sorts=("title",),
                     filters=("owner_id", "pinned"), search=("title",),
                     references={"owner_id": users})
    ```

    The table has `id`, a column for each field, `version`, `created_at` and `updated_at`. All
    parts are attributes, such as `notes.listing`, `notes.by_id` and `notes.operations`.

    Args:
        name: the name of the table, a plural such as `notes`. Names of statements begin with it.
        new: the Struct that POST and PUT take. Its rules (`Meta`) become CHECK constraints, its
            defaults become column defaults. The type of a field is str, bool, int, float, Decimal,
            datetime, date, UUID, a Literal of strings, or a subclass of one of these (such as the
            price in service/items/structs.py). With `| None` the field may be null.
        row: the Struct of a row in a response, if you write it yourself; mypy then knows
            `Resource[Note]`. Its fields are `id`, the fields of `new`, and `version`, `created_at`
            and `updated_at` if the table has them.
        change: the Struct that PATCH takes; by default all fields of `new`, each optional.
        summary: the Struct of a row in a list; by default `row`.
        table: a SQLAlchemy Table of your own. Its columns then decide: without `version` there is
            no ETag, without `is_active` no soft delete; db/shape.py says how to use other names.
            Name constraints `<table>_<field>_<key|fkey|check>`, and indexes as in columns.py.
        path: the path of the collection; by default `/` and the name.
        singular: the singular of the name; by default derived, such as `note` from `notes`.
        description: the description of the tag in the OpenAPI document.
        key: the natural key, a unique string field. Upserts and imports match rows by it. Without
            a key there is no upsert, and an import creates every row.
        unique: other unique fields.
        folded: unique fields that ignore case.
        sorts: fields that a list can be sorted by, besides `id` and `created_at`.
        filters: parameters that filter a list: `<field>` for an equal value, `min_<field>` and
            `max_<field>` for a range.
        search: string fields that the parameter `q` searches for a substring.
        references: the parent resource of each foreign key, by its field `<parent>_id`.
        referenced: whether other tables have foreign keys to this one. A permanent delete may then
            be refused with 409, and the OpenAPI document says so.
        under: fields of `references` whose parent also serves GET and POST `/users/{id}/notes`.
        include: the Structs of parents that a list can embed, with `include=<parent>`.
        soft_delete: whether DELETE without `permanent=true` keeps the row and sets `is_active` to
            false; by default, whether the table has this column.
        versioned: whether the derived table has `version`; without it there is no ETag.
        stamped: whether the derived table has `created_at` and `updated_at`.
        counted: whether a trigger maintains the number of rows, so that a page without filters
            counts no rows; by default, whether the table has `is_active`.
        fillfactor: the fillfactor of the table in percent: free space lets UPDATE write the new
            version of a row to the same page. None is PostgreSQL's default, 100.
        without: operations to leave out, keys of OPERATIONS.
        handlers: functions, or whole Operations, that replace built-in operations, by name. A
            response to GET may be cached, so it must depend only on the path, the query and rows
            of this table.
        extra: additional operations.

    Raises:
        TypeError: a name in the declaration is unknown, or no column has the type of a field.
    """

    def __init__(  # noqa: PLR0913 - a declaration is its arguments
        self,
        name: str,
        new: type[Struct],
        *,
        row: type[Row] | None = None,
        change: type[Struct] | None = None,
        summary: type[Struct] | None = None,
        table: Table | None = None,
        path: str | None = None,
        singular: str | None = None,
        description: str = "",
        key: str | None = None,
        unique: Sequence[str] = (),
        folded: Collection[str] = (),
        sorts: Sequence[str] = (),
        filters: Sequence[str] = (),
        search: Sequence[str] = (),
        references: Mapping[str, "Resource[Any]"] | None = None,
        referenced: bool = False,
        under: Collection[str] = (),
        include: Mapping[str, type[Struct]] | None = None,
        soft_delete: bool | None = None,
        versioned: bool = True,
        stamped: bool = True,
        counted: bool | None = None,
        fillfactor: int | None = 90,
        without: Collection[str] = (),
        handlers: Mapping[str, Handler | Operation] | None = None,
        extra: Sequence[Operation] = (),
    ) -> None:
        self.name, self.new, self.key = name, new, key
        self.fields = fields(new)
        self.words = shapes.words(name, singular)
        self.path = path or f"/{name}"
        self.segment = self.path.rpartition("/")[2]
        self.tag = Tag(name, description)
        self.folded, self.search = tuple(folded), tuple(search)
        self.unique = tuple(dict.fromkeys((*([key] if key else ()), *unique, *folded)))
        self.references = dict(references or {})
        self.referenced = referenced
        self.under, self.include = tuple(under), dict(include or {})
        self.filters, self.without = tuple(filters), frozenset(without)
        self.handlers = dict(handlers or {})
        self._check((*self.unique, *self.search, *self.references, *self.under, *sorts))
        stamps = columns.stamps(versioned=versioned, stamped=stamped)
        kept = columns.kinds(stamps if table is None else table.c, {"id", *self.fields})
        created = ("created_at",) if "created_at" in kept else ()
        self.sorts = tuple(dict.fromkeys(("id", *created, *sorts)))
        if table is None:
            table = columns.table(
                name,
                MetaData(),
                self.fields,
                stamps=stamps,
                unique=self.unique,
                folded=self.folded,
                parents={field: parent.table for field, parent in self.references.items()},
                sorts=self.sorts[1:],
                filters=self.filters,
                search=self.search,
                active=ACTIVE in self.fields,
                fillfactor=fillfactor,
            )
        if ACTIVE in table.c if counted is None else counted:
            table.info.update(COUNTED)
        self.table = table
        shape = shape_of(table)
        self.version = None if shape.version is None else shape.version.name
        self.active = "" if shape.active is None else shape.active.name
        self.soft_delete = bool(self.active) if soft_delete is None else soft_delete
        self.row: type[Row] = row or shapes.row(self.words, self.fields, kept)
        self._shape(change, summary)
        self._add_statements(counted=bool(table.info.get("counted")))
        self.samples = samples(self)
        self.show = row_handlers.shower(self.version)
        self.adder = row_handlers.adder(self.add, self.tags, self.path, self.version)
        self.operations = [*operations(self), *extra]

    def serves(self, operation: str) -> bool:
        """Whether an operation of OPERATIONS is served."""
        return operation not in self.without and (operation != "upsert" or self.key is not None)

    def operation(
        self, method: str, path: str, handler: Handler, summary: str, **more: Any
    ) -> Operation:
        """Return an operation of this resource; `path` is appended to the path of the resource."""
        return Operation(
            method,
            self.path + path,
            handler,
            summary,
            tag=self.tag,
            versioned=self.version is not None,
            **more,
        )

    def import_(
        self,
        db: WritableDatabase,
        chunks: AsyncIterable[bytes],
        reader: Reader,
        *,
        skip: bool,
        progress: transfer.Progress = lambda *_: None,
    ) -> Coroutine[Any, Any, transfer.Imported]:
        """Import the rows of a file; see transfer.import_."""
        return transfer.import_(self.stage, db, chunks, reader, skip=skip, progress=progress)

    def export(self, db: Database, query: Any, *, name: str = AUDIBLE) -> AsyncGenerator[bytes]:
        """Export the rows of an `export_query` as a file; see transfer.export."""
        return transfer.export(self.exported, db, query, name=name)

    def _check(self, names: Collection[str]) -> None:
        bounds = [name[4:] for name in self.filters if name not in self.fields]
        for name in (*names, *bounds):
            if name not in self.fields:
                known = ", ".join(self.fields)
                raise TypeError(f"{self.name}: {name!r} is not a field; the fields are: {known}")
        for name in (*self.under, *(f"{one}_id" for one in self.include)):
            if name not in self.references:
                raise TypeError(f"{self.name}: {name!r} is not in `references`")
        for name in self.filters:
            if name in RESERVED:
                raise TypeError(
                    f"{self.name}: {name!r} can't be a filter: lists already use this name"
                )
        unknown = self.without - OPERATIONS.keys()
        if unknown:
            raise TypeError(
                f"{self.name}: {min(unknown)!r} is not an operation;"
                f" the operations are: {', '.join(OPERATIONS)}"
            )

    def _shape(self, change: type[Struct] | None, summary: type[Struct] | None) -> None:
        names, given = self.words, self.fields
        key = given[self.key] if self.key else None
        self.change = change or shapes.change(names, given)
        self.summary_row: type[Struct] = summary or self.row
        self.summary = shapes.listed(names, self.summary_row, self.include)
        self.pages = shapes.pages(names, self.summary)
        filters = shapes.filter_fields(given, self.filters, q=bool(self.search))
        self.filter_names = [filter_[0] for filter_ in filters]
        self.query = shapes.list_query(names, self.sorts, filters, list(self.include))
        self.export_query = shapes.export_query(names, filters)
        self.new_rows = shapes.many(f"New{names.Many}", self.new, "The body of a bulk POST.")
        self.keyed = self.new if key is None else shapes.keyed(names, self.new, key)
        self.keyed_rows = (
            self.new_rows
            if self.keyed is self.new
            else shapes.many(f"Keyed{names.Many}", self.keyed, "The body of a bulk PUT.")
        )
        self.answers = shapes.bulk_answers(names, self.row, key, versioned=self.version is not None)

    def _add_statements(self, *, counted: bool) -> None:
        self.compile(totals if counted else None)
        # Filters that make PostgreSQL count or read many rows; see paging.share.
        counts = (ACTIVE,) if counted else ()
        self.counted_filters = tuple(
            name
            for name in self.filter_names
            if name not in counts
            and (name not in self.fields or shapes.few_values(self.fields[name]))
        )
