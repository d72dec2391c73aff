"""An application: its resources, routes and lifespan."""

import sys
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.routing import BaseRoute
from starlette.types import Receive, Scope, Send

from service import health, logs, monitoring, tracing
from service.admin import routes as admin
from service.app_state import opened_state
from service.db import job_table, rights, webhook_tables
from service.db.idempotency import idempotency_keys
from service.db.schema import Table, with_internal
from service.db.statement import Statement
from service.jobs import routes as job_routes
from service.jobs.job import Job
from service.limits.policy import Policies
from service.outgoing import check_notify_url
from service.resource import Resource
from service.resource.import_job import ImportEnded, import_jobs
from service.resource.operations import served
from service.sample_data import Seed
from service.settings import Settings, SettingsError
from service.web import docs, pages
from service.web.api_keys import ApiKeys
from service.web.endpoint import Operation, limits_of
from service.web.openapi_texts import About, Checks
from service.web.request import State
from service.web.routing import Paths
from service.webhooks import webhook_jobs


class Application(Paths):
    """An ASGI application, with the attributes that the commands use.

    It is a Router without Starlette's middleware. Endpoints handle errors, ids and times of
    requests, so there is no further coroutine between the server and a handler.

    Attributes:
        settings: the loaded settings; `swiftlet serve` adds the URLs of embedded stores.
        resources: the resources, in the given order.
        sources: where its statements are: the resources, and the statements of operations.
        operations: operations of the resources, then `routes`, health and the pages.
        tables: tables of the resources, tables that they reference, the totals and the log of
            changes, the idempotency keys if there is a POST, and the jobs if there are kinds.
        jobs: the kinds of jobs, by name.
        takes_keys: whether an operation takes an Idempotency-Key.
        migrations: the folder of migrations.
        seed: writes sample data; None without sample data.
        auth: the API keys; None without authentication.
        alone: whether this is the only known worker on the database. Without Redis, only such a
            worker may cache responses in its process.
        serves: whether this process serves requests; `swiftlet work` only runs jobs.
    """

    def __init__(  # noqa: PLR0913 - as create_app
        self,
        settings: Settings,
        resources: Sequence[Resource[Any]],
        routes: Iterable[Operation | BaseRoute],
        *,
        migrations: Path,
        about: About,
        seed: Seed | None,
        auth: ApiKeys | None,
        jobs: Sequence[Job[Any]],
        after_import: Job[ImportEnded] | None,
    ) -> None:
        routes = list(routes)
        changes = any(one.changes for one in resources)
        own_jobs = webhook_jobs.JOBS if changes else ()
        self.jobs = _kinds([*jobs, *import_jobs(resources, auth, after_import), *own_jobs])
        self.settings = settings
        self.resources = tuple(resources)
        tables = with_internal(one.table for one in resources)
        self.migrations = migrations
        self.about = about
        self.seed = seed
        self.auth = auth
        self.alone = False
        self.serves = True
        self.operations = [
            *(operation for one in resources for operation in served(one, resources)),
            *(route for route in routes if isinstance(route, Operation)),
            *(job_routes.routes() if self.jobs else ()),
        ]
        self.takes_keys = any(one.takes_key for one in self.operations)
        self.tables = (
            *tables,
            *((idempotency_keys,) if self.takes_keys else ()),
            *((job_table.of_application(_queues(self.jobs, tables)),) if self.jobs else ()),
            *(webhook_tables.TABLES if changes else ()),
        )
        self.needs = rights.needs(self.tables)
        self.operations += health.routes(self.needs, migrations)
        self.operations += monitoring.routes()
        self.operations.append(pages.console())
        self.sources: tuple[Resource[Any] | Statement[Any], ...] = (
            *self.resources,
            *(statement for one in self.operations for statement in one.statements),
        )
        self.operations += admin.routes(self.sources)
        self._limits = limits_of(self.operations)
        own = docs.routes(self.operations, about)
        self.operations += own
        static = [pages.files(), pages.files("console")]
        self._limits += limits_of([*own, *static])
        Policies(declared=self._limits)  # a wrong limit is an error now, not at the start
        super().__init__(
            [*self.operations, *static],
            others=[route for route in routes if isinstance(route, BaseRoute)],
            lifespan=self._lifespan,
        )

    @property
    def checks(self) -> Checks:
        """What its settings say that is checked before an operation runs."""
        keys = self.auth is not None and self.settings.authenticated
        return Checks(keys=keys, limits=bool(self.policies.all))

    @property
    def policies(self) -> Policies:
        """The rate limits of its settings and operations."""
        settings = self.settings
        return Policies(settings.rate_limit, settings.rate_limit_writes, self._limits)

    @asynccontextmanager
    async def _lifespan(self, _: object) -> AsyncIterator[State]:
        with logs.queued(self.settings.log, access=self.settings.access_log == "on"):
            async with opened_state(self) as state:
                yield state

    async def lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run Starlette's lifespan; a missing setting is one line, without a traceback."""
        try:
            _ = self.settings.required_database_url
            self.check_auth()
            tracing.check(self.settings.traces)
            check_notify_url(self.settings)
        except SettingsError as error:
            await receive()
            await send({"type": "lifespan.startup.failed", "message": f"swiftlet: {error}"})
            return
        await super().lifespan(scope, receive, send)

    def check_auth(self) -> None:
        """Check that requests can be authenticated, if they must be.

        Raises:
            SettingsError: they must be, and the application has no API keys.
        """
        settings = self.settings
        if self.auth is not None or not settings.authenticated:
            return
        if settings.auth == "on":
            why = "SERVICE_AUTH=on"
        else:
            why = f"SERVICE_HOST={settings.host!r}: other machines can reach it"
        raise SettingsError(
            f"{why}, and the application has no API keys (create_app(auth=...));"
            " set SERVICE_AUTH=off to let everyone do everything"
        )


