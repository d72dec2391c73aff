"""`swiftlet serve`."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, NoReturn

import click
import msgspec

from service import logs, tracing
from service.cli.group import app_option, application, main, run, with_stores
from service.embedded import redis as embedded_redis
from service.embedded.data_directory import Stores
from service.embedded.programs import EmbeddedError
from service.embedded.watch import Watch
from service.outgoing import check_notify_url
from service.server.preflight import refused_cache
from service.server.processes import StopSignals
from service.server.tls import check_files
from service.settings import Settings, SettingsError
from service.settings.urls import address

if TYPE_CHECKING:
    from service.app import Application
    from service.cli.banner import Database
    from service.server.sockets import Listener

OPEN = "SERVICE_AUTH=off: anyone who reaches this address may do anything"


@main.command()
@app_option
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", help="Port to listen on; 0 chooses a free one.  [default: 8000]")
@click.option("--workers", help="Worker processes.  [default: 1]")
@click.option("--server", help="uvicorn or granian.  [default: uvicorn]")
@click.option("--certfile", help="TLS certificate with its chain (PEM); needs --keyfile.")
@click.option("--keyfile", help="Private key of the certificate (PEM).")
@click.option("--data", help="Data directory of embedded stores.  [default: .data]")
@click.option("--no-jobs", "jobs", flag_value="off", help="Run no jobs: `swiftlet work` does.")
def serve(**options: str | None) -> None:
    """Serve the API; embedded stores replace a missing DATABASE_URL or REDIS_URL.

    \b
    Example:
      swiftlet serve --port 9000 --workers 2
      swiftlet serve --app notes:app
      swiftlet serve --no-jobs
      swiftlet serve --certfile chain.pem --keyfile key.pem --port 8443
    """
    # A stop signal is the normal end of a service.
    with StopSignals(_exit).installed() as stop:
        app = application(options)
        _check(app)
        logs.plain(app.settings.log)
        from service import server

        with contextlib.closing(server.bind(app.settings)) as listener:
            _warn(app.settings)
            auth: Literal["on", "off"] = "on" if app.settings.authenticated else "off"
            app.settings = msgspec.structs.replace(app.settings, port=listener.port, auth=auth)
            _serve(app, listener, stop)


def _check(app: "Application") -> None:
    settings = app.settings
    app.check_auth()
    check_files(settings.certfile, settings.keyfile)
    tracing.check(settings.traces)
    check_notify_url(settings)
    if why := refused_cache(settings):
        raise SettingsError(why)


def _warn(settings: Settings) -> None:
    if settings.public and not settings.authenticated:
        logs.logger.warning("%s (SERVICE_HOST=%s)", OPEN, settings.host)


def _serve(app: "Application", listener: "Listener", stop: StopSignals) -> None:
    from service import server
    from service.cli import banner, first_key

    found, asked, watch = None, app.settings, Watch()
    if asked.database_url is not None:  # before anything is started
        found = run(banner.look_at_database(asked.database_url))
    with with_stores(asked, join=False, watch=watch) as (settings, running):
        stores = _stores(app, settings, running, found)
        alone = running is not None and running.redis_url is not None and settings.workers == 1
        # An embedded Redis is not useful for a single worker.
        cache = "local" if alone and settings.cache == "on" else settings.cache
        app.settings = served = msgspec.structs.replace(settings, cache=cache)
        if served.workers > 1:
            logs.logger.info("starting %d workers", served.workers)
        first = first_key.lines(app, served, running)
        with _shared_metrics(app), watch.installed():
            server.run(
                app, listener, lambda: banner.show(_banner(served, running, stores, first)), stop
            )


@contextlib.contextmanager
def _shared_metrics(app: "Application") -> Iterator[None]:
    """Give the workers a folder in which each counts, so that any of them can show the sums."""
    if app.settings.metrics != "on":
        yield
        return
    from service.metrics import shared_folder

    with shared_folder(app.settings.workers) as folder:
        if folder is not None:
            app.settings = msgspec.structs.replace(app.settings, metrics=str(folder))
        yield


def _exit() -> NoReturn:
    # SystemExit unwinds the stack, so everything that was started is stopped.
    raise SystemExit(0)


def _stores(
    app: "Application", settings: Settings, running: Stores | None, found: "Database | None"
) -> list[tuple[str, str]]:
    """Return the banner lines of the stores; migrate an embedded database first."""
    from service.cli import banner
    from service.migrations import migrate

    url, head = settings.required_database_url, migrate.head(app.migrations)
    if found is None:
        found = migrated(app, settings)
        database = banner.EMBEDDED
    else:
        database = f"at {address(url)}"
    if settings.redis_url in (None, "off"):
        name, redis = None, banner.OFF
    elif running is not None and running.redis_url is not None:
        name, redis = embedded_redis.title(), banner.EMBEDDED
    else:
        redis = f"at {address(settings.redis_url)}"
        name = run(banner.look_at_redis(settings.redis_url))
    return banner.lines(found, head, database, name, redis)


def migrated(app: "Application", settings: Settings) -> "Database":
    """Migrate the embedded database if it is older than the application; return its state."""
    from service.cli import banner
    from service.migrations import migrate

    url, head = settings.required_database_url, migrate.head(app.migrations)
    found = run(banner.look_at_database(url))
    if head is None and app.tables:
        raise EmbeddedError(
            f"there are no migrations in {app.migrations}: write the first with"
            ' `swiftlet migrate new "first tables"`'
        )
    if found.revision is not None and (head is None or found.revision > head):
        raise EmbeddedError(
            f"the database in {settings.data} is at revision {found.revision}, this version of"
            f" the service knows up to {head or 'none'}: start a newer one, or give"
            " another --data"
        )
    if found.revision != head:  # else Alembic is not imported: half a second of CPU
        logs.logger.info("migrating the database to revision %s", head)
        migrate.up(url, app.migrations)
        found = found._replace(revision=head)
    return found


def _banner(
    settings: Settings,
    running: Stores | None,
    stores: list[tuple[str, str]],
    first: list[tuple[str, str]],
) -> list[tuple[str, str]]:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    scheme = "http" if settings.certfile is None else "https"
    url = f"{scheme}://{host}:{settings.port}"
    lines = [("API", url), ("Docs", f"{url}/docs"), ("Console", f"{url}/console"), *stores]
    if running is not None:
        lines.append(("Data", str(running.data)))
    lines += [("Note", note) for note in (running.notes if running else ())]
    if settings.cache == "on" and settings.shared_redis_url is None and settings.workers > 1:
        lines.append(("Note", "nothing is cached: several workers need Redis (REDIS_URL) for that"))
    elif settings.cache != "off" and running is not None and running.database_url is None:
        alone = "other nodes on this database must have the same REDIS_URL, or SERVICE_CACHE=off"
        lines.append(("Note", alone))
    if settings.jobs == "off":
        lines.append(("Note", "SERVICE_JOBS=off: jobs wait for `swiftlet work`"))
    if settings.public and not settings.authenticated:
        lines.append(("Note", OPEN))
    return [*lines, *first, ("Stop", "Ctrl-C")]
