"""The OpenAPI document, and the page of the API in a real browser."""

import base64
import hashlib
import re
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest
from conftest import Service
from openapi_spec_validator import validate

from service.asgi import app

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")


def test_the_document_is_valid_and_has_every_route(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    validate(document)
    told = {
        (method.upper(), path) for path, methods in document["paths"].items() for method in methods
    }
    assert told == {
        (operation.method, operation.path) for operation in app.operations if operation.documented
    }


def test_the_page_loads_nothing_from_other_hosts(client: httpx.Client) -> None:
    page = client.get("/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert not re.findall(r"""(?:src|href)=["'](?:https?:)?//""", page.text)


def test_the_page_runs_only_its_own_script(client: httpx.Client) -> None:
    """The policy allows the script by its hash, so an injected script does not run."""
    page = client.get("/docs")
    (script,) = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page.headers["content-security-policy"]


def test_the_page_ignores_the_host_header(client: httpx.Client) -> None:
    plain = client.get("/docs").text
    assert client.get("/docs", headers={"host": "evil.example:1"}).text == plain
    assert "127.0.0.1" not in plain
    assert "8000" not in plain


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: `apt-get install chromium`")
def test_a_browser_shows_every_operation(
    client: httpx.Client, service: Service, tmp_path: Path
) -> None:
    assert CHROMIUM is not None
    found = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--window-size=1000,1400",
            f"--screenshot={tmp_path / 'docs.png'}",
            "--dump-dom",
            f"{service.url}/docs",
        ],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    document = client.get("/openapi.json").json()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert f'<details id="{operation["operationId"]}"' in found.stdout
            assert f"<b>{method.upper()}</b> <code>{path}</code>" in found.stdout
            example = f"curl -X {method.upper()} "
            base = re.escape(f">{service.url}</span>{path.replace('{id}', '1')}")
            assert re.search(f"{example}<span [^>]*{base}", found.stdout), operation
    # As the browser parsed it: rows are in tables, tables in their section.
    assert found.stdout.count("</details>") >= 20
    assert (tmp_path / "docs.png").stat().st_size > 20_000
