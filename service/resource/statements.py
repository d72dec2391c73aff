"""The statements of a declaration, in the order of its operations."""

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic

from msgspec import Struct
from sqlalchemy import (
    BigInteger,
    Table,
    bindparam,
    select,
)

from service.cache.generations import TableTags
from service.db import list_names
from service.db.batch import BatchLoader, GroupCommit
from service.db.bulk import Adds, Bulk
from service.db.conflicts import missing_parents, taken_values
from service.db.copy import Export
from service.db.keyset import Listing
from service.db.newest import NewestRows
from service.db.ownership import OWN, Owner
from service.db.staging import StagingTable
from service.db.statement import Statement
from service.db.unique_commit import UniqueCommit
from service.db.upsert import Upsert
from service.db.writes import Writes
from service.resource import included
from service.resource.fields import Field
from service.resource.list_filters import listing
from service.resource.owner_rules import OwnerRules
from service.resource.shapes import few_values

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    from service.resource.declaration import Resource

    Row = TypeVar("Row", bound=Struct, default=Any)
else:
    from typing import TypeVar

    Row = TypeVar("Row", bound=Struct)

# Default arguments of `explain` for any resource: typical values.
SAMPLES: dict[str, object] = {
    "after": 0,
    "excluded": [],
    "id": 1,
    "last_id": 1,
    "limit": 11,
    "offset": 0,
    "parents": [1],
    "q": "%a%",
    "upto": 20_000,
    "versions": [1],
}
# Typical bounds of a range filter.
BOUNDS: dict[type, tuple[object, object]] = {
    int: (10, 100),
    float: (10.0, 100.0),
    Decimal: (Decimal(10), Decimal(100)),
    datetime: (datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)),
    date: (date(2026, 1, 1), date(2027, 1, 1)),
}


class Statements(Generic[Row]):
    """The statements of a resource, only those that its operations need."""

    name: str
    table: Table
    new: type[Struct]
    row: type[Row]
    change: type[Struct]
    keyed: type[Struct]
    summary_row: type[Struct]
    fields: Mapping[str, Field]
    key: str | None
    unique: tuple[str, ...]
    folded: tuple[str, ...]
    sorts: tuple[str, ...]
    filters: tuple[str, ...]
    filter_names: list[str]
    search: tuple[str, ...]
    references: "Mapping[str, Resource[Any]]"
    under: tuple[str, ...]
    include: Mapping[str, type[Struct]]
    extra_statements: tuple[Statement[Any], ...]
    rules: OwnerRules
    owner: Owner | None
    newest: int

    upsert: Upsert
    adds: Adds[Row]
    bulk: Bulk
    count: Statement[int]
    stage: StagingTable
    exported: Export

    def serves(self, operation: str) -> bool:
        """Return whether an operation is served."""
        raise NotImplementedError

    @cached_property
    def writes(self) -> Writes[Row]:
        """The replacements, changes and deletions of one row."""
        return Writes(self.name, self.row, self.table, self.new, self.change, owner=self.owner)

    def compile(self, totals: Table | None) -> None:
        """Build the statements of the served operations."""
        name, table, row, new = self.name, self.table, self.row, self.new
        key: Any = self.key
        folded = key in self.folded
        # Rows that own themselves are only made by admins.
        claimed = None if self.rules.sent is None else self.owner
        self.tags: TableTags = TableTags(table.name, *_tag_fields(self))
        self.by_id: BatchLoader[Row] = BatchLoader(f"{name}.by_id", row, table)
        self.conflict_locators: dict[str, Statement[int]] = dict(_conflict_locators(self))
        self.add: GroupCommit[Row]
        if key is None:
            self.add = GroupCommit(f"{name}.add", row, table, new, key=None)
        else:
            taken = self.conflict_locators.get(key) or taken_values(
                f"{name}.{key}_taken", table, key, folded=folded
            )
            self.add = UniqueCommit(f"{name}.add", row, table, new, key, taken, folded=folded)
        self.loaders: dict[str, BatchLoader[Any]] = {
            include: BatchLoader(f"{name}.{include}s", kind, self.references[f"{include}_id"].table)
            for include, kind in self.include.items()
        }
        self.exists: dict[str, Statement[int]] = {
            field: _exists(f"{name}.{_parent(field)}_exists", parent.table)
            for field, parent in self.references.items()
            if field in self.under
        }
        self.exists_own: dict[str, Statement[int]] = {
            field: _exists_own(f"{name}.{_parent(field)}_exists{OWN}", owner)
            for field in self.exists
            if (owner := self.references[field].owner) is not None
            and self.references[field].rules.private
            and owner.column.name != "id"
        }
        self.newest_by: dict[str, NewestRows[Any]] = included.loaders(self)
        if self.serves("bulk_create"):
            self.adds = Adds(f"{name}.add_all", row, table, new, key, folded=folded)
        if self.serves("upsert"):
            self.upsert = Upsert(
                f"{name}.upsert", table, self.keyed, key, folded=folded, owner=claimed
            )
        if self.serves("bulk_change") or self.serves("bulk_delete"):
            self.bulk = Bulk(name, table, self.change, owner=self.owner)
        self.listing: Listing[Any] = listing(self, totals)
        if self.serves("import") or self.serves("export"):
            total = self.listing.count((), "exact")
            self.count = Statement(f"{name}.count", int, total, prepare=False)
        if self.serves("import"):
            self.stage = StagingTable(
                f"{name}.import", table, new, key=key, folded=folded, owner=claimed
            )
        if self.serves("export"):
            self.exported = Export(f"{name}.export", self.listing, row)
        self.prepared: tuple[Statement[Any], ...] = tuple(dict.fromkeys(self._prepared()))

    def _prepared(self) -> Iterator[Statement[Any]]:
        if self.serves("create") or (self.under and self.serves("create_under")):
            yield from self.add.prepared
        if self.serves("read") or self.serves("change"):
            yield from self.by_id.prepared
        for loader in self.loaders.values():
            yield from loader.prepared
        yield from (*self.exists.values(), *self.exists_own.values())
        yield from (one.statement for one in self.newest_by.values())
        if any(map(self.serves, ("replace", "change", "delete"))):
            yield from self.writes.prepared
        for name in ("adds", "upsert", "bulk"):
            if name in vars(self):
                yield from vars(self)[name].prepared
        yield from (*self.conflict_locators.values(), *self.extra_statements)

    def statements(self) -> Iterator[Statement[Any]]:
        """Yield all statements; of lists and exports a selection with every part."""
        yield from self.prepared
        yield from list_names.samples(self.listing)
        if "count" in vars(self):
            yield self.count
        if "stage" in vars(self):
            yield from self.stage.statements
        if "exported" in vars(self):
            yield from self.exported.samples()

    def statement(self, name: str) -> Statement[Any]:
        """Return the statement with a name.

        Raises:
            KeyError: no such statement.
        """
        for statement in self.statements():
            if statement.name == name:
                return statement
        exports = () if "exported" not in vars(self) else (self.exported.name,)
        if name.partition("?")[0].removesuffix(OWN) in exports:
            return self.exported.named(name)
        if name.startswith(f"{self.listing.name}."):
            return list_names.named(self.listing, name)
        raise KeyError(name)


