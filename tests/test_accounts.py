"""`swiftlet users`, `swiftlet keys`, and the first start on a network."""

import re
import shlex
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from conftest import Service, query
from test_cli import Ran, place

from service.asgi import MIGRATIONS, app
from service.cli import main
from service.keys.key_format import parse
from service.logs import logger
from service.migrations import migrate
from service.settings import Settings

__all__ = ["place"]  # a fixture

ADA = "ada@example.com"


@pytest.fixture(scope="module")
def url(new_database: Callable[[], str]) -> str:
    made = new_database()
    migrate.up(made, MIGRATIONS)
    return made


class Called(NamedTuple):
    """The end of a command that ran in this process, which takes a hundredth of the time."""

    code: int
    out: str
    err: str

    def refused(self, code: int) -> str:
        """Return the only line of the error."""
        assert self.code == code, self.err
        assert self.out == ""
        assert re.fullmatch(r"[^\n]+\n", self.err), self.err
        return self.err


Run = Callable[..., Called]


@pytest.fixture
def run(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    """Return a function that runs a command on the database."""
    monkeypatch.setattr(app, "settings", Settings(database_url=url))
    monkeypatch.setattr(logger, "handlers", logger.handlers)
    terminated = signal.getsignal(signal.SIGTERM)

    def called(*words: str) -> Called:
        with pytest.raises(SystemExit) as ended:
            main.main(args=[*words], prog_name="service")
        code = ended.value.code
        assert isinstance(code, int)
        return Called(code, *capsys.readouterr())

    yield called
    signal.signal(signal.SIGTERM, terminated)


def test_the_commands_make_users_and_keys_and_revoke_them(run: Run, url: str) -> None:
    assert run("users", "create", ADA, "ada", "--role", "admin").out.startswith("user 1: ada@")
    assert run("users", "create", "bob@example.com", "bob").code == 0
    assert run("users", "create", "ADA@example.com", "ada2").refused(1) == (
        "service: email is already taken\n"
    )

    made = run("keys", "create", "--user", "Ada@Example.com")
    key = made.out.strip()
    assert made.code == 0
    assert made.out == f"{key}\n"
    assert parse(key.encode()) is not None
    assert key not in made.err
    assert "read write admin" in made.err
    told = run("keys", "create", "--user", "bob@example.com", "--scope", "admin").refused(1)
    assert "only an admin's key may have the scope admin" in told
    lent = run(
        *("keys", "create", "--user", "bob@example.com", "--scope", "read"),
        *("--expires", "90d", "--name", "b\x1b[31mob\n"),
    )
    assert lent.code == 0, lent.err
    days = "SELECT extract(epoch FROM expires_at - now()) / 86400 FROM keys WHERE id = 2"
    assert 89 < query(url, days)[0][0] <= 90

    listed = run("keys", "list").out
    _, first, second = listed.splitlines()
    assert first.split()[:2] == ["1", ADA]
    assert key[:17] in first
    assert key[17:] not in listed
    assert "\x1b" not in second
    assert "read " in second
    (one,) = run("keys", "list", "--user", ADA).out.splitlines()[1:]
    assert one.split() == first.split()

    assert run("keys", "revoke", "1").out == "key 1 is revoked\n"
    assert "there is no key 1" in run("keys", "revoke", "1").refused(1)
    assert not query(url, "SELECT FROM keys WHERE id = 1")
    told = run("keys", "create", "--user", "eve@example.com").refused(1)
    assert "there is no user eve@example.com" in told


@pytest.mark.parametrize(
    ("words", "named"),
    (
        (("users", "create", "not-an-address", "ada"), "email"),
        (("users", "create", ADA, "a b"), "username"),
        (("keys", "create", "--user", ADA, "--name", " "), "name"),
        (("keys", "create", "--user", ADA, "--expires", "90y"), "--expires"),
        (("keys", "create", "--user", ADA, "--expires", "99999999w"), "--expires"),
        (("keys", "create", "--user", ADA, "--scope", "fly"), "--scope"),
        (("keys", "create"), "--user"),
        (("keys", "revoke", "0"), "ID"),
    ),
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else value,
)
def test_a_wrong_argument_is_wrong_usage(run: Run, words: tuple[str, ...], named: str) -> None:
    assert named in run(*words).refused(2)


def test_an_application_without_keys_has_no_commands_for_them(place: Path, url: str) -> None:
    (place / "plain.py").write_text(
        "from service.app import create_app\nfrom service.settings import Settings\n"
        "app = create_app(Settings.load())\n"
    )
    told = Ran(place, "keys", "list", "--app", "plain:app", DATABASE_URL=url).refused(2)
    assert "plain:app has no keys" in told


def test_a_first_start_on_a_network_says_how_to_make_the_first_key(
    place: Path, tmp_path: Path
) -> None:
    """Its commands are run as they are printed, while it serves."""
    running = Service(
        tmp_path / "log", "--host", "0.0.0.0", "--data", str(place / "data"), SERVICE_LOG="json"
    )
    try:
        running.wait_until_ready()
        log = until(lambda: "Ctrl-C" in (text := running.log.read_text()) and text)
        commands = re.findall(r"^ +Run +swiftlet (.*)$", log, re.MULTILINE)
        assert len(commands) == 2
        assert all(f'"swiftlet {command}"' in log for command in commands), "in a log line too"
        assert httpx.get(f"{running.url}/items").status_code == 401
        assert httpx.get(f"{running.url}/health").status_code == 200
        made, key = (Ran(place, *shlex.split(command)) for command in commands)
        assert made.code == key.code == 0, (made.err, key.err)
        headers = {"X-API-Key": key.out.strip()}
        created = httpx.post(f"{running.url}/items", json={"name": "Lamp"}, headers=headers)
        assert created.status_code == 201
        ran = Ran(place, "keys", "revoke", "1", "--data", str(place / "data"))
        assert ran.code == 0, ran.err
        until(lambda: httpx.get(f"{running.url}/items", headers=headers).status_code == 401)
        assert running.stop() == 0
        assert headers["X-API-Key"] not in running.log.read_text()
    finally:
        running.process.kill()
        running.process.wait()


def until(find: Callable[[], str | bool]) -> str:
    """Return what is found, within 60 s."""
    end = time.monotonic() + 60
    while not (found := find()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return str(found)
