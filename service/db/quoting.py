"""Names and texts as they are written in SQL."""

from sqlalchemy.dialects import postgresql

PREPARER = postgresql.dialect().identifier_preparer  # type: ignore[no-untyped-call]  # has none


def quoted(name: str) -> str:
    """The name of a table, column or trigger as it is written in SQL."""
    return PREPARER.quote(name)


def literal(text: str) -> str:
    """The text as it is written in SQL, with its quotes."""
    return "'" + text.replace("'", "''") + "'"
