"""Totals of a list that are read from the table of totals, where a trigger keeps them."""

from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Select, Table, cast, func, literal_column, select

from service.db.filters import Chosen
from service.db.schema import counted
from service.db.shape import shape_of
from service.db.statement import RefusedError


def kept_totals(table: Table, totals: Table) -> dict[Chosen, Select[Any]]:
    """The totals that need no count, by what is chosen: all rows, and those active or not.

    Raises:
        RefusedError: no trigger keeps the totals of this table.
    """
    if not counted([table]):
        raise RefusedError(
            f"no trigger keeps the totals of {table.name}: leave out `totals`, and its rows are"
            " counted; or give it info=COUNTED, and run `swiftlet migrate new`"
        )
    total, active = (func.sum(totals.c[name]) for name in ("total", "active"))
    sums: dict[Chosen, ColumnElement[Any]] = {(): total}
    if (column := shape_of(table).active) is not None:
        sums |= {((column.name, True),): active, ((column.name, False),): total - active}
    return {
        chosen: select(
            cast(func.coalesce(kept, literal_column("0")), BigInteger).label("total")
        ).where(totals.c.name == literal_column(f"'{table.name}'"))
        for chosen, kept in sums.items()
    }
