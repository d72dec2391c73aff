"""Commands that fill and empty the database: samples, and files of items."""

import asyncio
import errno
import gzip
import os
import shutil
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

import click

from service.cli.group import main, run, with_database

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

# Of a file at once.
CHUNK = 65_536
GZIP = b"\x1f\x8b"
# Lines that are wrong and told of on a terminal.
SHOWN = 20
# Not ours: so the trigger tells a service that runs of what is written.
NAME = "swiftlet-files"

Format = Literal["ndjson", "csv"]
FORMATS: dict[str, Format] = {".csv": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson"}
format_option = click.option(
    "--format",
    "format_",
    type=click.Choice(["ndjson", "csv"]),
    help="Else as the file is named, .csv, .ndjson or .jsonl; NDJSON if it has no such name.",
)


@main.command()
@click.option("--users", type=click.IntRange(0), default=1000, show_default=True)
@click.option("--items", type=click.IntRange(0), default=10_000, show_default=True)
def seed(users: int, items: int) -> None:
    """Fill the database with sample rows; those that are there already stay as they are.

    \b
    Example:
      swiftlet seed --users 1000 --items 100000
    """
    from service import seed as samples

    with with_database() as settings, _bars() as bars:
        tasks = {
            name: bars.add_task(name, total=total, rate="")
            for name, total in (("users", users), ("items", items))
        }

        def progress(table: str, done: int) -> None:
            _move(bars, tasks[table], done)

        new = run(samples.seed(settings.required_database_url, users, items, progress))
    click.echo(f"{new.users} users and {new.items} items are new")


@main.command(name="import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@format_option
@click.option(
    "--on-error",
    type=click.Choice(["abort", "skip"]),
    default="abort",
    show_default=True,
    help="With lines that are wrong: write nothing, or leave them out.",
)
def import_(file: str, format_: Format | None, on_error: str) -> None:
    """Bring in a file of items, or standard input (-): NDJSON or CSV, also with gzip.

    An item whose sku stands is changed, any other is new.

    \b
    Example:
      swiftlet import items.csv --on-error skip
      curl https://example.com/items.ndjson | swiftlet import -
    """
    from service.cache.writer import Writer
    from service.db.database import Database
    from service.items import items
    from service.web.row_readers import Lines
    from service.web.table import Table

    format_ = _format(file, format_)
    with click.open_file(file, "rb") as source, with_database() as settings, _bars() as bars:
        size = os.fstat(source.fileno()).st_size or None
        reading = bars.add_task("reading", total=size, rate="")
        writing = bars.add_task("writing", total=None, rate="", visible=False)
        kind = Table if format_ == "csv" else Lines
        reader = kind(items.new, settings.body_limit)

        def progress(read: int, done: int, total: int) -> None:
            if total:
                bars.update(writing, total=total, visible=True)
                _move(bars, writing, done)
            else:
                place = source.tell() if size and source.seekable() else 0
                _move(bars, reading, read, place)

        chunks = _unpacked(source, settings.import_limit)
        skip = on_error == "skip"
        writer = Writer(Database(settings.required_database_url, size=None), name=NAME)
        done = run(
            writer.run(
                lambda db: items.import_(db, chunks, reader, skip=skip, progress=progress),
                lambda _: (),  # the triggers announce it
            )
        )
    for error in done.errors[:SHOWN]:
        click.echo(f"line {error.line}: {error.message}", err=True)
    click.echo(
        f"{done.read:,} rows read: {done.created:,} created, {done.updated:,} updated,"
        f" {done.unchanged:,} unchanged, {done.failed:,} failed"
    )


@main.command()
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True), default="-")
@format_option
@click.option("--trailer", is_flag=True, help="End NDJSON with a line that proves it is whole.")
def export(file: str, format_: Format | None, *, trailer: bool) -> None:
    """Write all items into a file, or to standard output (-): NDJSON or CSV; .gz with gzip.

    \b
    Example:
      swiftlet export items.csv.gz
      swiftlet export - | head
    """
    from service.db.database import Database
    from service.items import items

    format_ = _format(file, format_)
    if trailer and format_ == "csv":
        raise click.UsageError("a CSV has no trailer")
    query = items.export_query(format=format_, trailer=trailer)

    async def write(url: str, bars: "Progress") -> int:
        db = Database(url, size=None)
        task = bars.add_task("items", total=await items.count.only(db), rate="")
        rows = -1 if format_ == "csv" else -trailer
        quoted = False  # a text in a CSV may have line breaks, one in JSON has none
        async for chunk in items.export(db, query, name=NAME):
            to.write(chunk)
            parts = chunk.split(b'"') if format_ == "csv" else [chunk]
            rows += sum(part.count(b"\n") for part in parts[quoted::2])
            quoted ^= len(parts) % 2 == 0
            _move(bars, task, rows)
        return rows

    with with_database(read=True) as settings, _bars() as bars, _written(file) as to:
        rows = run(write(settings.required_database_url, bars))
    click.echo(f"{rows:,} items written", err=True)


def _bars() -> "Progress":
    # Only commands with a bar pay for this import: `serve` starts without.
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )


def _move(bars: "Progress", task: "TaskID", rows: int, place: int | None = None) -> None:
    """Tell of so many rows; the bar itself may go by the place in a file."""
    speed = rows / (bars.tasks[task].elapsed or 1)
    rate = f"{rows:,} rows, {speed:,.0f}/s"
    bars.update(task, completed=rows if place is None else place, rate=rate)


def _format(file: str, given: Format | None) -> Format:
    """What `--format` says or the file's name does; NDJSON where neither says anything.

    Raises:
        click.UsageError: they contradict each other, or the name promises what we don't write.
    """
    _, dot, ending = Path(_plain(file)).name.rpartition(".")
    suffix = f"{dot}{ending.lower()}" if dot else ""
    named = FORMATS.get(suffix)
    if given is not None and named not in {None, given}:
        raise click.UsageError(f"{file} is named as {named}, and --format says {given}")
    if suffix and named is None and given is None and not _is_device(file):
        raise click.UsageError(
            f"{file}: {suffix} is no format of ours; name it {', '.join(FORMATS)}, each also with"
            " .gz behind it, or give --format"
        )
    return given or named or "ndjson"


def _plain(file: str) -> str:
    """The name without the .gz behind it."""
    return file[:-3] if _gzipped(file) else file


def _gzipped(file: str) -> bool:
    return file.lower().endswith(".gz")


def _is_device(file: str) -> bool:
    return Path(file).exists() and not Path(file).is_file()


async def _chunks(source: IO[bytes]) -> AsyncGenerator[bytes]:
    """The bytes of a file; a pipe is waited for in a way that Ctrl-C ends."""
    loop, fd = asyncio.get_running_loop(), source.fileno()

    def read() -> None:
        loop.remove_reader(fd)
        if not arrived.done():
            arrived.set_result(os.read(fd, CHUNK))  # at once: later it might wait for more

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
    """As `_chunks`, without gzip where there is one: its first two bytes tell."""
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
    """Where to write: a file stands once all of it does, and an older one until then.

    What is no file, a pipe or a device, is written into as it is.
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
