"""Write docs/reference from the code: `python tests/references.py`, or `just docs`."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import click

from service.cli import main
from service.cli.seeding import RowsOption, SeedCommand
from service.doctor import AREAS
from service.settings import Settings, describe, is_hidden

REFERENCE = Path(__file__).parent.parent / "docs" / "reference"
# Defaults that are not fixed values.
DEFAULTS = {
    "database_url": "embedded",
    "redis_url": "embedded, else none",
    "auth": "`off` on a loopback host, else `on`",
    "trusted_proxies": "none",
    "log": "`text` on a terminal, else `json`",
    "cors_origins": "none",
    "certfile": "none",
    "keyfile": "none",
    "notify_url": "none",
    "private_targets": "none",
    "secret": "made and kept in `SERVICE_DATA` when embedded",
}
SETTINGS = """\
# Settings

Written from `service/settings/__init__.py` by `just docs`; do not edit.

Settings come from the environment, or from `.env` in the working directory; the environment wins.
An empty value counts as not set. An unknown `SERVICE_*` name or a wrong value stops the start with
one line that names it. No message shows a value marked as secret.

| name | default | allowed | meaning |
|---|---|---|---|
"""
DOTENV = """
`.env` has lines of `NAME=value`; `export` before the name is allowed. A value may be in quotes.
A `#` after a space begins a comment.

In `DATABASE_URL` and `REDIS_URL`, write these characters of a password as percent codes:
`/` `%2F`, `?` `%3F`, `#` `%23`, `@` `%40`, `:` `%3A`, `%` `%25`.
"""
COMMANDS = """\
# Commands

Written from the help texts by `just docs`; do not edit.

`swiftlet` and `service` are the same command; Debian has another program called `service`. Errors
are one line on stderr. Exit codes: 0 success, 1 the work failed, 2 wrong usage or settings,
130 interrupted.
"""
DOCTOR = """\
# Checks of `swiftlet doctor`

Written from `service/doctor` by `just docs`; do not edit. [The guide](../doctor.md) has examples.
"""


def settings() -> str:
    """Return the page of the settings: a row per field of `Settings`."""
    meanings = dict(_meanings(inspect.getsource(Settings)))
    types = get_type_hints(Settings, include_extras=True)
    defaults = Settings()
    rows = []
    for field in Settings.__struct_fields__:
        value = getattr(defaults, field)
        default = DEFAULTS[field] if value is None else f"`{value}`"
        secret = " (secret)" if is_hidden(types[field]) else ""
        cells = (
            f"`{Settings.variable(field)}`",
            default,
            describe(types[field]),
            meanings[field] + secret,
        )
        rows.append(f"| {' | '.join(cells)} |\n")
    return SETTINGS + "".join(rows) + DOTENV


def commands() -> str:
    """Return the page of the commands, with the help text of each."""
    return COMMANDS + "".join(_command(main, "swiftlet", None))


def doctor() -> str:
    """Return the page of the checks, in their order; a description is a function's docstring."""
    page = DOCTOR
    for area, checks in AREAS.items():
        page += f"\n## {area}\n\n| check | what it does |\n|---|---|\n"
        page += "".join(f"| `{check.name}` | {check.description} |\n" for check in checks)
    return page


def _meanings(source: str) -> Iterator[tuple[str, str]]:
    """Yield each field with the docstring below it."""
    field = re.compile(r'^    (\w+): [^\n]*\n    """(.*?)"""$', re.MULTILINE | re.DOTALL)
    for name, text in field.findall(source):
        yield name, " ".join(text.split())


def _command(command: click.Command, name: str, parent: click.Context | None) -> Iterator[str]:
    settings: Any = {"terminal_width": 90, **command.context_settings}
    if isinstance(command, SeedCommand):  # the options of an application, if it was used here
        command.params = [one for one in command.params if not isinstance(one, RowsOption)]
    context = click.Context(command, info_name=name, parent=parent, **settings)
    yield f"\n## `{context.command_path}`\n\n```text\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for each in sorted(command.commands):
            yield from _command(command.commands[each], each, context)


PAGES = {"settings.md": settings, "commands.md": commands, "doctor.md": doctor}


if __name__ == "__main__":
    for page, text in PAGES.items():
        (REFERENCE / page).write_text(text())
