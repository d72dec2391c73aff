"""Run an application in a server process, and send it the requests that tests share."""

import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from service.conformance import values
from service.resource import Resource

READY_SECONDS = 120
STOP_SECONDS = 30
ADDRESS = re.compile(r"http://[\d.]+:\d+")


class Served:
    """An application behind a server process.

    `client` sends requests to it; `log` is the file with its output.
    """

    def __init__(self, client: httpx.Client, log: Path) -> None:
        self.client = client
        self.log = log
        self._made: dict[str, int] = {}

    def parents(self, of: Resource[Any]) -> dict[str, int]:
        """Create a parent for each reference of a resource, and return their ids."""
        return {field: self.create(parent)["id"] for field, parent in of.references.items()}

    def next(self, of: Resource[Any]) -> int:
        """Return a number that no row of the resource has used."""
        self._made[of.name] = self._made.get(of.name, -1) + 1
        return self._made[of.name]

    def new(self, of: Resource[Any], **given: Any) -> dict[str, Any]:
        """Return a valid body for a new row; `given` overrides fields."""
        return values.row(of, self.next(of), self.parents(of)) | given

    def create(self, of: Resource[Any], **given: Any) -> dict[str, Any]:
        """Create a row, and return it as in the response."""
        answer = self.client.post(of.path, json=self.new(of, **given))
        assert answer.status_code == 201, answer.text
        row: dict[str, Any] = answer.json()
        return row

    def several(self, of: Resource[Any], count: int) -> list[dict[str, Any]]:
        """Create rows with the same parents."""
        parents = self.parents(of)
        made = []
        for _ in range(count):
            answer = self.client.post(of.path, json=values.row(of, self.next(of), parents))
            assert answer.status_code == 201, answer.text
            made.append(answer.json())
        return made

    def all(self, of: Resource[Any], **query: Any) -> list[dict[str, Any]]:
        """Return every row of a list, by cursor."""
        found: list[dict[str, Any]] = []
        cursor: str | None = ""
        while cursor is not None:
            asked = {"cursor": cursor, "per_page": 100, **query}
            answer = self.client.get(of.path, params=asked)
            assert answer.status_code == 200, answer.text
            page = answer.json()
            found += page["items"]
            cursor = page["next_cursor"]
        return found


@contextmanager
def serving(app: str, directory: Path, **environ: str) -> Iterator[Served]:
    """Serve an application on its own stores, in an empty directory.

    Args:
        app: `MODULE:NAME`; the module must be on `sys.path` of this process.
        directory: for the data and the log.
        environ: settings, such as `DATABASE_URL` for your own database.
    """
    log = directory / "server.log"
    kept = {name: one for name, one in os.environ.items() if not name.startswith("SERVICE_")}
    kept |= {"SERVICE_LOG": "json", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    kept |= {"SERVICE_SECRET": secrets.token_hex(16)}
    command = ["serve", "--app", app, "--port", "0", "--data", str(directory / "data")]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "service", *command],
            cwd=directory,
            env=kept | environ,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        url = _ready(process, log)
        with httpx.Client(base_url=url, timeout=30) as client:
            yield Served(client, log)
        process.terminate()
        assert process.wait(STOP_SECONDS) == 0, log.read_text()
        assert "Traceback" not in log.read_text(), log.read_text()
    finally:
        process.kill()
        process.wait()


def _ready(process: subprocess.Popen[bytes], log: Path) -> str:
    """Return the address of the server when it answers."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        for url in ADDRESS.findall(log.read_text()):
            try:
                if httpx.get(f"{url}/health/live").status_code == 200:
                    return str(url)
            except httpx.TransportError:
                pass
        time.sleep(0.05)
    raise AssertionError(log.read_text())


def statements_run(answer: httpx.Response) -> int:
    """Return the number of statements of a response, from its Server-Timing header."""
    return int(answer.headers["server-timing"].split('desc="')[1].split(" ")[0])
