"""Settings: sources of a value, and the one-line errors that stop a start."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from service.settings import Settings, SettingsError

PASSWORD = "hunter2hunter2"

# The default of each variable; a changed default is a breaking change.
DEFAULTS: dict[str, object] = {
    "DATABASE_URL": None,
    "DATABASE_REPLICA_URLS": None,
    "REDIS_URL": None,
    "SERVICE_APP": "service.asgi:app",
    "SERVICE_HOST": "127.0.0.1",
    "SERVICE_PORT": 8000,
    "SERVICE_WORKERS": 1,
    "SERVICE_SERVER": "uvicorn",
    "SERVICE_DATA": ".data",
    "SERVICE_AUTH": None,
    "SERVICE_CACHE": "on",
    "SERVICE_CACHE_TTL": 300,
    "SERVICE_CACHE_BYTES": 67_108_864,
    "SERVICE_BATCHING": "on",
    "SERVICE_POOL": 4,
    "SERVICE_POOLER": "none",
    "SERVICE_STATEMENT_TIMEOUT_MS": 2000,
    "SERVICE_QUEUE_LIMIT": 10_000,
    "SERVICE_RATE_LIMIT": "off",
    "SERVICE_RATE_LIMIT_WRITES": "off",
    "SERVICE_CHANGES_KEPT": "24h",
    "SERVICE_TRUSTED_PROXIES": None,
    "SERVICE_CORS_ORIGINS": None,
    "SERVICE_CERTFILE": None,
    "SERVICE_KEYFILE": None,
    "SERVICE_BODY_LIMIT": 1_048_576,
    "SERVICE_IMPORT_LIMIT": 1_073_741_824,
    "SERVICE_SLOW_REQUEST_MS": 1000,
    "SERVICE_SLOW_QUERY_MS": 200,
    "SERVICE_LOG": None,
    "SERVICE_ACCESS_LOG": "off",
    "SERVICE_LOG_STATEMENTS": "off",
    "SERVICE_METRICS": "on",
    "SERVICE_TRACES": "off",
    "SERVICE_JOBS": "on",
    "SERVICE_SECRET": None,
    "SERVICE_NOTIFY_URL": None,
    "SERVICE_PRIVATE_TARGETS": None,
}
# For each setting that is not any text: wrong values, and the allowed ones in the message.
WRONG = (
    ("DATABASE_URL", "mysql://host/db", "postgresql://"),
    ("DATABASE_URL", "host:5432", "postgresql://"),
    ("REDIS_URL", "http://host", "redis://"),
    ("REDIS_URL", "redis://", "redis://"),
    ("REDIS_URL", "on", "off"),
    ("SERVICE_APP", "notes", "MODULE:NAME"),
    ("SERVICE_PORT", "abc", "a whole number from 0 to 65535"),
    ("SERVICE_PORT", "-1", "a whole number from 0 to 65535"),
    ("SERVICE_PORT", "65536", "a whole number from 0 to 65535"),
    ("SERVICE_PORT", "80.5", "a whole number from 0 to 65535"),
    ("SERVICE_PORT", "8 000", "a whole number from 0 to 65535"),
    ("SERVICE_WORKERS", "0", "a whole number from 1 to 1024"),
    ("SERVICE_WORKERS", "many", "a whole number from 1 to 1024"),
    ("SERVICE_SERVER", "gunicorn", "uvicorn or granian"),
    ("SERVICE_AUTH", "no", "on or off"),
    ("SERVICE_JOBS", "yes", "on or off"),
    ("SERVICE_CACHE", "redis", "on or local or off"),
    ("SERVICE_CACHE_TTL", "5m", "a whole number of seconds, 1 to 86400"),
    ("SERVICE_CACHE_TTL", "0", "a whole number of seconds, 1 to 86400"),
    ("SERVICE_CACHE_BYTES", "64MB", "a whole number of bytes, at least 1"),
    ("SERVICE_BATCHING", "yes", "on or off"),
    ("SERVICE_POOL", "0", "a whole number from 1 to 1024 or none"),
    ("SERVICE_POOL", "some", "a whole number from 1 to 1024 or none"),
    ("SERVICE_STATEMENT_TIMEOUT_MS", "2s", "a whole number of milliseconds, 1 to 3600000"),
    ("SERVICE_STATEMENT_TIMEOUT_MS", "0", "a whole number of milliseconds, 1 to 3600000"),
    ("SERVICE_QUEUE_LIMIT", "-1", "a whole number from 0 to 1000000"),
    ("SERVICE_CORS_ORIGINS", "*", "every page"),
    ("SERVICE_CORS_ORIGINS", "null", "any page can send the origin null"),
    ("SERVICE_CORS_ORIGINS", "https://a.example, *", "every page"),
    ("SERVICE_CORS_ORIGINS", "https://a.example/", "without a path"),
    ("SERVICE_CORS_ORIGINS", "https://a.example/app", "without a path"),
    ("SERVICE_CORS_ORIGINS", "https://*.example", "is not an origin"),
    ("SERVICE_CORS_ORIGINS", "a.example", "is not an origin"),
    ("SERVICE_CORS_ORIGINS", "https://A.example", "in small letters"),
    ("SERVICE_CORS_ORIGINS", "https://user@a.example", "is not an origin"),
    ("SERVICE_CORS_ORIGINS", "https://a.example:443", "leave out the default port 443"),
    ("SERVICE_CORS_ORIGINS", "http://a.example:99999", "no valid port"),
    ("SERVICE_CORS_ORIGINS", "https://a.example\r\nX-A: b", "is not an origin"),
    ("SERVICE_CORS_ORIGINS", "https://a.example,", "is not an origin"),
    ("SERVICE_RATE_LIMIT", "100", "100/60s, 10/s, 5/m, 1000/h or off"),
    ("SERVICE_RATE_LIMIT_WRITES", "5 per minute", "100/60s, 10/s, 5/m, 1000/h or off"),
    ("SERVICE_CHANGES_KEPT", "1s", "10s, 30m, 24h or 7d"),
    ("SERVICE_CHANGES_KEPT", "24", "10s, 30m, 24h or 7d"),
    ("SERVICE_TRUSTED_PROXIES", "*", "name the networks"),
    ("SERVICE_TRUSTED_PROXIES", "10.0.0.0/33", "write 10.0.0.0/8, an address, or unix"),
    ("SERVICE_BODY_LIMIT", "1MB", "a whole number of bytes, at least 1"),
    ("SERVICE_IMPORT_LIMIT", "1GB", "a whole number of bytes, at least 1"),
    ("SERVICE_SLOW_REQUEST_MS", "1.5", "a whole number of milliseconds, 1 to 3600000"),
    ("SERVICE_SLOW_QUERY_MS", "never", "a whole number of milliseconds, 1 to 3600000"),
    ("SERVICE_LOG", "xml", "json or text or off"),
    ("SERVICE_ACCESS_LOG", "true", "on or off"),
    ("SERVICE_LOG_STATEMENTS", "items.by_id,", "on, off, or names of statements"),
    ("SERVICE_LOG_STATEMENTS", "items.*+values", "on, off, or names of statements"),
    ("SERVICE_TRACES", "yes", "on or off"),
    ("SERVICE_METRICS", "yes", "on, off or the absolute path of a folder"),
    ("SERVICE_METRICS", "run/counts", "on, off or the absolute path of a folder"),
    ("SERVICE_SECRET", "short", "at least 16 characters"),
    ("SERVICE_NOTIFY_URL", "ftp://host/path", "http://host/path or https://host/path"),
    ("SERVICE_NOTIFY_URL", "http:///path", "the host can't be read"),
    ("SERVICE_NOTIFY_URL", "http://host:99999/", "from 1 to 65535"),
    ("SERVICE_NOTIFY_URL", "http://a@b@c/", "two @"),
    ("SERVICE_NOTIFY_URL", "http://a\\@b/", "http://host/path"),
    ("SERVICE_NOTIFY_URL", "http://a b/", "a space"),
    ("SERVICE_NOTIFY_URL", "http://127.1/", "write the address as 192.0.2.1"),
    ("SERVICE_NOTIFY_URL", "http://0x7f.1/", "write the address as 192.0.2.1"),
    ("SERVICE_NOTIFY_URL", "http://0x7f000001/", "write the address as 192.0.2.1"),
    ("SERVICE_NOTIFY_URL", "http://2130706433/", "write the address as 192.0.2.1"),
    ("SERVICE_NOTIFY_URL", "http://0177.0.0.1/", "write the address as 192.0.2.1"),
    ("SERVICE_NOTIFY_URL", "http://[fe80::1%25eth0]/", "the host can't be read"),
    ("SERVICE_NOTIFY_URL", "http://münchen.example/", "in ASCII"),
    ("SERVICE_PRIVATE_TARGETS", "10.0.0.0/33", "write networks or addresses"),
    ("SERVICE_PRIVATE_TARGETS", "unix", "write networks or addresses"),
    ("SERVICE_PRIVATE_TARGETS", "*", "write networks or addresses"),
)
FIELDS = {Settings.variable(field): field for field in Settings.__struct_fields__}


@pytest.fixture
def dotenv(tmp_path: Path) -> Path:
    return tmp_path / ".env"


def load(dotenv: Path, **environ: str) -> Settings:
    return Settings.load(environ, dotenv)


def line_of(dotenv: Path, **environ: str) -> str:
    """Return the one-line error of these variables."""
    with pytest.raises(SettingsError) as caught:
        Settings.load(environ, dotenv)
    message = str(caught.value)
    assert "\n" not in message
    # A chained exception would show the value in a traceback.
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return message


@pytest.mark.parametrize("name", FIELDS)
def test_every_setting_has_its_promised_default(dotenv: Path, name: str) -> None:
    assert name in DEFAULTS, f"{name}: add its default to DEFAULTS"
    assert getattr(load(dotenv), FIELDS[name]) == DEFAULTS[name]


@pytest.mark.parametrize(
    ("name", "text", "value"),
    (
        ("DATABASE_URL", "postgresql://u:p@host:5432/db", "postgresql://u:p@host:5432/db"),
        ("DATABASE_URL", "postgresql:///db?host=/run/pg", "postgresql:///db?host=/run/pg"),
        ("DATABASE_URL", "postgres://host/db", "postgres://host/db"),
        ("REDIS_URL", "redis://host:6379/0", "redis://host:6379/0"),
        ("REDIS_URL", "rediss://host", "rediss://host"),
        ("REDIS_URL", "unix:///run/redis.sock", "unix:///run/redis.sock"),
        ("REDIS_URL", "redis+cluster://one:1,two:2", "redis+cluster://one:1,two:2"),
        ("REDIS_URL", "redis+sentinel://one:1/name/0", "redis+sentinel://one:1/name/0"),
        ("REDIS_URL", "off", "off"),
        ("SERVICE_HOST", "::1", "::1"),
        ("SERVICE_PORT", "0", 0),
        ("SERVICE_PORT", "65535", 65535),
        ("SERVICE_WORKERS", "8", 8),
        ("SERVICE_RATE_LIMIT", "100/60s", "100/60s"),
        ("SERVICE_RATE_LIMIT_WRITES", "10/s", "10/s"),
        ("SERVICE_CHANGES_KEPT", "10s", "10s"),
        ("SERVICE_CHANGES_KEPT", "30d", "30d"),
        ("SERVICE_TRUSTED_PROXIES", "10.0.0.0/8, ::1, unix", "10.0.0.0/8, ::1, unix"),
        ("SERVICE_SERVER", "uvicorn", "uvicorn"),
        ("SERVICE_DATA", "/srv/data", "/srv/data"),
        ("SERVICE_AUTH", "off", "off"),
        ("SERVICE_CACHE", "local", "local"),
        ("SERVICE_CACHE_TTL", "1", 1),
        ("SERVICE_CACHE_BYTES", "1000000", 1_000_000),
        ("SERVICE_BATCHING", "off", "off"),
        ("SERVICE_POOL", "16", 16),
        ("SERVICE_POOL", "none", "none"),
        ("SERVICE_STATEMENT_TIMEOUT_MS", "1", 1),
        ("SERVICE_QUEUE_LIMIT", "0", 0),
        ("SERVICE_CORS_ORIGINS", "http://a.example:8000", "http://a.example:8000"),
        ("SERVICE_CERTFILE", "chain.pem", "chain.pem"),
        ("SERVICE_KEYFILE", "key.pem", "key.pem"),
        ("SERVICE_BODY_LIMIT", "1", 1),
        ("SERVICE_IMPORT_LIMIT", "1", 1),
        ("SERVICE_SLOW_REQUEST_MS", "3600000", 3_600_000),
        ("SERVICE_LOG", "json", "json"),
        ("SERVICE_LOG", "off", "off"),
        ("SERVICE_ACCESS_LOG", "on", "on"),
        ("SERVICE_LOG_STATEMENTS", "items.*,users.by_id+values", "items.*,users.by_id+values"),
        ("SERVICE_TRACES", "on", "on"),
        ("SERVICE_METRICS", "/run/counts", "/run/counts"),
        ("SERVICE_SECRET", "sixteen letters!", "sixteen letters!"),
    ),
)
def test_a_value_is_converted_to_the_type_of_its_field(
    dotenv: Path, name: str, text: str, value: object
) -> None:
    assert getattr(load(dotenv, **{name: text}), FIELDS[name]) == value
    dotenv.write_text(f"{name}={text}\n")
    assert getattr(load(dotenv), FIELDS[name]) == value


@pytest.mark.parametrize(
    ("line", "value"),
    (
        ("SERVICE_DATA=store", "store"),
        ("  SERVICE_DATA = store  ", "store"),
        ("export SERVICE_DATA=store", "store"),
        ('SERVICE_DATA="my store"', "my store"),
        ("SERVICE_DATA='my store'", "my store"),
        ('SERVICE_DATA="it\'s"', "it's"),
        ("SERVICE_DATA=it's", "it's"),
        ("SERVICE_DATA=store # where", "store"),
        ("SERVICE_DATA=store\t#where", "store"),
        ("SERVICE_DATA=my store # where", "my store"),
        ("SERVICE_DATA='store' # where", "store"),
        ('SERVICE_DATA="a # b" # where', "a # b"),
        ("SERVICE_DATA='a # b'", "a # b"),
        ("SERVICE_DATA=#b", "#b"),
        ("SERVICE_DATA= # where", ".data"),
        ('SERVICE_DATA="" # where', ".data"),
        ("export  SERVICE_DATA=store", "store"),
        ("export\tSERVICE_DATA = 'store'", "store"),
        (r'SERVICE_DATA="a\"b\\c\d\$e"', r'a"b\c\d$e'),
        (r"SERVICE_DATA='a\b'", r"a\b"),
        ("SERVICE_DATA='a\"b'", 'a"b'),
        ("SERVICE_DATA=$HOME/a", "$HOME/a"),
        ("SERVICE_DATA=a\u2028b", "a\u2028b"),
        ("SERVICE_DATA=first\nSERVICE_DATA=", ".data"),
        ("SERVICE_DATA=a=b", "a=b"),
        ("SERVICE_DATA=a#b", "a#b"),
        ("SERVICE_DATA=Größe", "Größe"),
        ("SERVICE_DATA=store\r", "store"),
        ("SERVICE_DATA=first\nSERVICE_DATA=second", "second"),
        ("SERVICE_DATA=", ".data"),
        ('SERVICE_DATA=""', ".data"),
        ("# SERVICE_DATA=store", ".data"),
        ("\n\n", ".data"),
    ),
)
def test_a_line_of_dotenv_is_read_as_shells_read_it(dotenv: Path, line: str, value: str) -> None:
    dotenv.write_text(f"# where the data is\n{line}\n", encoding="utf-8")
    assert load(dotenv).data == value


@pytest.mark.parametrize("ending", ("\n", "\r\n", "\r"), ids=("LF", "CRLF", "CR"))
@pytest.mark.parametrize("mark", ("", "\ufeff"), ids=("plain", "byte order mark"))
def test_dotenv_files_with_any_line_ending_or_bom_are_read(
    dotenv: Path, mark: str, ending: str
) -> None:
    lines = ["SERVICE_PORT=9000", "SERVICE_DATA='store' # where", 'SERVICE_HOST="::1"', ""]
    dotenv.write_bytes((mark + ending.join(lines)).encode())
    settings = load(dotenv)
    assert (settings.port, settings.data, settings.host) == (9000, "store", "::1")


@pytest.mark.parametrize(
    ("line", "said"),
    (
        (PASSWORD, "expected NAME=value"),
        (f"export {PASSWORD}", "expected NAME=value"),
        (f"={PASSWORD}", "expected NAME=value"),
        (f"SERVICE SECRET={PASSWORD}", "expected NAME=value"),
        (f"'SERVICE_SECRET'={PASSWORD}", "expected NAME=value"),
        (f"SERVICE_SECRET: {PASSWORD}", "expected NAME=value"),
        (f"SERVICE_SECRET='{PASSWORD}", "the closing ' is missing"),
        (f'SERVICE_SECRET="{PASSWORD}', 'the closing " is missing'),
        (f'SERVICE_SECRET="{PASSWORD}\\"', 'the closing " is missing'),
        (f"SERVICE_SECRET='{PASSWORD}'{PASSWORD}", "there is text after the closing '"),
        (f'SERVICE_SECRET="{PASSWORD}"#x', 'there is text after the closing "'),
        (f"SERVICE_SECRET={PASSWORD}\0", "there is a NUL character"),
    ),
)
def test_a_wrong_line_of_dotenv_is_named_by_its_number_only(
    dotenv: Path, line: str, said: str
) -> None:
    dotenv.write_text(f"\ufeff# first\r\n\r\n{line}\r\nSERVICE_PORT=1\r\n")
    assert line_of(dotenv) == f"{dotenv}, line 3: {said}"


def test_the_environment_overrides_dotenv(dotenv: Path) -> None:
    dotenv.write_text("SERVICE_PORT=9000\nSERVICE_WORKERS=2\n")
    settings = load(dotenv, SERVICE_PORT="9001")
    assert (settings.port, settings.workers) == (9001, 2)


def test_an_empty_variable_counts_as_not_set_and_overrides_dotenv(dotenv: Path) -> None:
    dotenv.write_text("SERVICE_PORT=9000\n")
    assert load(dotenv, SERVICE_PORT="").port == 8000


def test_variables_of_other_programs_are_ignored(dotenv: Path) -> None:
    dotenv.write_text("POSTGRES_PASSWORD=x\n")
    assert load(dotenv, PATH="/bin", SERVICES="many", database_url="x") == Settings()


def test_settings_are_read_from_the_process_environment_by_default(
    dotenv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVICE_PORT", "9002")
    assert Settings.load(dotenv=dotenv).port == 9002


def test_settings_are_passed_to_workers_unchanged(dotenv: Path) -> None:
    settings = load(
        dotenv,
        DATABASE_URL="postgresql://u:p@h/db",
        REDIS_URL="off",
        SERVICE_POOL="none",
        SERVICE_AUTH="off",
        SERVICE_LOG="text",
    )
    assert Settings.load(settings.environ(), dotenv) == settings


@pytest.mark.parametrize(("name", "text", "allowed"), WRONG)
def test_the_error_of_a_wrong_value_lists_the_allowed_values(
    dotenv: Path, name: str, text: str, allowed: str
) -> None:
    message = line_of(dotenv, **{name: text})
    assert message.startswith(f"{name}=")
    assert allowed in message
    if name in {"DATABASE_URL", "REDIS_URL", "SERVICE_SECRET", "SERVICE_NOTIFY_URL"}:
        assert message.startswith(f"{name}=(hidden): ")
    else:
        assert repr(text) in message


def test_a_wrong_value_in_dotenv_gives_the_same_error(dotenv: Path) -> None:
    dotenv.write_text("SERVICE_PORT=abc\n")
    assert line_of(dotenv) == "SERVICE_PORT='abc': must be a whole number from 0 to 65535"


def test_every_setting_with_a_rule_has_wrong_values_above() -> None:
    texts = {"SERVICE_HOST", "SERVICE_DATA", "SERVICE_CERTFILE", "SERVICE_KEYFILE"}
    assert {name for name, _, _ in WRONG} == FIELDS.keys() - texts


def test_the_origins_are_those_that_browsers_send(dotenv: Path) -> None:
    text = "https://a.example, http://[::1]:8000,capacitor://localhost,https://a.example"
    found = load(dotenv, SERVICE_CORS_ORIGINS=text).origins
    assert found == ("https://a.example", "http://[::1]:8000", "capacitor://localhost")
    assert load(dotenv).origins == ()


@pytest.mark.parametrize(
    ("name", "nearest"),
    (
        ("SERVICE_PROT", "SERVICE_PORT"),
        ("SERVICE_WORKER", "SERVICE_WORKERS"),
        ("SERVICE_STATEMENT_TIMEOUT", "SERVICE_STATEMENT_TIMEOUT_MS"),
        ("SERVICE_DATABSE", "SERVICE_DATA"),
    ),
)
def test_the_error_of_an_unknown_name_suggests_the_nearest(
    dotenv: Path, name: str, nearest: str
) -> None:
    asked = f"{name} is not a setting; did you mean {nearest}?"
    assert line_of(dotenv, **{name: "1"}) == asked
    assert line_of(dotenv, **{name: ""}) == asked, "an empty one is a mistake too"
    dotenv.write_text(f"{name}=1\n")
    assert line_of(dotenv) == asked


def test_the_error_of_an_unknown_name_without_a_near_one_names_the_reference(dotenv: Path) -> None:
    message = line_of(dotenv, SERVICE_XYZZY_PLUGH_QUUX="1")
    assert (
        message
        == "SERVICE_XYZZY_PLUGH_QUUX is not a setting; docs/reference/settings.md lists them all"
    )


@pytest.mark.parametrize(
    ("name", "text"),
    (
        ("DATABASE_URL", f"mysql://user:{PASSWORD}@host/db"),
        ("DATABASE_URL", f"user:{PASSWORD}@host/db"),
        ("REDIS_URL", f"http://:{PASSWORD}@host"),
        ("SERVICE_SECRET", PASSWORD),
        ("SERVICE_DATABASE_URL", f"postgresql://user:{PASSWORD}@host/db"),
        ("SERVICE_SECRETS", PASSWORD),
    ),
)
def test_a_secret_is_never_shown(dotenv: Path, name: str, text: str) -> None:
    for environ, written in (({name: text}, ""), ({}, f"{name}={text}\n")):
        dotenv.write_text(written)
        with pytest.raises(SettingsError) as caught:
            Settings.load(environ, dotenv)
        assert PASSWORD not in str(caught.value)
        assert PASSWORD not in repr(caught.value)
        assert name in str(caught.value)


def test_a_binary_dotenv_is_an_error(dotenv: Path) -> None:
    dotenv.write_bytes(b"SERVICE_DATA=\xff\n")
    assert f"{dotenv} can't be read: " in line_of(dotenv)
    dotenv.unlink()
    dotenv.mkdir()
    assert f"{dotenv} can't be read: " in line_of(dotenv)


@pytest.mark.parametrize(
    ("host", "public"),
    (
        ("127.0.0.1", False),
        ("127.0.0.2", False),
        ("::1", False),
        ("localhost", False),
        ("0.0.0.0", True),
        ("::", True),
        ("192.168.1.7", True),
        ("example.com", True),
        ("127.example.com", True),
    ),
)
def test_only_a_loopback_address_is_not_public(host: str, public: bool) -> None:
    assert Settings(host=host).public is public


def start(tmp_path: Path, *options: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    """Run `swiftlet serve` in an empty directory, with only these settings."""
    return subprocess.run(
        [sys.executable, "-m", "service", "serve", *options],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k not in DEFAULTS}
        | {"PYTHONPATH": str(ROOT)}
        | environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


@pytest.mark.parametrize(
    ("options", "environ", "line"),
    (
        (
            (),
            {"SERVICE_PORT": "abc"},
            "service: SERVICE_PORT='abc': must be a whole number from 0 to 65535\n",
        ),
        (
            (),
            {"SERVICE_PROT": "1"},
            "service: SERVICE_PROT is not a setting; did you mean SERVICE_PORT?\n",
        ),
        (
            ("--port", "99999"),
            {},
            "service: SERVICE_PORT='99999': must be a whole number from 0 to 65535\n",
        ),
        (
            ("--port", "99999"),
            {"SERVICE_PORT": "9000"},
            "service: SERVICE_PORT='99999': must be a whole number from 0 to 65535\n",
        ),
        (
            (),
            {"DATABASE_URL": f"mysql://user:{PASSWORD}@host/db"},
            "service: DATABASE_URL=(hidden): must be postgresql://user:pass@host:port/db\n",
        ),
        (
            (),
            {"DATABASE_URL": f"postgresql://user:se/{PASSWORD}@host/db"},
            (
                "service: DATABASE_URL=(hidden): there is an @ after the host; in a name or"
                " password, write / ? # @ : % as %2F %3F %23 %40 %3A %25\n"
            ),
        ),
    ),
)
def test_the_start_stops_with_one_line(
    tmp_path: Path, options: tuple[str, ...], environ: dict[str, str], line: str
) -> None:
    told = start(tmp_path, *options, **environ)
    assert (told.returncode, told.stdout, told.stderr) == (2, "", line)
    assert not list(tmp_path.iterdir()), "nothing was begun"


def test_the_start_stops_with_the_line_number_of_dotenv(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("SERVICE_WORKERS=none\n")
    told = start(tmp_path)
    assert told.returncode == 2
    assert told.stdout == ""
    assert told.stderr == (
        "service: SERVICE_WORKERS='none': must be a whole number from 1 to 1024\n"
    )


@pytest.mark.parametrize(
    ("environ", "said"),
    (
        ({"DATABASE_URL": f"postgresql://user:se/{PASSWORD}@host/db"}, "DATABASE_URL=(hidden): "),
        ({"DATABASE_URL": "postgresql://host/db", "REDIS_URL": "redis://host:abc"}, "REDIS_URL="),
    ),
    ids=("database", "redis"),
)
def test_an_asgi_server_prints_a_wrong_setting_in_one_line(
    tmp_path: Path, environ: dict[str, str], said: str
) -> None:
    told = subprocess.run(
        [sys.executable, "-c", "import service.asgi"],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k not in DEFAULTS}
        | {"PYTHONPATH": str(ROOT)}
        | environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert told.returncode == 1
    assert told.stderr.startswith("swiftlet: ")
    assert said in told.stderr
    assert told.stderr.count("\n") == 1
    assert PASSWORD not in told.stderr


def test_an_asgi_server_prints_in_one_line_that_the_database_is_not_set(tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "uvicorn", "--port", "0", "service.asgi:app"],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k not in DEFAULTS} | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert told.returncode == 3, "uvicorn's own code where an application does not start"
    lines = [line.split(maxsplit=1)[1] for line in told.stderr.splitlines()]
    assert lines[2:] == [
        "swiftlet: DATABASE_URL is not set; `swiftlet serve` starts its own database",
        "Application startup failed. Exiting.",
    ]
