"""The document, and the page in a real browser."""

import re
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest
from conftest import Service
from openapi_spec_validator import validate

from service.app import ROUTES

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")


def test_the_document_is_valid_and_tells_of_every_route(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    validate(document)
    told = {
        (method.upper(), path) for path, methods in document["paths"].items() for method in methods
    }
    assert told == {(operation.method, operation.path) for operation in ROUTES}


def test_every_answer_is_of_its_documented_shape(client: httpx.Client) -> None:
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    item = client.post("/items", json={"name": "Lamp", "price": 1}).json()
    user = client.post("/users", json={"email": "a@b.co", "username": "ada"}).json()
    shapes = {
        "Item": item,
        "User": user,
        "Page_Item_": client.get("/items").json(),
        "CursorPage_Item_": client.get("/items?cursor=&total=exact").json(),
        "Page_UserSummary_": client.get("/users").json(),
        "Readiness": client.get("/health/ready").json(),
        "Health": client.get("/health").json(),
        "ProblemDocument": client.get("/items/abc").json(),
    }
    for name, shape in shapes.items():
        assert list(schemas[name]["properties"]) == list(shape), name
    price = schemas["Item"]["properties"]["price"]
    assert {"number", "null"} == {one["type"] for one in price["anyOf"]}


def test_every_write_tells_its_problems(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    create = paths["/items"]["post"]["responses"]
    assert {"201", "400", "408", "409", "413", "415", "422", "503", "504"} == set(create)
    remove = paths["/items/{id}"]["delete"]["responses"]
    assert {"200", "204", "404", "409", "412", "422", "503", "504"} == set(remove)


def test_the_page_takes_nothing_from_elsewhere(client: httpx.Client) -> None:
    page = client.get("/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert not re.findall(r"""(?:src|href)=["'](?:https?:)?//""", page.text)


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
    # As the browser parsed it: rows are in tables, tables in their section.
    assert found.stdout.count("</details>") >= 20
    assert (tmp_path / "docs.png").stat().st_size > 20_000
