"""`swiftlet migrate new`: write a migration from the tables in code and a database.

Alembic's autogenerate is not used: it ignores CHECK constraints and wants to drop an index on an
expression (docs/decisions/migrate-new.md). PostgreSQL describes the tables in code and the
database. The migration is tried on an empty copy, up and down, before it is written.
"""

import ast
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import asyncpg
from sqlalchemy.schema import CreateIndex

from service.db.access import first_line
from service.db.schema import Tables
from service.db.statement import DIALECT
from service.migrations import migrate
from service.migrations.migrate import MigrationError
from service.migrations.snapshot import Snapshot, describe, differences, make_schema
from service.migrations.steps import EXTENSION, OPTIONAL, Step, drop_index, make_index, steps

PACKAGE = Path(__file__).parents[1]
LONGEST = 80  # characters of a message, so that it fits into one line
WIDTH = 92  # characters of SQL in a line of the file
# Units of SQL that are not broken into lines: words and quoted strings.
WORD = re.compile(r"(?:'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|\S)+")

FILE = '''\
"""{message}."""

from alembic import op

revision = "{revision}"
down_revision = {before}

UP = [
{up}]

DOWN = [
{down}]


def upgrade() -> None:
    _run(UP)


def downgrade() -> None:
    _run(DOWN)


def _run(statements: list[str]) -> None:
    bind = op.get_bind()
    schema = bind.exec_driver_sql("SELECT quote_ident(current_schema())").scalar_one()
    for statement in statements:
        bind.exec_driver_sql(statement.replace("{{schema}}", schema))
'''


class Written(NamedTuple):
    """The file of a new migration, and notes for its author."""

    path: Path
    notes: list[str]


async def new(url: str, message: str, tables: Tables, migrations: Path) -> Written:
    """Write a migration; the database must be at the newest revision.

    The first migration creates all tables, so the database must have none.

    Raises:
        MigrationError: the database is not at the newest revision, nothing differs, or the change
            must be written by hand.
        ValueError: the message can't name a migration.
    """
    message = checked(message)
    if migrations.is_relative_to(PACKAGE):
        raise MigrationError("these are the migrations of an installed package: use a checkout")
    newest = migrate.head(migrations)
    await migrate.require(url, migrations)
    if (found := await migrate.status(url)) != newest:
        raise MigrationError(
            f"the database is at revision {found}, and {migrations} has no migrations"
            if newest is None
            else f"the database is at revision {found}, the newest is {newest}: migrate it first"
        )
    async with migrate.compared(url, tables) as (connection, database, code):
        if newest is None and database.tables:
            raise MigrationError(
                f"the first migration makes all tables, and the database has some already"
                f" ({', '.join(sorted(database.tables))}): set DATABASE_URL to an empty one"
            )
        up, down = list(steps(database, code)), list(steps(code, database))
        try:
            await _rehearse(connection, database, code, *map(_statements, (up, down)))
        except asyncpg.PostgresError as error:
            raise MigrationError(
                f"this change must be written by hand: {first_line(error)}"
            ) from None
        for index in await migrate.missing(connection, tables):
            if not _mentioned(str(index.name), migrations):
                definition = str(CreateIndex(index).compile(dialect=DIALECT))
                up.append(make_index(definition))
                down.insert(0, drop_index(str(index.name), definition))
        # The extension stays when the migration is undone: others may use it.
        if any(OPTIONAL in step.sql for step in up) and not _mentioned("pg_trgm", migrations):
            up.insert(0, Step(EXTENSION))
    if not up and not down:
        raise MigrationError("the tables in code and the database agree: nothing to write")
    revision = f"{int(newest or 0) + 1:04}"
    path = migrations / f"{revision}_{_slug(message)}.py"
    text = FILE.format(
        message=(message[0].upper() + message[1:]).replace("\\", "\\\\").replace('"', '\\"'),
        revision=revision,
        before="None" if newest is None else f'"{newest}"',
        up=_rendered(up),
        down=_rendered(down),
    )
    _write(path, text)
    notes = [
        f"{way}: {step.sql.split(chr(10))[0]}: {step.note}"
        for way, told in (("up", up), ("down", down))
        for step in told
        if step.note
    ]
    return Written(path, notes)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("x", encoding="utf-8") as file:
        file.write(text)


def checked(message: str) -> str:
    """Return the message without surplus spaces and a final full stop.

    Raises:
        ValueError: the message can't name a migration.
    """
    message = " ".join(message.split()).rstrip(".")
    if not message or len(message) > LONGEST:
        raise ValueError(f"a message has 1 to {LONGEST} characters")
    return message


async def _rehearse(
    connection: asyncpg.Connection,
    database: Snapshot,
    code: Snapshot,
    up: list[str],
    down: list[str],
) -> None:
    """Run the migration on a copy without rows; the caller rolls everything back.

    Raises:
        MigrationError: the result is not the expected schema.
    """
    await connection.execute("DROP SCHEMA as_in_code CASCADE")
    await connection.execute("RESET search_path")
    await make_schema(connection, "rehearsal")
    copy = [step.sql for step in steps(Snapshot(), database)]
    for statements, wanted in ((copy, database), (up, code), (down, database)):
        for statement in statements:
            await connection.execute(statement.replace("{schema}", "rehearsal"))
        if wrong := differences(await describe(connection, "rehearsal"), wanted):
            what = wrong[0].partition(": ")[2]
            raise MigrationError(f"this change must be written by hand; it is about {what}")


def _statements(told: Iterable[Step]) -> list[str]:
    """Return the statements as in the file."""
    found: list[str] = ast.literal_eval(f"[\n{_rendered(told)}]")
    return found


def _mentioned(word: str, migrations: Path) -> bool:
    """Return whether a migration has this name; the database can't show an index it lacks."""
    name = re.compile(rf"\b{re.escape(word)}\b")
    files = migrations.glob("*.py")
    return any(name.search(file.read_text(encoding="utf-8")) for file in files)


def _slug(message: str) -> str:
    plain = unicodedata.normalize("NFKD", message).encode("ascii", "ignore").decode().lower()
    return "_".join(re.findall("[a-z0-9]+", plain))[:50].strip("_") or "change"


def _rendered(told: Iterable[Step]) -> str:
    lines: list[str] = []
    for step in told:
        if step.note:
            lines += [f"    # {line}" for line in _wrapped(step.note, "")]
        lines += _literal(step.sql.replace("\\", "\\\\"))
    return "".join(f"{line}\n" for line in lines)


def _literal(sql: str) -> list[str]:
    """Return a statement as Python source lines."""
    if "\n" not in sql and '"' not in sql and len(sql) <= WIDTH:
        return [f'    "{sql}",']
    text = sql.replace('"""', '\\"\\"\\"').split("\n")
    # Spaces and line breaks in the body of a function or in quotes are kept.
    if "$function$" not in sql and not any("\n" in word for word in WORD.findall(sql)):
        text = [part for line in text for part in _wrapped(line, "    ")]
    return ['    """', *text, '    """,']


def _wrapped(line: str, indent: str) -> list[str]:
    """Wrap to lines of at most `WIDTH` characters, unless a word is longer."""
    begin = line[: len(line) - len(line.lstrip())]
    lines = [f"{indent}{begin}"]
    for word in WORD.findall(line):
        if lines[-1].strip() and len(lines[-1]) + len(word) >= WIDTH:
            lines.append(f"{indent}{begin}    ")
        lines[-1] += word if not lines[-1].strip() else f" {word}"
    return lines