def samples(of: "Statements[Any]") -> dict[str, object]:
    """Return arguments for `explain`, by the names of the binds."""
    found = {**SAMPLES}
    found |= {name: one.choices[0] for name, one in of.fields.items() if one.choices}
    for name in of.filters:
        field = of.fields.get(name)
        if field is None:
            low, high = BOUNDS[of.fields[name[4:]].kind]
            found[name] = low if name.startswith("min_") else high
        elif name in of.references:
            found[name] = 1
    if of.search:
        examples = of.fields[of.search[0]].meta.examples
        found["q"] = f"%{str(examples[0]).lower()}%" if examples else SAMPLES["q"]
    return found


def _exists(name: str, table: Table) -> Statement[int]:
    this = table.c.id == bindparam("id", type_=BigInteger)
    return Statement(name, int, select(table.c.id).where(this), order=("id",))


def _exists_own(name: str, owner: Owner) -> Statement[int]:
    table = owner.column.table
    this = table.c.id == bindparam("id", type_=BigInteger)
    core = select(table.c.id).where(this, owner.owns)
    return Statement(name, int, core, order=("id", owner.bind), prepare=False)


def _parent(field: str) -> str:
    return field.removesuffix("_id")


def _tag_fields(of: "Statements[Any]") -> list[str]:
    """Return the fields in the cache tags of lists, the field with the most values first."""
    plain = [of.fields[name] for name in of.filters if name in of.fields]

    def values(field: Field) -> float:
        return -(len(field.choices) + 0.5) if field.choices else -2 if few_values(field) else -1e9

    return [field.name for field in sorted(plain, key=values)]


def _conflict_locators(of: "Statements[Any]") -> Iterator[tuple[str, Statement[int]]]:
    """Yield by field the statement that finds the rows which violate its constraint."""
    if not (of.serves("bulk_create") or of.serves("upsert")):
        return
    for field in of.unique:
        folded = field in of.folded
        name = f"{of.name}.{field}_taken"
        if field == of.key:
            if of.serves("bulk_create"):
                yield field, taken_values(name, of.table, field, folded=folded)
        elif of.serves("upsert"):
            yield field, taken_values(name, of.table, field, folded=folded, key=of.key)
        else:
            yield field, taken_values(name, of.table, field, folded=folded)
    for field, parent in of.references.items():
        yield (
            field,
            missing_parents(f"{of.name}.{_parent(field)}_absent", of.table, field, parent.table),
        )
