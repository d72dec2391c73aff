"""`swiftlet serve`."""

import signal
import sys

import click
import msgspec
from rich.console import Console
from rich.markup import escape

from service.cli.group import main, run, settings_of, stop, with_stores
from service.db.access import CONNECTING, DatabaseRefusedError, no_connection
from service.db.link import connect
from service.embedded.site import Stores
from service.settings import Settings, SettingsError


@main.command()
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", help="Port to listen on; 0 takes a free one.  [default: 8000]")
@click.option("--workers", help="Worker processes.  [default: 1]")
@click.option("--server", help="uvicorn or granian.  [default: uvicorn]")
@click.option("--data", help="Where embedded stores keep their data.  [default: .data]")
def serve(**options: str | None) -> None:
    """Serve the API; without DATABASE_URL or REDIS_URL on embedded stores.

    \b
    Example:
      swiftlet serve --port 9000 --workers 2
    """
    from service import migrate, server

    # Being told to stop is how a service ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    settings = settings_of(options)
    if settings.public and settings.auth != "off":
        raise SettingsError(
            f"SERVICE_HOST={settings.host!r}: others can reach it, and there are no API keys yet; "
            "SERVICE_AUTH=off says that you mean it"
        )
    if settings.cache == "local" and settings.workers > 1:
        raise SettingsError(
            f"SERVICE_CACHE=local is for one worker, SERVICE_WORKERS={settings.workers}: several"
            " need REDIS_URL and SERVICE_CACHE=on to hear of each other's writes"
        )
    if settings.port == 0:
        settings = msgspec.structs.replace(settings, port=server.free_port(settings.host))
    if settings.database_url is not None:
        run(_knock(settings))
    with with_stores(settings, join=False) as (settings, running):
        if running is not None and running.database_url is not None:
            migrate.up(settings.required_database_url)
        alone = running is not None and running.redis_url is not None and settings.workers == 1
        # A Redis of our own, and nobody to share it with.
        cache = "local" if alone and settings.cache == "on" else settings.cache
        served = msgspec.structs.replace(settings, cache=cache)
        try:
            server.run(served, lambda: _announce(settings, running))
        except server.ServerError as error:
            stop(str(error), 1)


async def _knock(settings: Settings) -> None:
    """Connect once, as the workers will: they would ask for ever where asking can't help.

    A database that is away is left to them: they wait for it.

    Raises:
        DatabaseRefusedError: it does not let us in.
    """
    try:
        connection = await connect(
            settings.required_database_url,
            statement_timeout=settings.statement_timeout_ms / 1000,
            lock_timeout=settings.statement_timeout_ms / 1000,
        )
    except CONNECTING as error:
        told = no_connection(error)
        if isinstance(told, DatabaseRefusedError):
            raise told from None
    else:
        connection.terminate()


def _announce(settings: Settings, running: Stores | None) -> None:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"http://{host}:{settings.port}"
    console = Console()
    lines = [("API", address), ("Docs", f"{address}/docs")]
    if running is not None:
        lines.append(("Data", str(running.data)))
    lines.append(("Stop", "Ctrl-C"))
    lines += [("Note", note) for note in (running.notes if running else ())]
    if settings.cache == "on" and settings.shared_redis_url is None and settings.workers > 1:
        lines.append(("Note", "nothing is cached: several workers need Redis (REDIS_URL) for that"))
    elif settings.cache != "off" and running is not None and running.database_url is None:
        alone = "other nodes on this database need the same REDIS_URL, or nothing is cached"
        lines.append(("Note", alone))
    if settings.public:
        lines.append(("Note", "SERVICE_AUTH=off: whoever reaches this address may do anything"))
    for name, text in lines:
        shown = f"[bold]{name:>5}[/bold]  {escape(text)}"
        console.print(shown, highlight=False, soft_wrap=True)
    sys.stdout.flush()
