"""All named statements, for `swiftlet statements`, `swiftlet explain` and tests."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec

from service.db import idempotency
from service.db.access import connect
from service.db.statement import Statement
from service.resource import Resource

Resources = Sequence[Resource[Any]]

HEADER = """\
-- Every statement the service runs, as it is sent to PostgreSQL. Written by `just sql` from the
-- resources of the application; tests/test_statements.py keeps it current.
-- Lists have more statements: each combination of filters and sort is compiled in the same way.
"""


def statements(resources: Resources) -> Iterator[Statement[Any]]:
    """Yield the statements of each resource, for lists a selection, and those of the library."""
    for resource in resources:
        yield from resource.statements()
    yield from idempotency.STATEMENTS


def listing(resources: Resources) -> str:
    """Return the text of `sql/statements.sql`."""
    parts = [HEADER]
    for statement in statements(resources):
        text = re.sub(r" +\n", "\n", statement.sql)
        arguments = ", ".join(f"${n} {name}" for n, name in enumerate(statement.names, 1))
        parts.append(f"-- {statement.name}\n-- {arguments or 'no arguments'}\n{text};\n")
    return "\n".join(parts)


def find(resources: Resources, name: str) -> tuple[Resource[Any] | None, Statement[Any]]:
    """Return the statement with a name, and its resource; None for one of the library.

    Raises:
        KeyError: the statement does not exist.
    """
    for resource in resources:
        with suppress(KeyError):
            return resource, resource.statement(name)
    own = {statement.name: statement for statement in idempotency.STATEMENTS}
    return None, own[name]


def check_names(statement: Statement[Any], given: Mapping[str, str]) -> None:
    """Check that the statement has all given parameters.

    Raises:
        ValueError: a parameter is unknown; the first one is named.
    """
    unknown = sorted(given.keys() - set(statement.names))
    if unknown:
        raise ValueError(f"no parameter {unknown[0]}; there are: {', '.join(statement.names)}")


async def explain(
    url: str,
    resource: Resource[Any] | None,
    statement: Statement[Any],
    given: Mapping[str, str],
    *,
    analyze: bool,
) -> str:
    """Return PostgreSQL's plan; with `analyze` run it in a transaction that is rolled back.

    Raises:
        ValueError: a parameter is unknown, or its value has the wrong type.
    """
    check_names(statement, given)
    connection = await connect(url)
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute("SET LOCAL statement_timeout = '60s'")
        samples = {} if resource is None else resource.samples
        if resource is not None and _is_staging(resource, statement):
            await connection.execute(resource.stage.create)
        # The types of the arguments are known after the statement is prepared.
        prepared = await connection.prepare(statement.sql)
        types = (parameter.name for parameter in prepared.get_parameters())
        args = [
            _value(kind, name, given.get(name), samples)
            for name, kind in zip(statement.names, types, strict=True)
        ]
        options = "ANALYZE, BUFFERS" if analyze else "COSTS"
        plan = await connection.fetch(f"EXPLAIN ({options}) {statement.sql}", *args)
    finally:
        await transaction.rollback()
        await connection.close()
    return "\n".join(record[0] for record in plan)


def _is_staging(resource: Resource[Any], statement: Statement[Any]) -> bool:
    return resource.serves("import") and statement in resource.stage.statements


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


def _value(kind: str, name: str, text: str | None, samples: Mapping[str, object]) -> object:
    if text is None:
        try:
            return msgspec.convert(samples.get(name), KINDS.get(kind, str))
        except ValueError:  # no sample, or a sample of another type with the same name
            return EXAMPLES.get(kind, "sample")
    try:
        value = json.loads(text) if kind.endswith("[]") else text
        return msgspec.convert(value, KINDS.get(kind, str), strict=False)
    except ValueError as error:
        raise ValueError(f"{name} must be {kind}: {error}") from None
