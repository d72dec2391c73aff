"""Paths of checkout, data and sockets with special characters."""

import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from conftest import ROOT, query
from test_cli import environment, serving

# % is special in ConfigParser and URLs, : and , in lists, [ in rich, the others in shells.
STRANGE = '50% o:f, "a" b\'c #1? [/bold] & ä €'


@pytest.fixture(scope="module")
def strange() -> Iterator[Path]:
    """A directory that PostgreSQL's account can reach when we are root."""
    made = Path(tempfile.mkdtemp(prefix="paths-", dir="/tmp"))
    made.chmod(0o755)
    place = made / STRANGE
    place.mkdir(parents=True)
    yield place
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def checkout(strange: Path) -> Path:
    """The service and its migrations below a path with special characters."""
    for part in ("service", "sql"):
        shutil.copytree(ROOT / part, strange / part, ignore=shutil.ignore_patterns("__pycache__"))
    return strange


def ran(place: Path, *words: str, **environ: str) -> str:
    """Run a command from its checkout; return its output."""
    kept = environment(**environ)
    del kept["PYTHONPATH"]  # `-m` searches it first
    done = subprocess.run(
        [sys.executable, "-m", "service", *words],
        cwd=place,
        env=kept,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_checkout_and_its_data_may_have_any_path(checkout: Path) -> None:
    """Also with the other commands, and with a migration of an application."""
    structs = checkout / "service" / "items" / "structs.py"
    new, shown = "    price: Price | None = None\n", "    price: Decimal | None\n"
    with serving(checkout) as one:
        assert one.banner()["Data"] == str(checkout / ".data")
        assert httpx.get(f"{one.url}/items").json()["items"] == []
        structs.write_text(
            structs.read_text()
            .replace(new, f"{new}    colour: str | None = None\n")
            .replace(shown, f"{shown}    colour: str | None\n")
        )
        told = ran(checkout, "migrate", "new", "items have a colour")
        assert f"{checkout}/sql/migrations/" in told
        assert "_items_have_a_colour.py" in told
        ran(checkout, "migrate")
        assert "agree" in ran(checkout, "migrate", "check")
        ran(checkout, "export", "out #1?%.csv")
        assert (checkout / "out #1?%.csv").exists()
        one.stop(signal.SIGTERM)
        assert one.process.returncode == 0, one.errors()


def test_the_socket_of_a_database_may_have_any_path(strange: Path, database_url: str) -> None:
    socket = database_url.partition("host=")[2].partition("&")[0]
    # Not a comma, which separates hosts; and the path has at most 107 bytes.
    link = strange.parents[1] / STRANGE.replace("/", "").replace(",", "")
    link.symlink_to(socket)
    url = database_url.replace(socket, quote(str(link)))
    assert query(url, "SELECT 1")
    assert "newest" in ran(ROOT, "migrate", "status", DATABASE_URL=url)
    assert str(link.readlink()) == socket
