"""The owner of a row: a column with the id of a user, to whose rows a statement can be limited.

Statements that are limited have names that end in `_own`, and one more argument. They are others
than those of a request that is not limited, so that these take no more time.
"""

from typing import Any, NamedTuple

from sqlalchemy import BigInteger, Column, ColumnElement, bindparam, true

from service.db.shape import unused
from service.db.statement import Runner, Statement

# The end of the name of a limited statement.
OWN = "_own"


class Owner(NamedTuple):
    """The owner of the rows of a table.

    Args:
        column: has the id of the user; a row with null belongs to no user.
        admin_fields: what an owner can't set.
    """

    column: Column[Any]
    admin_fields: frozenset[str] = frozenset()

    @property
    def bind(self) -> str:
        """The name of the argument with the owner, beside those of the columns."""
        return unused("owner", self.column.table.c.keys())

    @property
    def listed(self) -> ColumnElement[bool]:
        """Whether the row belongs to the user in this argument; by an index of the column."""
        owned: ColumnElement[bool] = self.column == bindparam(self.bind, type_=BigInteger)
        return owned

    @property
    def owns(self) -> ColumnElement[bool]:
        """The same for rows that are found by their id or key.

        No index is read for it: a plan for all values takes an owner for one with few rows, and
        would read all rows of an owner with a million.
        """
        return self.listed.is_(true())

    @property
    def is_foreign(self) -> ColumnElement[bool]:
        """Whether the row belongs to another user, or to none."""
        return self.column.is_distinct_from(bindparam(self.bind, type_=BigInteger))


class Limited(NamedTuple):
    """A statement, and the one that is limited to the rows of an owner.

    Args:
        every: for all rows.
        own: None if the rows of the table have no owner.
        bind: its argument with the owner.
    """

    every: Statement[Any]
    own: Statement[Any] | None = None
    bind: str = ""

    @property
    def statements(self) -> tuple[Statement[Any], ...]:
        """One or both."""
        return (self.every,) if self.own is None else (self.every, self.own)

    @property
    def writes(self) -> bool:
        """Whether it writes."""
        return self.every.writes

    async def records(self, db: Runner, owner: int | None = None, /, **values: object) -> list[Any]:
        """The records; only those of the owner's rows, unless it is None."""
        if owner is None or self.own is None:
            return await self.every.records(db, **values)
        return await self.own.records(db, **values, **{self.bind: owner})
