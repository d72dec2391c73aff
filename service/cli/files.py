"""`swiftlet import` and `swiftlet export`: files of rows."""

import asyncio
import errno
import gzip
import os
import shutil
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import click

from service.cli.bars import move, progress_bars
from service.cli.group import app_option, application, main, run, with_database

if TYPE_CHECKING:
    from rich.progress import Progress

    from service.app import Application
    from service.resource import Resource

# Bytes of a file to read at once.
CHUNK = 65_536
GZIP = b"\x1f\x8b"
# Wrong lines to show on a terminal.
SHOWN = 20
# Not the name of a worker's pool: so the trigger reports the writes to a running service.
NAME = "swiftlet-files"

Format = Literal["ndjson", "csv"]
FORMATS: dict[str, Format] = {".csv": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson"}
format_option = click.option(
    "--format",
    "format_",
    type=click.Choice(["ndjson", "csv"]),
    help="Default: by the file name, .csv, .ndjson or .jsonl; for other names NDJSON.",
)


resource_option = click.option(
    "--resource", "name", metavar="NAME", help="Default: the first resource with files."
)


@main.command(name="import")
@app_option
@resource_option
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@format_option
@click.option(
    "--on-error",
    type=click.Choice(["abort", "skip"]),
    default="abort",
    show_default=True,
    help="If lines are wrong: write nothing, or skip these lines.",
)
def import_(name: str | None, file: str, format_: Format | None, on_error: str) -> None:
    """Import a file of rows, or standard input (-): NDJSON or CSV, also with gzip.

    A row whose key exists is updated; other rows are created.

    \b
    Example:
      swiftlet import items.csv --on-error skip
      curl https://example.com/items.ndjson | swiftlet import -
      swiftlet import notes.csv --app notes:app --resource notes
    """
    from service.cache.writer import Writer
    from service.db.database import Database
    from service.web.row_readers import NdjsonReader
    from service.web.table import CsvReader

    format_ = _format(file, format_)
    app = application()
    resource = _resource(app, "import", name)
    with (
        click.open_file(file, "rb") as source,
        with_database(app) as settings,
        progress_bars() as bars,
    ):
        size = os.fstat(source.fileno()).st_size or None
        reading = bars.add_task("reading", total=size, rate="")
        writing = bars.add_task("writing", total=None, rate="", visible=False)
        kind = CsvReader if format_ == "csv" else NdjsonReader
        reader = kind(resource.new, settings.body_limit)

        def progress(read: int, done: int, total: int) -> None:
            if total:
                bars.update(writing, total=total, visible=True)
                move(bars, writing, done)
            else:
                place = source.tell() if size and source.seekable() else 0
                move(bars, reading, read, place)

        chunks = _unpacked(source, settings.import_limit)
        skip = on_error == "skip"
        writer = Writer(Database(settings.required_database_url, size=None), name=NAME)
        done = run(
            writer.run(
                lambda db: resource.import_(db, chunks, reader, skip=skip, progress=progress),
                lambda _: (),  # triggers report the writes
            )
        )
    for error in done.errors[:SHOWN]:
        click.echo(f"line {error.line}: {error.message}", err=True)
    click.echo(
        f"{done.read:,} rows read: {done.created:,} created, {done.updated:,} updated,"
        f" {done.unchanged:,} unchanged, {done.failed:,} failed"
    )


@main.command()
@app_option
@resource_option
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True), default="-")
@format_option
@click.option(
    "--trailer", is_flag=True, help="End NDJSON with a line that has the count and a checksum."
)
def export(name: str | None, file: str, format_: Format | None, *, trailer: bool) -> None:
    """Export all rows into a file, or to standard output (-): NDJSON or CSV; .gz with gzip.

    \b
    Example:
      swiftlet export items.csv.gz
      swiftlet export - | head
      swiftlet export notes.csv --app notes:app --resource notes
    """
    from service.db.database import Database

    format_ = _format(file, format_)
    if trailer and format_ == "csv":
        raise click.UsageError("a CSV has no trailer")
    app = application()
    resource = _resource(app, "export", name)
    query = resource.export_query(format=format_, trailer=trailer)

    async def write(url: str, bars: "Progress") -> int:
        db = Database(url, size=None)
        task = bars.add_task(resource.name, total=await resource.count.only(db), rate="")
        rows = -1 if format_ == "csv" else -trailer
        quoted = False  # a string in CSV may contain line breaks; in JSON they are escaped
        async for chunk in resource.export(db, query, name=NAME):
            to.write(chunk)
            parts = chunk.split(b'"') if format_ == "csv" else [chunk]
            rows += sum(part.count(b"\n") for part in parts[quoted::2])
            quoted ^= len(parts) % 2 == 0
            move(bars, task, rows)
        return rows

    with with_database(app, read=True) as settings, progress_bars() as bars, _written(file) as to:
        rows = run(write(settings.required_database_url, bars))
    click.echo(f"{rows:,} {resource.name} written", err=True)


