"""All named statements, for `swiftlet statements`, `swiftlet explain`, `/admin` and tests."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from typing import Any

from service.changes import statements as changes
from service.db import idempotency, letter_case
from service.db.statement import Statement
from service.jobs import statements as jobs
from service.jobs.figure_statements import figures
from service.jobs.spool_statements import spooled
from service.resource import Resource
from service.webhooks import statements as webhooks

# Where statements are: Application.sources.
Sources = Sequence[Resource[Any] | Statement[Any]]

# Characters of a name in a message.
LONGEST_NAME = 100
HEADER = """\
-- Every statement the service runs, as it is sent to PostgreSQL. Written by `just sql` from the
-- resources of the application; tests/test_statements.py keeps it current.
-- Lists have more statements: each combination of filters and sort is compiled in the same way.
"""


def statements(sources: Sources) -> Iterator[Statement[Any]]:
    """Yield the statements of each resource, for lists a selection, and those of the library."""
    for one in sources:
        if isinstance(one, Resource):
            yield from one.statements()
    yield from _others(sources)


def _others(sources: Sources) -> Iterator[Statement[Any]]:
    """Those that belong to no resource."""
    yield from (one for one in sources if isinstance(one, Statement))
    yield from (*idempotency.STATEMENTS, *jobs.STATEMENTS, figures, spooled)
    if any(isinstance(one, Resource) and one.changes for one in sources):
        yield from (*changes.STATEMENTS, *webhooks.STATEMENTS, letter_case.LOWER)


def listing(sources: Sources) -> str:
    """Return the text of `sql/statements.sql`."""
    parts = [HEADER]
    for statement in statements(sources):
        text = re.sub(r" +\n", "\n", statement.sql)
        arguments = ", ".join(f"${n} {name}" for n, name in enumerate(statement.names, 1))
        parts.append(f"-- {statement.name}\n-- {arguments or 'no arguments'}\n{text};\n")
    return "\n".join(parts)


def find(sources: Sources, name: str) -> tuple[Resource[Any] | None, Statement[Any]]:
    """Return the statement with a name, and its resource; None if it belongs to none.

    Raises:
        KeyError: the statement does not exist.
    """
    for one in sources:
        if isinstance(one, Resource):
            with suppress(KeyError):
                return one, one.statement(name)
    own = {statement.name: statement for statement in _others(sources)}
    return None, own[name]


def unknown(sources: Sources, name: str) -> str:
    """Return what to say about a name that `find` does not know; it has the nearest names."""
    names = [one.name for one in statements(sources)]
    nearest = get_close_matches(name[:LONGEST_NAME], names, n=3, cutoff=0.5)
    shown = name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}…"
    if not nearest:
        return f"there is no statement {shown!r}; `swiftlet statements` lists all"
    return f"there is no statement {shown!r}; did you mean {' or '.join(nearest)}?"


def check_names(statement: Statement[Any], given: Mapping[str, object]) -> None:
    """Check that the statement has all given parameters.

    Raises:
        ValueError: a parameter is unknown; the first one is named.
    """
    wrong = sorted(given.keys() - set(statement.names))
    if wrong:
        known = ", ".join(statement.names) or "none"
        raise ValueError(f"no parameter {wrong[0][:LONGEST_NAME]}; there are: {known}")


def is_staging(resource: Resource[Any] | None, statement: Statement[Any]) -> bool:
    """Return whether a statement is about the staging table of an import."""
    if resource is None or not resource.serves("import"):
        return False
    return statement in resource.stage.statements
