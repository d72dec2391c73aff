"""Settings: a frozen Struct, read once from the environment and `.env`."""

import difflib
import ipaddress
import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_type_hints

import msgspec
from msgspec import Struct

from service.settings.dotenv import DotenvError, read_dotenv
from service.settings.kinds import (
    UNITS,
    Age,
    AppName,
    Bytes,
    Count,
    DatabaseURL,
    Milliseconds,
    Networks,
    Port,
    Queue,
    Rate,
    RedisURL,
    Seconds,
    Secret,
    Statements,
    SwitchOrFolder,
    TargetURL,
    Text,
    describe,
    is_hidden,
)
from service.settings.origins import OriginError, parse_origins
from service.settings.proxies import ProxiesError, parse_proxies
from service.settings.targets import TargetsError, check_target_url, parse_targets
from service.settings.urls import URLError, check_database_url, check_redis_url

__all__ = ["Secret", "Settings", "SettingsError", "describe", "is_hidden"]


class SettingsError(Exception):
    """A variable is unknown or has a wrong value; the message has one line."""


class Settings(Struct, frozen=True, kw_only=True):
    """All settings with their defaults; a variable is `SERVICE_` and the name in capitals.

    The string below a field is its description in docs/reference/settings.md (`just docs`).

    A subclass has these settings and your own. Variables of your own settings have your prefix:

    ```python
    class MySettings(Settings, frozen=True, kw_only=True):
        prefix: ClassVar[str] = "NOTES_"
        greeting: Annotated[str, Meta(min_length=1)] = "Hello"  # NOTES_GREETING
        token: Secret | None = None  # NOTES_TOKEN, never printed
    ```

    A field has the type str, int, float, bool or a Literal, optionally with a Meta, or None.
    """

    prefix: ClassVar[str] = ""

    database_url: DatabaseURL | None = None
    """PostgreSQL 15 or newer; without it, `serve` runs an embedded one in `SERVICE_DATA`."""
    redis_url: RedisURL | None = None
    """A Redis, a cluster or sentinels; `off` for none. All nodes of a database need the same."""
    app: AppName = "service.asgi:app"
    """The application of the commands; its module may be in the current directory."""
    host: Text = "127.0.0.1"
    """The address to listen on."""
    port: Port = 8000
    """The port to listen on; `0` chooses a free one."""
    workers: Count = 1
    """Worker processes."""
    server: Literal["uvicorn", "granian"] = "uvicorn"
    """The HTTP server."""
    data: Text = ".data"
    """The data directory: of embedded stores, and of files that wait for their import."""
    auth: Literal["on", "off"] | None = None
    """Whether requests need an API key; `off` lets everyone who reaches the host do everything."""
    cache: Literal["on", "local", "off"] = "on"
    """`on`, `local` (only in the process, for one worker) or `off`."""
    cache_ttl: Seconds = 300
    """Seconds until a response in Redis expires."""
    cache_bytes: Bytes = 67_108_864
    """Bytes of cached responses in each worker's process."""
    pool: Count | Literal["none"] = 4
    """Database connections per worker, besides one that listens and at most two for files;
    `none` opens a connection for each use."""
    batching: Literal["on", "off"] = "on"
    """Whether concurrent reads by id share a statement, and concurrent writes a commit."""
    statement_timeout_ms: Milliseconds = 2000
    """The maximum time of a statement, and of a request's wait for a connection."""
    queue_limit: Queue = 10_000
    """Requests per worker that may wait for a connection; more are answered with 503."""
    cors_origins: Text | None = None
    """Origins whose pages may use the API, such as `https://app.example.com`; comma-separated."""
    certfile: Text | None = None
    """A file with the TLS certificate and its chain, in PEM; then the service answers HTTPS."""
    keyfile: Text | None = None
    """A file with the private key of the certificate, in PEM, without a password."""
    body_limit: Bytes = 1_048_576
    """The maximum size of a request body, and of a line of a file."""
    import_limit: Bytes = 1_073_741_824
    """The maximum size of an imported file, also after decompression."""
    rate_limit: Rate = "off"
    """Requests in a time: of a user, or else of an address. The units are s, m, h and d."""
    rate_limit_writes: Rate = "off"
    """The same for POST, PUT, PATCH and DELETE, which then don't count in `SERVICE_RATE_LIMIT`."""
    changes_kept: Age = "24h"
    """How long changes are kept for those who read them later; the units are s, m, h and d."""
    trusted_proxies: Networks | None = None
    """Networks whose `X-Forwarded-For` or `Forwarded` is believed, such as `10.0.0.0/8,unix`;
    `unix` is a proxy that connects over a unix socket."""
    slow_request_ms: Milliseconds = 1000
    """Slower requests are logged at WARNING."""
    slow_query_ms: Milliseconds = 200
    """Slower statements are logged at WARNING."""
    log: Literal["json", "text", "off"] | None = None
    """The format of log lines."""
    access_log: Literal["on", "off"] = "off"
    """Whether each request is logged."""
    log_statements: Statements = "off"
    """`on` logs each statement with its time and rows, `notes.by_id,notes.page*` some of them;
    `notes.by_id+values` also logs the values of its arguments."""
    metrics: SwitchOrFolder = "on"
    """`on`, `off`, or an empty folder for the counts of several workers if another server than
    `swiftlet serve` starts them; it must be on a local file system."""
    traces: Literal["on", "off"] = "off"
    """Whether spans are sent to a collector of OpenTelemetry, see docs/logs-and-traces.md."""
    jobs: Literal["on", "off"] = "on"
    """Whether workers also run jobs; `swiftlet work` runs them in any case."""
    secret: Secret | None = None
    """Signs cursors and what is posted to receivers; must be the same on every node. Without it,
    `DATABASE_URL` signs cursors, and nothing is posted."""
    notify_url: TargetURL | None = None
    """The URL to which each notification is posted, see docs/receivers.md."""
    private_targets: Networks | None = None
    """Private networks with receivers, such as `10.0.0.0/8`: a name that leads elsewhere in a
    private network is refused."""

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, dotenv: Path = Path(".env")) -> Self:
        """Read `dotenv` and the environment, which overrides it; an empty value counts as not set.

        Raises:
            SettingsError: a name with the prefix `SERVICE_` or that of this class is not a setting,
                or a value is wrong.
        """
        given = {**_read(dotenv), **(os.environ if environ is None else environ)}
        types = get_type_hints(cls, include_extras=True)
        fields = {cls.variable(field): field for field in cls.__struct_fields__}
        prefixes = ("SERVICE_", cls.prefix) if cls.prefix else ("SERVICE_",)
        values: dict[str, Any] = {}
        for name, value in given.items():
            field = fields.get(name)
            if field is None:
                if name.startswith(prefixes):
                    raise SettingsError(f"{name} is not a setting{_nearest(name, fields)}")
            elif value != "":
                try:
                    values[field] = msgspec.convert(value, types[field], strict=False)
                except msgspec.ValidationError:
                    shown = "(hidden)" if is_hidden(types[field]) else repr(value)
                    allowed = describe(types[field])
                    raise SettingsError(f"{name}={shown}: must be {allowed}") from None
                _check(name, value)
        return cls(**values)

    @classmethod
    def variable(cls, field: str) -> str:
        """Return the environment variable of a field.

        Raises:
            TypeError: a subclass with own fields has no prefix.
        """
        if field in {"database_url", "redis_url"}:
            return field.upper()
        if field in Settings.__struct_fields__:
            return f"SERVICE_{field.upper()}"
        if not cls.prefix or cls.prefix.startswith("SERVICE_"):
            raise TypeError(f'{cls.__name__} needs its own prefix: prefix: ClassVar = "MY_"')
        return f"{cls.prefix}{field.upper()}"

    def __repr__(self) -> str:
        types = get_type_hints(type(self), include_extras=True)
        shown = ", ".join(
            f"{field}={'(hidden)' if is_hidden(types[field]) else repr(getattr(self, field))}"
            for field in self.__struct_fields__
        )
        return f"{type(self).__name__}({shown})"

    def environ(self) -> dict[str, str]:
        """Return these settings as environment variables, for worker processes."""
        return {
            self.variable(field): str(value)
            for field in self.__struct_fields__
            if (value := getattr(self, field)) is not None
        }

    @property
    def required_database_url(self) -> str:
        """The URL of the database.

        Raises:
            SettingsError: it is not set, and no embedded database runs.
        """
        if self.database_url is None:
            raise SettingsError("DATABASE_URL is not set; `swiftlet serve` starts its own database")
        return self.database_url

    @property
    def signing_secret(self) -> str:
        """The secret of cursors: SERVICE_SECRET, else the database's URL (equal on every node)."""
        return self.secret or self.required_database_url

    @property
    def shared_redis_url(self) -> str | None:
        """The URL of the Redis that workers share; None without one."""
        return self.redis_url if self.cache == "on" and self.redis_url != "off" else None

    @property
    def changes_age(self) -> timedelta:
        """How long changes are kept."""
        return timedelta(seconds=int(self.changes_kept[:-1]) * UNITS[self.changes_kept[-1]])

    @property
    def origins(self) -> tuple[str, ...]:
        """The origins of SERVICE_CORS_ORIGINS."""
        return () if self.cors_origins is None else parse_origins(self.cors_origins)

    @property
    def authenticated(self) -> bool:
        """Whether requests need an API key; by default if other machines can reach the address."""
        return self.auth == "on" or (self.auth is None and self.public)

    @property
    def public(self) -> bool:
        """Whether other machines can reach the served address."""
        if self.host == "localhost":
            return False
        try:
            return not ipaddress.ip_address(self.host).is_loopback
        except ValueError:  # a name, which may resolve to a public address
            return True


def _nearest(name: str, known: Mapping[str, str]) -> str:
    close = difflib.get_close_matches(name.upper(), known, n=1)
    return f"; did you mean {close[0]}?" if close else "; docs/reference/settings.md lists them all"


def _check(name: str, value: str) -> None:
    """Check what a type can't say."""
    try:
        if name == "DATABASE_URL":
            check_database_url(value)
        elif name == "REDIS_URL":
            check_redis_url(value)
        elif name == "SERVICE_CORS_ORIGINS":
            parse_origins(value)
        elif name == "SERVICE_TRUSTED_PROXIES":
            parse_proxies(value)
        elif name == "SERVICE_PRIVATE_TARGETS":
            parse_targets(value)
        elif name == "SERVICE_NOTIFY_URL":
            check_target_url(value)
    except URLError as error:
        raise SettingsError(f"{name}=(hidden): {error}") from None
    except (OriginError, ProxiesError, TargetsError) as error:
        raise SettingsError(f"{name}={value!r}: {error}") from None


def _read(dotenv: Path) -> dict[str, str]:
    try:
        return read_dotenv(dotenv)
    except DotenvError as error:
        raise SettingsError(str(error)) from None
