"""A resource: a declaration from which table, statements and operations are derived."""

from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Collection,
    Coroutine,
    Mapping,
    Sequence,
)
from functools import partial
from typing import Any

from msgspec import Struct
from sqlalchemy import MetaData, Table

from service.db.change_log import LOGGED
from service.db.database import Database
from service.db.names import AUDIBLE
from service.db.schema import ACTIVE, COUNTED, totals
from service.db.shape import shape_of
from service.db.statement import RefusedError, Statement
from service.db.writable import WritableDatabase
from service.resource import checks, columns, shapes, transfer
from service.resource.derived_structs import DerivedStructs
from service.resource.fields import fields
from service.resource.operations import UNDER, check_operations, operations
from service.resource.owner_rules import owner_column, owner_rules
from service.resource.statements import Row, samples
from service.web import row_handlers
from service.web.endpoint import Handler, Operation, Tag
from service.web.row_readers import Reader


class Resource(DerivedStructs[Row]):
    """A table and its HTTP operations, derived from the Struct of a new row.

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
        name: plural name of the table, the statements and the path.
        new: Struct of the body of POST and PUT. Its rules (`Meta`) become CHECK constraints, its
            defaults column defaults. The type of a field is str, bool, int, float, Decimal,
            datetime, date, UUID, a Literal of strings, or a subclass of one of these (see
            service/items/structs.py for a price), optionally with `| None` for null.
        row: Struct of a row in responses, if you write it yourself; mypy then knows
            `Resource[Note]`. Its fields are `id`, the fields of `new`, and `version`,
            `created_at` and `updated_at` if the table has them.
        change: Struct of the body of PATCH; by default all fields of `new`, each optional.
        summary: Struct of a row in a list; by default the whole row.
        table: your own Table. Its columns decide then: without `version` there is no ETag,
            without `is_active` no soft delete; see db/shape.py for other names. Constraints must
            be named `<table>_<field>_<key|fkey|check>`, indexes like derived ones, see columns.py.
        path: path of the collection; by default `/` and the name.
        singular: singular name; by default derived, such as `note` from `notes`.
        description: description of the group of operations in the OpenAPI document.
        key: the natural key: a unique string field. It identifies rows in an upsert and in a
            file. Without a key there is no upsert, and an import creates every row.
        unique: further unique fields.
        folded: unique fields that ignore case.
        sorts: fields by which a list can be sorted, besides `id` and `created_at`.
        filters: parameters that filter a list: `<field>` for an equal value, `min_<field>` and
            `max_<field>` for a range.
        search: string fields in which `q` searches for a substring.
        references: the resource that a field named `<parent>_id` references.
        referenced: whether other tables reference its rows. A permanent delete may then be
            refused with 409, and the OpenAPI document says so.
        under: references whose parent also has the list and the creation of its rows, such as GET
            and POST `/users/{id}/notes`.
        include: Structs of parents that a list shows with `include=<parent>`.
        newest: how many rows, the newest first, a parent in `under` shows with `include=<name>`, at
            most 100; 0 for no such parameter.
        newest_in_lists: whether the list of the parents has this `include` too.
        owner: field with the id of the user to whom a row belongs, or `id` if a row is a user.
            With authentication, a principal that is not an admin writes own rows only; a row of
            another user is 404.
        private: whether a principal that is not an admin also reads own rows only.
        admin_fields: fields that only an admin can set; others keep their value or default.
        admin_only: operations that only an admin may use; `list` and `create` stand for those under
            a parent too.
        soft_delete: whether DELETE without `permanent=true` keeps the row, with `is_active` false;
            by default True if there is such a field.
        versioned: whether the derived table has `version`; without it there is no ETag.
        stamped: whether the derived table has `created_at` and `updated_at`.
        counted: whether a trigger maintains the number of rows, so that a page without filters
            counts no rows; by default True if there is a field `is_active`.
        fillfactor: percent of a page that INSERT fills, so that an updated row can stay in its
            page (HOT); None means PostgreSQL's 100.
        changes: whether there is a feed of its changes, `GET <path>/changes`; a trigger logs them.
        without: operations that are not served: keys of OPERATIONS and UNDER.
        handlers: by operation name, a function or a whole Operation that replaces the derived one.
            The response of a GET may be cached, so it must depend only on the path, the query and
            rows of this table.
        extra: further operations.
        extra_statements: the statements of your own handlers, for `swiftlet statements`.

    Raises:
        RefusedError: a name in the declaration is unknown, or no column has the type of a field.
    """

    def __init__(  # noqa: PLR0913, PLR0915 - a declaration is its arguments
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
        newest: int = 20,
        newest_in_lists: bool = True,
        owner: str | None = None,
        private: bool = False,
        admin_fields: Sequence[str] = (),
        admin_only: Collection[str] = (),
        soft_delete: bool | None = None,
        versioned: bool = True,
        stamped: bool = True,
        counted: bool | None = None,
        fillfactor: int | None = 90,
        changes: bool = False,
        without: Collection[str] = (),
        handlers: Mapping[str, Handler | Operation] | None = None,
        extra: Sequence[Operation] = (),
        extra_statements: Sequence[Statement[Any]] = (),
    ) -> None:
        self.name, self.new, self.key = name, new, key
        self.fields = fields(new)
        self.words = shapes.words(name, singular)
        self.path = path or f"/{name}"
        self.segment = self.path.rpartition("/")[2]
        self.tag = Tag(name, description)
        checks.check_names(name, self.path)
        checks.check_struct(name, new, self.fields)
        self.folded = checks.sequence(name, "folded", folded)
        self.search = checks.sequence(name, "search", search)
        unique = checks.sequence(name, "unique", unique)
        self.unique = tuple(dict.fromkeys((*([key] if key else ()), *unique, *folded)))
        self.references = dict(references or {})
        self.referenced = referenced
        self.under, self.include = checks.sequence(name, "under", under), dict(include or {})
        self.newest, self.newest_in_lists = newest, newest_in_lists
        self.filters = checks.sequence(name, "filters", filters)
        self.without = frozenset(checks.sequence(name, "without", without))
        self.handlers, self.extra_statements = dict(handlers or {}), tuple(extra_statements)
        stamps = columns.stamps(versioned=versioned, stamped=stamped)
        if table is None:
            checks.check_stamps(name, self.fields, (str(one.key) for one in stamps))
        kept = columns.kinds(stamps if table is None else table.c, {"id", *self.fields})
        created = ("created_at",) if "created_at" in kept else ()
        self.sorts = tuple(dict.fromkeys(("id", *created, *checks.sequence(name, "sorts", sorts))))
        checks.check_uses(self, self.sorts, {"id", *kept})
        self.admin_only = frozenset(checks.sequence(name, "admin_only", admin_only))
        check_operations(name, (*self.without, *self.admin_only), UNDER)
        check_operations(name, self.handlers)
        admin_fields = checks.sequence(name, "admin_fields", admin_fields)
        self.rules = owner_rules(self, owner, admin_fields, private=private)
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
        self.changes = changes
        table.info[LOGGED] = changes
        self.table = table
        shape = shape_of(table)
        self.version = None if shape.version is None else shape.version.name
        self.active = "" if shape.active is None else shape.active.name
        self.soft_delete = bool(self.active) if soft_delete is None else soft_delete
        if self.soft_delete and not self.active:
            raise RefusedError(f"{name}: soft_delete needs a field `{ACTIVE}: bool = True`")
        self.row: type[Row] = row or shapes.row(self.words, self.fields, kept)
        self.owner = owner_column(self)
        self.derive_structs(change, summary)
        self._add_statements(counted=bool(table.info.get("counted")))
        self.samples = samples(self)
        self.show = row_handlers.shower(self.version)
        self.adder = row_handlers.adder(self.add, self.tags, self.path, self.version)
        self.operations = [*operations(self), *extra]

    def serves(self, operation: str) -> bool:
        """Return whether an operation of OPERATIONS or UNDER is served."""
        if operation == "changes" and not self.changes:
            return False
        return operation not in self.without and (operation != "upsert" or self.key is not None)

    def derives(self, operation: str) -> bool:
        """Return whether an operation is served by the derived handler."""
        return self.serves(operation) and operation not in self.handlers

    def operation(
        self, method: str, path: str, handler: Handler, summary: str, **more: Any
    ) -> Operation:
        """Return an operation of this resource, below its path."""
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
        owner: int | None = None,
        progress: transfer.Progress = lambda *_: None,
        also: transfer.Also | None = None,
    ) -> Coroutine[Any, Any, transfer.Imported]:
        """Import the rows of a file; see transfer.import_."""
        claim = partial(self.rules.line_error, owner)
        return transfer.import_(
            self.stage,
            db,
            chunks,
            reader,
            skip=skip,
            owner=owner,
            claim=claim,
            progress=progress,
            also=also,
        )

    def export(
        self, db: Database, query: Any, *, owner: int | None = None, name: str = AUDIBLE
    ) -> AsyncGenerator[bytes]:
        """Yield the file of an `export_query`; see transfer.export."""
        return transfer.export(self.exported, db, query, owner=owner, name=name)

    def _add_statements(self, *, counted: bool) -> None:
        self.compile(totals if counted else None)
        # Filters for which PostgreSQL must count or read many rows: see paging.share.
        counts = (ACTIVE,) if counted else ()
        self.counted_filters = tuple(
            name
            for name in self.filter_names
            if name not in counts
            and (name not in self.fields or shapes.few_values(self.fields[name]))
        )
