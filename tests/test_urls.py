"""URLs of stores: accepted ones, and errors that show no part of a password."""

import re
import urllib.parse
from pathlib import Path

import asyncpg.connect_utils
import pytest

from service.cache.client import client
from service.settings import Settings, SettingsError

NO_FILE = Path("/no/such/directory/.env")

GOOD_DATABASES = (
    "postgresql://app:secret@host/app",
    "postgres://app@host:5433/app",
    "postgresql://host/db",
    "postgresql://host",
    "postgresql:///db",
    "postgresql:///db?host=/run/postgresql",
    "postgresql://app:secret@/db?host=/run/postgresql&port=5433",
    "postgresql:///db?host=/tmp/my%20dir%25/%23%3F",
    "postgresql://%2Frun%2Fpostgresql/db",
    "postgresql://app:se%2Fcret%40%3A%23%25@host/app",
    "postgresql://app:se:cret@host/app",
    "postgresql://app:päss@host/app",
    "postgresql://one,two/app",
    "postgresql://one:5432,two:5433/app?target_session_attrs=read-write",
    "postgresql://[::1]:5432/app",
    "postgresql://[fe80::1]/app",
    "postgresql://host/a%2Fb",
    "postgresql:///db?user=ada@example&password=x",
    "postgresql://app@host/app?sslmode=verify-full&application_name=shop",
    "postgresql://app@host/app?options=-csearch_path%3Dshop",
    # A setting of the server, which the server checks.
    "postgresql://app@host/app?connect_timeout=5",
)
# Each with a part of its error. The parts of the password are se, cret and 1234.
BAD_DATABASES = (
    ("postgresql://app:se/cret@host/app", "@ after the host"),
    ("postgresql://app:se?cret@host/app", "@ after the host"),
    ("postgresql://app:se#cret@host/app", "a # in it"),
    ("postgresql://app:se@cret@host/app", "two @"),
    ("postgresql://app:se%cret@host/app", "hexadecimal"),
    ("postgresql://app:secret%@host/app", "hexadecimal"),
    ("postgresql://app:se%e4cret@host/app", "UTF-8"),
    ("postgresql://app:se%00cret@host/app", "%00"),
    ("postgresql://app:se cret@host/app", "space"),
    ("postgresql://app:se\tcret@host/app", "control character"),
    ("postgresql://app:se\ncret@host/app", "control character"),
    ("postgresql://app:se\udce4cret@host/app", "control character"),
    ("postgresql://app:se[cret@host/app", "host can't be read"),
    ("postgresql://app:se℀cret@host/app", "host can't be read"),
    # The text before the / looks like a port.
    ("postgresql://app:12/34secret@host/app", "@ after the host"),
    ("postgresql://app:12?x=34secret@host/app", "@ after the host"),
    ("postgresql://secret/1234@host/app", "@ after the host"),
    ("postgresql://app:secret@host/app/more", "/ in the database's name"),
    ("postgresql://app:secret@host:cret/app", "port"),
    ("postgresql://app:secret@host:/app", "port"),
    ("postgresql://app:secret@host:0/app", "port"),
    ("postgresql://app:secret@host:65536/app", "port"),
    ("postgresql://app:secret@host:-1/app", "port"),
    ("postgresql://app:secret@host:5432:5433/app", "port"),
    ("postgresql://app:secret@one:5432,two:se/app", "port"),
    ("postgresql://app:secret@one,,two/app", "no host"),
    ("postgresql://app:secret@:5432/app", "no host"),
    ("postgresql://app:secret@/app", "no host"),
    ("postgresql://:@:/", "no host"),
    ("postgresql://", "no host"),
    ("postgresql://::1/app", "IPv6"),
    ("postgresql://[::1/app", "host can't be read"),
    ("postgresql://app:secret@host/app?sslmode", "name=value"),
    ("postgresql://app:secret@host/app?sslmode=secret", "sslmode must be one of disable, "),
    ("postgresql://app:secret@host/app?target_session_attrs=secret", "target_session_attrs"),
    ("postgresql://app:secret@/app?host=/run&port=secret", "port"),
    ("postgresql://host/app?sslmode=verify-full&sslrootcert=/no/secret", "file of sslrootcert"),
    ("postgresql://host/app?sslmode=require&sslcert=/no/secret", "file of sslcert"),
    ("postgresql://host/app?sslmode=require&sslkey=/no/secret", "file of sslkey"),
    ("postgresql+asyncpg://app:secret@host/app", "must be postgresql://"),
    ("mysql://app:secret@host/app", "must be postgresql://"),
    ("app:secret@host/app", "must be postgresql://"),
    (" postgresql://app:secret@host/app", "must be postgresql://"),
    ("postgresql://app:secret@host/app ", "space"),
)
GOOD_REDIS = (
    "off",
    "redis://host",
    "redis://host:6379/0",
    "redis://:secret@host:6380/15",
    "redis://app:se%2Fcret@host?db=3&socket_timeout=0.1",
    "redis:///0",
    "redis://[::1]:6379",
    f"rediss://host?ssl_cert_reqs=none&ssl_ca_certs={urllib.parse.quote(__file__)}",
    "unix:///run/redis.sock",
    "unix:///run/my%20dir%25/redis.sock?db=2",
    "unix://app:secret@/run/redis.sock",
    "redis+cluster://one:7000,two",
    "redis+cluster://app:secret@[::1]:7000,two:7001/",
    "redis+sentinel://one:26379,two/name/0",
    "redis+sentinel://:secret@one",
    "redis+sentinel://one/name",
)
BAD_REDIS = (
    ("redis://host:abc", "port"),
    ("redis://host:", "port"),
    ("redis://host:70000", "port"),
    ("redis://:se/cret@host", "@ after the host"),
    ("redis://:12/34secret@host", "@ after the host"),
    ("redis://:se@cret@host", "two @"),
    ("redis://:se#cret@host", "a # in it"),
    ("redis://:se%cret@host", "hexadecimal"),
    ("redis://:secret@", "no host"),
    ("redis://:secret@:6379", "no host"),
    ("redis://:6379", "no host"),
    ("redis://one,two", "more than one host"),
    ("redis://host/abc", "must be a number"),
    ("redis://host/1/2", "must be a number"),
    ("redis://host/-1", "must be a number"),
    ("redis://host?db=abc", "db has a wrong value"),
    ("redis://host?secret=1", "unknown parameter"),
    ("redis://host?ssl_cert_reqs=none", "unknown parameter"),
    ("rediss://host?ssl_cert_reqs=maybe", "ssl_cert_reqs has a wrong value"),
    ("rediss://host?ssl_ca_certs=/no/secret", "file of ssl_ca_certs"),
    ("rediss://host?ssl_certfile=/no/secret", "file of ssl_certfile"),
    ("redis://host?protocol=4", "protocol has a wrong value"),
    ("redis://host?db", "name=value"),
    ("unix://run/redis.sock", "unix:///run"),
    ("unix:///", "unix:///run"),
    ("unix:///run/redis.sock?db=x", "db has a wrong value"),
    ("redis+cluster://one:a,two", "port"),
    ("redis+cluster://one,two/0x", "no database numbers"),
    ("redis+cluster://,", "no host"),
    ("redis+cluster:///x", "no host"),
    ("redis+cluster://one?db=1", "has none"),
    ("redis+sentinel://one/name/first", "where db is a number"),
    ("redis+sentinel://one/name/0/1", "where db is a number"),
    ("redis+sentinel://one:x/name", "port"),
    ("redis+sentinel:///name", "no host"),
    ("redis+tls://host", "must be redis://"),
    ("rediss+cluster://host", "must be redis://"),
    ("host:6379", "must be redis://"),
    ("OFF", "must be redis://"),
)
PIECES = re.compile(r"secret|cret|\bse\b|1234|34s")


