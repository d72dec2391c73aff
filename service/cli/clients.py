"""`swiftlet client`: make a client in another language from the OpenAPI document."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
import msgspec

from service.cli.group import app_option, application, main, stop
from service.cli.typescript import TYPESCRIPT_FILES

if TYPE_CHECKING:
    from service.app import Application

Language = Literal["python", "typescript"]
PYTHON_MISSING = (
    "the generator of Python clients is not installed: run `pip install 'swiftlet[client]'`"
)
NPX_MISSING = "npx is not installed: install Node.js 20 or newer, which has it"
# The generator picks the content type of a body by the Python type of its value, and files of both
# types are bytes. So the import of a Python client takes NDJSON.
OTHER_FILE, FILE = "text/csv", "application/x-ndjson"
# Names of variables in each generated function: a parameter of this name would be overwritten.
LOCALS = frozenset({"params", "headers"})
NPX = (
    *("npx", "--yes", "--package=openapi-typescript@7", "--package=typescript@5"),
    # A member of a request that has a default may be absent.
    *("openapi-typescript", "--default-non-nullable=false"),
)


@main.command()
@app_option
@click.argument("language", type=click.Choice(["python", "typescript"]))
@click.argument("directory", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option("--force", is_flag=True, help="Overwrite the files of a client in DIR.")
def client(language: Language, directory: Path, *, force: bool) -> None:
    """Make a client of the API in DIR, as a package with types.

    A client in Python needs `pip install 'swiftlet[client]'`, one in TypeScript needs npx (Node.js)
    and the npm registry.

    \b
    Example:
      swiftlet client python clients/python
      swiftlet client typescript clients/typescript --app notes:app --force
    """
    if not force and directory.exists() and any(directory.iterdir()):
        raise click.BadParameter(
            f"{directory} is not empty: give a new directory, or --force to overwrite the files of"
            " a client in it"
        )
    app = application()
    name = client_name(app.about.title)
    click.echo(f"making a {language} client of {app.about.title} in {directory} ...", err=True)
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch, name)
        make = _python if language == "python" else _typescript
        make(app, Path(scratch), made)
        files = [path for path in made.rglob("*") if path.is_file()]
        package = directory / name.replace("-", "_")
        if language == "python" and package.is_dir():
            shutil.rmtree(package)  # a module of an operation that is no more
        shutil.copytree(made, directory, dirs_exist_ok=True)
    click.echo(f"{len(files)} files in {directory}; {directory / 'README.md'} says how to use them")


def client_name(title: str) -> str:
    """Return the name of the package of a client: of "My notes" `my-notes-client`."""
    return "-".join([*re.findall("[a-z0-9]+", title.lower()), "client"])


def client_document(app: "Application") -> dict[str, Any]:
    """Return the document for a client: with all that may be checked, without pages and streams."""
    from service.web.openapi import document
    from service.web.openapi_texts import Checks

    operations = [
        one._replace(media=())
        for one in app.operations
        if not one.media or one.response is not None
    ]
    return document(operations, app.about, "", Checks(keys=app.auth is not None, limits=True))


def python_document(app: "Application") -> dict[str, Any]:
    """Return the document for the generator of Python clients, without what it can't generate."""
    described = client_document(app)
    for methods in described["paths"].values():
        for operation in methods.values():
            content = operation.get("requestBody", {}).get("content", {})
            if FILE in content:
                content.pop(OTHER_FILE, None)
            given = operation["parameters"]
            operation["parameters"] = [one for one in given if one["name"] not in LOCALS]
    return described


def _python(app: "Application", scratch: Path, made: Path) -> None:
    if importlib.util.find_spec("openapi_python_client") is None:
        stop(PYTHON_MISSING, 1)
    described = python_document(app)
    config = scratch / "config.json"
    config.write_bytes(
        msgspec.json.encode(
            {
                "project_name_override": made.name,
                "package_name_override": made.name.replace("-", "_"),
                "content_type_overrides": dict.fromkeys(
                    (FILE, OTHER_FILE), "application/octet-stream"
                ),
            }
        )
    )
    told = _run(
        [sys.executable, "-m", "openapi_python_client", "generate", "--meta", "uv"],
        ["--path", _written(described, scratch), "--config", str(config)],
        ["--output-path", str(made)],
    )
    shutil.rmtree(made / ".ruff_cache", ignore_errors=True)
    if "WARNING" in told:
        click.echo(told, err=True)


def _typescript(app: "Application", scratch: Path, made: Path) -> None:
    if shutil.which(NPX[0]) is None:
        stop(NPX_MISSING, 1)
    made.mkdir()
    path = _written(client_document(app), scratch)
    _run(NPX, [path, "--output", str(made / "schema.d.ts")])
    for file, text in TYPESCRIPT_FILES.items():
        named = text.replace("@NAME@", made.name).replace("@TITLE@", app.about.title)
        (made / file).write_text(named.replace("@VERSION@", app.about.version), encoding="utf-8")


def _written(described: dict[str, Any], scratch: Path) -> str:
    path = scratch / "openapi.json"
    path.write_bytes(msgspec.json.encode(described))
    return str(path)


def _run(*words: Sequence[str]) -> str:
    """Run a generator, and return what it prints; if it fails, end with its last line."""
    scripts = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    command = [word for some in words for word in some]
    # The generator formats the client with ruff, which is beside the interpreter.
    environ = {**os.environ, "PATH": scripts, "NO_COLOR": "1", "TERM": "dumb"}
    ended = subprocess.run(  # noqa: S603 - a generator, on a path that the user gave
        command, env=environ, check=False, capture_output=True, text=True, errors="replace"
    )
    told = f"{ended.stdout}\n{ended.stderr}".strip()
    if ended.returncode != 0:
        last = told.splitlines()[-1:] or [f"exit code {ended.returncode}"]
        stop(f"the generator {command[0]} failed: {last[0]}", 1)
    return told