def _resource(app: "Application", operation: str, name: str | None) -> "Resource[Any]":
    """Return the resource with a name, or the first with files.

    Raises:
        click.UsageError: no such resource.
    """
    served = [one for one in app.resources if one.serves(operation)]
    for one in served:
        if name in {None, one.name}:
            return one
    if not served:
        raise click.UsageError(f"{app.settings.app} has no resource with {operation}")
    known = ", ".join(one.name for one in served)
    raise click.UsageError(f"no resource {name} with {operation}; there are: {known}")


def _format(file: str, given: Format | None) -> Format:
    """Return the format of `--format` or of the file name; NDJSON by default.

    Raises:
        click.UsageError: both contradict each other, or the name has an unsupported format.
    """
    _, dot, ending = Path(_plain(file)).name.rpartition(".")
    suffix = f"{dot}{ending.lower()}" if dot else ""
    named = FORMATS.get(suffix)
    if given is not None and named not in {None, given}:
        raise click.UsageError(f"{file} is named as {named}, and --format says {given}")
    if suffix and named is None and given is None and not _is_device(file):
        raise click.UsageError(
            f"{file}: {suffix} is not a supported format; use {', '.join(FORMATS)}, also with"
            " .gz at the end, or give --format"
        )
    return given or named or "ndjson"


def _plain(file: str) -> str:
    """Return the name without .gz at its end."""
    return file[:-3] if _gzipped(file) else file


def _gzipped(file: str) -> bool:
    return file.lower().endswith(".gz")


def _is_device(file: str) -> bool:
    return Path(file).exists() and not Path(file).is_file()


async def _chunks(source: IO[bytes]) -> AsyncGenerator[bytes]:
    """Yield the bytes of a file; Ctrl-C ends the wait for a pipe."""
    loop, fd = asyncio.get_running_loop(), source.fileno()

    def read() -> None:
        loop.remove_reader(fd)
        if not arrived.done():
            arrived.set_result(os.read(fd, CHUNK))  # at once: later it could block

    chunk = b"more"
    while chunk:
        arrived: asyncio.Future[bytes] = loop.create_future()
        try:
            loop.add_reader(fd, read)
            chunk = await arrived
        except PermissionError:  # a file on disk: always ready
            chunk = source.read(CHUNK)
        finally:
            loop.remove_reader(fd)
        if chunk:
            yield chunk


async def _unpacked(source: IO[bytes], limit: int) -> AsyncGenerator[bytes]:
    """Yield the bytes of a file, decompressed if its first two bytes are those of gzip."""
    from service.errors import TooLarge
    from service.web.inflate import inflated

    chunks = _chunks(source)
    first = await anext(chunks, b"")

    async def all_of_it() -> AsyncGenerator[bytes]:
        yield first
        size = len(first)
        async for chunk in chunks:
            size += len(chunk)
            if size > limit:
                raise TooLarge(f"the file is larger than {limit} bytes (SERVICE_IMPORT_LIMIT)")
            yield chunk

    async for chunk in inflated(all_of_it(), limit) if first[:2] == GZIP else all_of_it():
        yield chunk


@contextmanager
def _written(file: str) -> Iterator[IO[bytes] | gzip.GzipFile]:
    """Open the output; a file is replaced only after all of it is written.

    A pipe or device is written directly.
    """
    place = Path(os.path.realpath(file))
    plain = file != "-" and (place.is_file() or not place.exists())
    part = place.with_name(f"{place.name}.{os.getpid()}.part") if plain else place
    try:
        with ExitStack() as opened:
            if file == "-" and sys.stdout is None:
                raise OSError(errno.EBADF, "standard output is closed", file)
            to = sys.stdout.buffer if file == "-" else opened.enter_context(part.open("wb"))
            if _gzipped(file):
                yield opened.enter_context(gzip.open(to, "wb", compresslevel=6))
            else:
                yield to
            to.flush()
        if plain:
            if place.exists():
                shutil.copymode(place, part)
            part.replace(place)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, file) from None
    finally:
        if plain:
            part.unlink(missing_ok=True)