def refusal(name: str, url: str) -> str:
    with pytest.raises(SettingsError) as caught:
        Settings.load({name: url}, NO_FILE)
    assert caught.value.__suppress_context__, "a traceback would show the URL"
    return str(caught.value)


def numbered(cases: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    return tuple(f"{number}-{said}" for number, (_, said) in enumerate(cases))


@pytest.mark.parametrize("url", GOOD_DATABASES)
def test_a_database_url_is_accepted_and_asyncpg_reads_it(
    url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert Settings.load({"DATABASE_URL": url}, NO_FILE).database_url == url
    if "verify-full" in url:
        return  # reads a certificate
    addresses, parameters = asyncpg.connect_utils._parse_connect_dsn_and_args(  # type: ignore[attr-defined]  # private, and what connects
        dsn=url,
        **dict.fromkeys(
            (
                *("host", "port", "user", "password", "passfile", "database", "ssl", "service"),
                *("servicefile", "direct_tls", "server_settings", "target_session_attrs"),
                *("krbsrvname", "gsslib"),
            )
        ),
    )
    assert addresses
    if "%2Fcret" in url:
        assert parameters.password == "se/cret@:#%"


@pytest.mark.parametrize(("url", "said"), BAD_DATABASES, ids=numbered(BAD_DATABASES))
def test_the_error_of_a_database_url_shows_no_part_of_the_password(url: str, said: str) -> None:
    told = refusal("DATABASE_URL", url)
    assert said in told
    assert told.startswith("DATABASE_URL=(hidden): ")
    assert "\n" not in told
    # The example of a right URL in the message has no password of ours.
    assert not PIECES.search(told), told


@pytest.mark.parametrize("url", GOOD_REDIS)
def test_a_redis_url_is_accepted_and_makes_a_client(url: str) -> None:
    assert Settings.load({"REDIS_URL": url}, NO_FILE).redis_url == url
    if url != "off":
        client(url)


@pytest.mark.parametrize(("url", "said"), BAD_REDIS, ids=numbered(BAD_REDIS))
def test_the_error_of_a_redis_url_shows_no_part_of_the_password(url: str, said: str) -> None:
    told = refusal("REDIS_URL", url)
    assert said in told
    assert told.startswith("REDIS_URL=(hidden): ")
    assert not PIECES.search(told), told


@pytest.mark.parametrize("character", "/?#@:%&=+ ,;[]()'\"\\<>{}|^~!$*ä€")
def test_any_percent_encoded_password_is_accepted(character: str) -> None:
    quoted = urllib.parse.quote(f"se{character}cret", safe="")
    for name, scheme in (("DATABASE_URL", "postgresql"), ("REDIS_URL", "redis")):
        Settings.load({name: f"{scheme}://app:{quoted}@host/0"}, NO_FILE)


@pytest.mark.parametrize("character", "/?#@:%&=+ ,;[]()'\"\\<>{}|^~!$*ä€")
def test_a_password_without_encoding_is_accepted_as_written_or_rejected(character: str) -> None:
    url = f"postgresql://app:se{character}cret@host/db"
    refused = ""
    try:
        Settings.load({"DATABASE_URL": url}, NO_FILE)
    except SettingsError as error:
        refused = str(error)
    if refused:
        assert not PIECES.search(refused)
    else:
        parts = urllib.parse.urlsplit(url)
        assert parts.hostname == "host"
        assert urllib.parse.unquote(parts.password or "") == f"se{character}cret"
