"""CORS of refusals by the guard, and of Starlette routes; test_outside.py has all others."""

import guarded_app
import pytest
from guarded_app import Keys
from test_guard import Limits, bearer, client_of

from service.http1.standard_headers import HSTS
from service.web.added_headers import AddedHeaders
from service.web.cors import Cors

ORIGIN = "https://app.example.com"
PAGE = {"Origin": ORIGIN}
pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarded_app.app, "added", Cors((ORIGIN,), HSTS))


async def test_a_page_can_read_refusals_of_the_guard_and_starlette_routes() -> None:
    keys = Keys()
    key = bearer(keys.add("reader", "read"))
    rows: tuple[tuple[str, str, dict[str, str], int], ...] = (
        ("GET", "/rows", {}, 401),
        ("GET", "/plain", {}, 401),
        ("POST", "/echo", key, 403),
        ("GET", "/fails", key, 500),
        ("GET", "/plain", key, 200),
        ("PUT", "/plain", key, 405),
        ("GET", "/limited", key, 200),
        ("GET", "/limited", key, 429),
    )
    async with client_of(keys, limits=Limits(100)) as client:
        for method, path, headers, status in rows:
            response = await client.request(method, path, headers={**headers, **PAGE})
            assert response.status_code == status, (path, response.text)
            assert response.headers.get_list("access-control-allow-origin") == [ORIGIN]
            assert response.headers.get_list("x-content-type-options") == ["nosniff"]
            assert response.headers.get_list("strict-transport-security") == [HSTS[1].decode()]
            assert "origin" in response.headers.get_list("vary", split_commas=True)
            exposed = response.headers["access-control-expose-headers"].split(", ")
            assert {"www-authenticate", "retry-after", "ratelimit", "etag"} <= set(exposed)


async def test_a_preflight_needs_no_key_and_knows_starlette_routes() -> None:
    rows = (
        ("/rows", "GET, HEAD"),
        ("/echo", "POST"),
        ("/plain", "GET, HEAD"),
        ("/plain-post", "POST"),
        ("/users/1/items", "GET, HEAD, POST"),
    )
    async with client_of(Keys(), limits=Limits(0)) as client:
        for path, methods in rows:
            asked = {**PAGE, "Access-Control-Request-Method": "POST"}
            response = await client.options(path, headers=asked)
            assert response.status_code == 204, (path, response.text)
            assert response.headers["access-control-allow-methods"] == methods
        assert (await client.options("/rows", headers=PAGE)).status_code == 405


async def test_without_cors_no_response_has_its_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    for added in (None, AddedHeaders(HSTS)):
        monkeypatch.setattr(guarded_app.app, "added", added)
        async with client_of(Keys()) as client:
            asked = {**PAGE, "Access-Control-Request-Method": "POST"}
            for response in (
                await client.options("/open", headers=asked),
                await client.get("/open", headers=PAGE),
            ):
                assert response.status_code in (200, 405)
                assert not [name for name in response.headers if "access-control" in name]
                assert ("strict-transport-security" in response.headers) == (added is not None)
                assert "vary" not in response.headers
