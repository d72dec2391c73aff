"""Every named statement: for the listing, for `swiftlet explain`, and for the tests."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec

from service.db.access import connect
from service.db.keyset import Listing
from service.db.statement import Statement
from service.items import statements as items
from service.users import statements as users

LISTINGS: tuple[Listing[Any], ...] = (items.listing, users.listing)

HEADER = """\
-- Every statement the service runs, as it is sent to PostgreSQL. Written by `just sql` from the
-- statements in service/*/statements.py; tests/test_statements.py keeps it current.
-- Of the lists there are more: any filters go together, in any sort, and are compiled alike.
"""

# What an argument is when `explain` is not told: typical, not special.
SAMPLES: dict[str, object] = {
    "after": 0,
    "excluded": [],
    "id": 1,
    "last_id": 1,
    "limit": 11,
    "max_price": Decimal(100),
    "min_price": Decimal(10),
    "offset": 0,
    "owner_id": 1,
    "q": "%widget%",
    "role": "user",
    "upto": 20_000,
    "versions": [1],
}


def statements() -> Iterator[Statement[Any]]:
    """Slice by slice, in the order of their routes; of the lists those that show each part."""
    for module in (items, users):
        yield from module.prepared
        yield from module.listing.samples()
    yield items.count
    yield from items.stage.statements
    yield from items.exported.samples()


def listing() -> str:
    """The text of `sql/statements.sql`."""
    parts = [HEADER]
    for statement in statements():
        text = re.sub(r" +\n", "\n", statement.sql)
        arguments = ", ".join(f"${n} {name}" for n, name in enumerate(statement.names, 1))
        parts.append(f"-- {statement.name}\n-- {arguments or 'no arguments'}\n{text};\n")
    return "\n".join(parts)


def named(name: str) -> Statement[Any]:
    """The statement of a name.

    Raises:
        KeyError: no such statement.
    """
    for statement in statements():
        if statement.name == name:
            return statement
    if name.startswith(f"{items.exported.name}?"):
        return items.exported.named(name)
    for one in LISTINGS:
        if name.startswith(f"{one.name}."):
            return one.named(name)
    raise KeyError(name)


def check_names(statement: Statement[Any], given: dict[str, str]) -> None:
    """Refuse parameters that the statement does not have.

    Raises:
        ValueError: the first of them, by name.
    """
    unknown = sorted(given.keys() - set(statement.names))
    if unknown:
        raise ValueError(f"no parameter {unknown[0]}; there are: {', '.join(statement.names)}")


async def explain(
    url: str, statement: Statement[Any], given: dict[str, str], *, analyze: bool
) -> str:
    """PostgreSQL's plan; with `analyze` it runs, in a transaction that is rolled back.

    Raises:
        ValueError: a parameter that the statement does not have, or of the wrong type.
    """
    check_names(statement, given)
    connection = await connect(url)
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute("SET LOCAL statement_timeout = '60s'")
        if statement in items.stage.statements:
            await connection.execute(items.stage.create)
        # The driver knows the types of the arguments once the statement is prepared.
        prepared = await connection.prepare(statement.sql)
        types = (parameter.name for parameter in prepared.get_parameters())
        args = [
            _value(kind, name, given.get(name))
            for name, kind in zip(statement.names, types, strict=True)
        ]
        options = "ANALYZE, BUFFERS" if analyze else "COSTS"
        plan = await connection.fetch(f"EXPLAIN ({options}) {statement.sql}", *args)
    finally:
        await transaction.rollback()
        await connection.close()
    return "\n".join(record[0] for record in plan)


KINDS: dict[str, type] = {
    "int8": int,
    "bool": bool,
    "numeric": Decimal,
    "timestamptz": datetime,
    "int8[]": list[int],
    "bool[]": list[bool],
    "numeric[]": list[Decimal],
    "text[]": list[str],
}
EXAMPLES: dict[str, object] = {
    "int8": 1,
    "bool": True,
    "numeric": Decimal(10),
    "timestamptz": datetime(2026, 1, 1, tzinfo=UTC),
    "int8[]": [1],
    "bool[]": [True],
    "numeric[]": [Decimal(10)],
    "text[]": ["sample"],
}


def _value(kind: str, name: str, text: str | None) -> object:
    if text is None:
        try:
            return msgspec.convert(SAMPLES.get(name), KINDS.get(kind, str))
        except ValueError:  # none, or for another statement's argument of this name
            return EXAMPLES.get(kind, "sample")
    try:
        value = json.loads(text) if kind.endswith("[]") else text
        return msgspec.convert(value, KINDS.get(kind, str), strict=False)
    except ValueError as error:
        raise ValueError(f"{name} must be {kind}: {error}") from None
