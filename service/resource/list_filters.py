"""The list of a declaration: its sorts and filters, and the index of each."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Table, and_, bindparam, literal_column, not_

from service.db.filters import Bound, Choice, Filter, FilterIndex, OwnFilter, search
from service.db.keyset import Listing
from service.db.quoting import quoted
from service.resource import columns
from service.resource.fields import Field
from service.resource.shapes import few_values

if TYPE_CHECKING:
    from service.resource.statements import Statements


def listing(of: "Statements[Any]", totals: Table | None) -> Listing[Any]:
    filters: dict[str, Filter] = {}
    # Filters with the same index are walked together; they share the index object.
    indexes = {
        name: FilterIndex(columns.index_of(of.table, name), name)
        for name in {name[4:] for name in of.filters if name not in of.fields}
    }
    for name in of.filter_names:
        if name == "q":
            index = f"{of.table.name}_search_idx"
            filters[name] = search(index, *(of.table.c[one] for one in of.search))
        elif name in of.fields:
            filters[name] = _by_value(of, of.fields[name])
        else:
            filters[name] = _by_bound(of, name, of.fields[name[4:]], indexes[name[4:]])
    return Listing(
        of.name,
        of.summary_row,
        of.table,
        keys=orders(of),
        filters=filters,
        totals=totals,
        own=_own(of) if of.rules.private else None,
        together=list(_together(of)),
    )


def _together(of: "Statements[Any]") -> Iterator[frozenset[tuple[str, object]]]:
    """Yield the filters that an index of an own table serves together.

    Such an index has columns of filters by value, then `id`; its WHERE may be a filter by a bool.
    """
    by_value = {name for name in of.filter_names if name in of.fields}
    bools = {name for name in by_value if of.fields[name].kind is bool}
    choices = {sign + quoted(name): (name, not sign) for name in bools for sign in ("", "NOT ")}
    for index in of.table.indexes:
        *names, last = [str(column.name) for column in index.columns] or [""]
        where = index.dialect_options["postgresql"]["where"]
        choice = None if where is None else choices.get(str(where))
        if last == "id" and by_value.issuperset(names) and (where is None or choice is not None):
            found: list[tuple[str, object]] = [(name, None) for name in names]
            found += [] if choice is None else [choice]
            if len(found) > 1:
                yield frozenset(found)


def _own(of: "Statements[Any]") -> OwnFilter | None:
    if of.owner is None:
        return None
    name = str(of.owner.column.name)
    unique = name == "id"
    index = (
        f"{of.table.name}_pkey"
        if unique
        else columns.filter_index(of.table, of.fields[name], of.sorts)
    )
    served_by = FilterIndex(index, "id")
    return OwnFilter(
        Bound(of.owner.listed, served_by=served_by, one_plan=True), of.owner.bind, unique
    )


def _by_value(of: "Statements[Any]", field: Field) -> Filter:
    column = of.table.c[field.name]
    if not few_values(field):
        index = columns.filter_index(of.table, field, of.sorts)
        bind = bindparam(field.name, type_=column.type)
        return Bound(column == bind, served_by=FilterIndex(index, "id"), one_plan=True)
    values = (True, False) if field.kind is bool else field.choices
    if field.kind is bool:
        # The planner does not find that `x IS true` implies `x`, the WHERE of a partial index.
        clauses: dict[object, ColumnElement[bool]] = {True: column, False: not_(column)}
    else:
        clauses = {value: column == literal_column(columns.literal(value)) for value in values}
    rare = {
        value: FilterIndex(columns.choice_index(of.table, of.fields, field, value), "id")
        for value in columns.rare_values(field)
    }
    return Choice(clauses, rare)


def _by_bound(of: "Statements[Any]", name: str, field: Field, index: FilterIndex) -> Bound:
    """Return `min_<field>` or `max_<field>`, on the index expression; null never matches."""
    column = of.table.c[field.name]
    order = columns.order(column, field)
    bind = bindparam(name, type_=column.type)
    lowest = name.startswith("min_")
    clause: ColumnElement[bool] = order >= bind if lowest else order <= bind
    last: Any = getattr(field.own, "LAST", None)
    if field.null and last is None:
        clause = and_(clause, column.is_not(None))
    elif field.null and lowest:
        clause = and_(clause, order < literal_column(last))
    return Bound(clause, served_by=index)


def orders(of: "Statements[Any]") -> Mapping[str, ColumnElement[Any]]:
    """Return the expression of each sort."""
    c = of.table.c
    return {
        name: c.id if name == "id" else columns.order(c[name], of.fields.get(name))
        for name in of.sorts
    }