def create_app(  # noqa: PLR0913 - an application is its arguments
    settings: Settings,
    *,
    resources: Sequence[Resource[Any]] = (),
    routes: Iterable[Operation | BaseRoute] = (),
    migrations: Path | str | None = None,
    title: str = "Service",
    version: str = "0.1.0",
    description: str = "",
    info: Mapping[str, Any] | None = None,
    seed: Seed | None = None,
    auth: ApiKeys | None = None,
    jobs: Sequence[Job[Any]] = (),
    after_import: Job[ImportEnded] | None = None,
) -> Application:
    """Return an application that serves these resources and routes.

    Args:
        settings: `Settings.load()`, or settings of a subclass.
        resources: the resources to serve, in the order of the documents. The table of a referenced
            resource is created even if the resource is not in the list.
        routes: further routes: Operations, which are in the OpenAPI document, or Starlette routes,
            which are not.
        migrations: the folder of migrations; by default `migrations` beside the calling file.
        title: title of the OpenAPI document.
        version: version of the application, in the OpenAPI document.
        description: description in the OpenAPI document.
        info: further members of `info` in the OpenAPI document, such as `contact` and `license`.
        seed: sample data for `swiftlet seed`.
        auth: the API keys, for SERVICE_AUTH=on; see web.api_keys.ApiKeys.
        jobs: the kinds of jobs that it runs; the kernel adds its own.
        after_import: the job to queue at the end of each import in the background.

    Raises:
        ValueError: two tables or two jobs have the same name, or two operations the same method and
            path, or the limit of an operation has a wrong form.
    """
    if migrations is None:
        # The caller's frame, like in NamedTuple; the working directory depends on the server.
        migrations = Path(sys._getframe(1).f_code.co_filename).parent / "migrations"  # noqa: SLF001
    return Application(
        settings,
        resources,
        routes,
        migrations=Path(migrations).absolute(),
        about=About(title, version, description, info or {}),
        seed=seed,
        auth=auth,
        jobs=jobs,
        after_import=after_import,
    )


def _kinds(jobs: Sequence[Job[Any]]) -> dict[str, Job[Any]]:
    found = {one.kind: one for one in jobs}
    for one in jobs:
        if found[one.kind] is not one:
            raise ValueError(f"two jobs are of the kind {one.kind!r}")
    return found


def _queues(jobs: Mapping[str, Job[Any]], tables: Iterable[Table]) -> dict[str, list[str]]:
    """Return by table the kinds of jobs that each new row queues.

    Raises:
        ValueError: the application has no such table.
    """
    known = {one.name for one in tables}
    found: dict[str, list[str]] = {}
    for kind, job in jobs.items():
        if (name := job.new_rows_of) is None:
            continue
        if name not in known:
            raise ValueError(f"job {kind!r}: new_rows_of={name!r} is no table of the application")
        found.setdefault(name, []).append(kind)
    return found
