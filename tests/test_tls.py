"""TLS under both servers, with a log line for every request: what the log shows and hides."""

import json
import secrets
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from accounts import Account, account
from conftest import ROOT, Service, check_answer
from raw_http import answers
from test_faults import eventually

from service.asgi import MIGRATIONS
from service.migrations import migrate
from service.server.tls import check_files
from service.settings import SettingsError

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="the test makes its certificates with openssl"
)


class Certificate(NamedTuple):
    chain: Path
    key: Path


def make_certificate(folder: Path) -> Certificate:
    chain, key = folder / "chain.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command += ["-keyout", str(key), "-out", str(chain)]
    subprocess.run(command, check=True, capture_output=True)
    return Certificate(chain, key)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def trust(certificate: Certificate) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate.chain))


class Secure(Service):
    """A server with TLS and keys; `form` is the form of its log."""

    form = ""
    trust: ssl.SSLContext
    admin: Account

    def ready(self) -> bool:
        try:
            with httpx.Client(verify=self.trust) as client:
                return client.get(f"{self.url}/health/live").status_code == 200
        except httpx.TransportError:
            return False


@pytest.fixture(scope="module", params=(("uvicorn", "text"), ("granian", "json")), ids=str)
def secure(
    request: pytest.FixtureRequest,
    certificate: Certificate,
    trust: ssl.SSLContext,
    new_database: Callable[[], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Secure]:
    kind, form = request.param
    url = new_database()
    migrate.up(url, MIGRATIONS)
    options = ("--certfile", str(certificate.chain), "--keyfile", str(certificate.key))
    running = Secure(
        tmp_path_factory.mktemp(kind) / "service.log",
        "--server",
        kind,
        *options,
        DATABASE_URL=url,
        REDIS_URL="off",
        SERVICE_AUTH="on",
        SERVICE_LOG=form,
        SERVICE_ACCESS_LOG="on",
        SERVICE_SLOW_REQUEST_MS="1",
        SERVICE_SLOW_QUERY_MS="1",
        PYTHONUNBUFFERED="1",
    )
    running.url = running.url.replace("http:", "https:")
    running.form, running.trust = form, trust
    running.admin = account(url, "admin")
    try:
        eventually(running.ready, 60)
        yield running
        # Clients that do not confirm the end of TLS do not hold up the stop.
        with (
            socket.create_connection(("127.0.0.1", running.port)) as plain,
            trust.wrap_socket(plain, server_hostname="localhost") as idle,
        ):
            idle.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            assert idle.recv(65_536)
            assert running.stop() == 0
        log = running.log.read_text()
        assert "Traceback" not in log
        assert "graceful shutdown exceeded" not in log
    finally:
        running.process.kill()
        running.process.wait()


@pytest.fixture
def client(secure: Secure) -> Iterator[httpx.Client]:
    hooks = {"response": [check_answer]}
    with httpx.Client(
        base_url=secure.url,
        verify=secure.trust,
        timeout=30,
        event_hooks=hooks,
        headers=secure.admin.headers,
    ) as one:
        yield one


def talk(secure: Secure, data: bytes) -> bytes:
    """Return all data until the server ends TLS; an end of TCP alone is an error."""
    received = b""
    with (
        socket.create_connection(("127.0.0.1", secure.port), timeout=10) as plain,
        secure.trust.wrap_socket(
            plain, server_hostname="localhost", suppress_ragged_eofs=False
        ) as one,
    ):
        one.sendall(data)
        while part := one.recv(65_536):
            received += part
    return received


def test_requests_of_any_size_are_answered(client: httpx.Client) -> None:
    assert client.post("/items", json={"name": "a"}).status_code == 201
    many = client.post("/items/bulk", json={"items": [{"name": "x" * 250}] * 1000})
    assert (many.status_code, len(many.json()["items"])) == (201, 1000)
    assert len(client.get("/items/export").text.splitlines()) == 1001
    assert client.post("/items", content=b" " * 2_000_000).status_code in (413, 415)
    assert client.get("/nothing").status_code == 404


@pytest.mark.parametrize("path", ("/items", "/items/999", "/nothing", "/docs", "/health"))
def test_every_response_asks_browsers_to_stay_with_https(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.headers.get_list("strict-transport-security") == ["max-age=31536000"]


def test_a_refused_request_gets_its_answer_and_the_end(secure: Secure) -> None:
    (answer,) = answers(talk(secure, b"GET /items HTTP/1.1\r\n\r\n"))
    assert answer.status == 400
    assert answer.headers["connection"] == "close"
    data = b"POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\nConnection: close\r\n"
    found = answers(talk(secure, data + b"\r\n" + bytes(100_000)))
    assert [answer.status for answer in found] == [404]


def test_http_on_the_port_of_https_is_refused(secure: Secure, client: httpx.Client) -> None:
    with pytest.raises(httpx.TransportError):
        httpx.get(secure.url.replace("https:", "http:"))
    assert client.get("/health/live").status_code == 200


def test_the_banner_names_the_scheme(secure: Secure) -> None:
    assert f"https://127.0.0.1:{secure.port}/docs" in secure.log.read_text()


MARK = "marked" + secrets.token_hex(8)
NEW_KEY = {"name": MARK, "scopes": ["read"]}
PERSON = {"email": f"{MARK}@example.com", "username": MARK, "full_name": MARK}
WRONG_KEYS: tuple[dict[str, str], ...] = (
    {"authorization": f"Bearer {MARK}"},
    {"authorization": f"Bearer svc_live_{MARK[:8]}_{MARK}"},
    {"authorization": f"Basic {MARK}"},
    {"authorization": MARK, "x-api-key": MARK},
)
MARKED: tuple[tuple[str, str, object], ...] = (
    ("GET", f"/items?q={MARK}", None),
    ("GET", f"/items?cursor={MARK}", None),
    ("GET", f"/items?sort={MARK}&{MARK}=1", None),
    ("GET", f"/nothing?token={MARK}", None),
    ("GET", f"/items/export?q={MARK}", None),
    ("GET", f"/docs?{MARK}", None),
    ("POST", "/items", {"name": MARK, "sku": MARK[:40], "description": MARK}),
    ("POST", "/items", {"name": MARK, "sku": MARK[:40]}),  # taken
    ("POST", "/items", {"name": MARK, "price": MARK}),
    ("POST", "/items", f'{{"name":"{MARK}'.encode()),
    ("PUT", "/items/1", {"name": MARK, "sku": MARK[:40]}),
    ("PATCH", "/items/1", {"owner_id": 999_999}),
    ("POST", "/users", PERSON),
    ("POST", "/users", PERSON),  # taken
    ("POST", "/users", {**PERSON, "email": MARK}),
    ("PATCH", "/users/1", {"full_name": MARK, "role": MARK}),
    ("POST", "/items/bulk", {"items": [{"name": MARK, "sku": MARK[:40]}]}),
    ("PUT", "/items/bulk", {"items": [{"name": MARK, "sku": MARK[:40], "price": MARK}]}),
    ("POST", "/items/bulk/delete", {"ids": [MARK]}),
    ("POST", "/items/import", f'{{"name":"{MARK}","price":"{MARK}"}}\n'.encode()),
    ("POST", "/items/import?on_error=skip", f'{{"name":"{MARK}"\n'.encode()),
    ("BREW", f"/items?a={MARK}", None),
    ("POST", "/users/1/keys", NEW_KEY),
    ("POST", "/users/1/keys", {**NEW_KEY, "scopes": [MARK]}),
    ("GET", f"/users/1/keys?{MARK}={MARK}", None),
)


def test_the_log_has_no_secret_query_value_or_body(secure: Secure, client: httpx.Client) -> None:
    before = len(secure.log.read_text())
    for method, where, body in MARKED:
        ndjson = {"content-type": "application/x-ndjson"} if "import" in where else {}
        headers = {"cookie": MARK, "content-type": "application/json", **ndjson}
        content = body if isinstance(body, bytes) else json.dumps(body).encode() if body else b""
        answer = client.request(method, where, content=content, headers=headers)
        assert answer.status_code != 401
        if where.endswith("/keys") and answer.status_code == 201:
            made = answer.json()["key"]
    for wrong in WRONG_KEYS:
        assert client.get(f"/items?{MARK}", headers=wrong).status_code in (400, 401)
    assert client.get("/items", headers={"authorization": f"Bearer {made}"}).status_code == 200
    talk(secure, f"GET /?{MARK} HTTP/1.1\r\nX-API-Key: {MARK}\r\n\r\n".encode())
    client.get("/items/last")
    logged = wait_for_log(secure, before, "/items/last")
    assert MARK not in logged
    for key in (made, secure.admin.key):
        assert key[-38:] not in logged
        assert key[-38:-6] not in logged
    for path in ("/items/bulk", "/items/import", "/items/export", "/users", "/nothing"):
        assert path in logged
    for kind in ("slow request", "slow query", "request"):
        assert kind in logged


def test_a_path_cannot_forge_a_line_of_the_log(secure: Secure, client: httpx.Client) -> None:
    before = len(secure.log.read_text())
    client.get("/a%0A12:00:00%20ERROR%20forged%1B[31m%C2%9B%E2%80%A8%E2%80%AE%7Fend")
    client.get("/items/last")
    logged = wait_for_log(secure, before, "/items/last")
    (line,) = [one for one in logged.split("\n") if "forged" in one]
    assert "\\n12:00:00 ERROR forged\\" in line
    assert line.isprintable()
    assert len([one for one in logged.split("\n") if "12:00:00" in one]) == 1
    if secure.form == "json":
        path = json.loads(line)["path"]
        assert path == "/a\n12:00:00 ERROR forged\x1b[31m\x9b\u2028\u202e\x7fend"


def wait_for_log(secure: Secure, before: int, last: str) -> str:
    """What was logged since then, up to the request of a path."""
    eventually(lambda: last in secure.log.read_text()[before:], 10)
    return secure.log.read_text()[before:]


@pytest.mark.parametrize(
    ("change", "message"),
    (
        ({"SERVICE_KEYFILE": ""}, "SERVICE_CERTFILE needs SERVICE_KEYFILE"),
        ({"SERVICE_CERTFILE": ""}, "SERVICE_KEYFILE needs SERVICE_CERTFILE"),
        ({"SERVICE_CERTFILE": "{folder}/none"}, "No such file"),
        ({"SERVICE_KEYFILE": "{folder}"}, "Is a directory"),
        ({"SERVICE_CERTFILE": "{key}"}, "not a certificate and a key in PEM"),
        ({"SERVICE_KEYFILE": "{other}"}, "not the one of the certificate"),
        ({"SERVICE_KEYFILE": "{locked}"}, "the key has a password"),
    ),
)
def test_wrong_files_are_named(
    certificate: Certificate, tmp_path: Path, change: dict[str, str], message: str
) -> None:
    other, locked = make_certificate(tmp_path), tmp_path / "locked.pem"
    command = ["openssl", "ec", "-aes128", "-passout", "pass:four", "-in", str(certificate.key)]
    subprocess.run([*command, "-out", str(locked)], check=True, capture_output=True)
    files = {"SERVICE_CERTFILE": str(certificate.chain), "SERVICE_KEYFILE": str(certificate.key)}
    check_files(*files.values())
    places = {"key": certificate.key, "other": other.key, "locked": locked, "folder": tmp_path}
    for name, value in change.items():
        files[name] = value.format(**places)
    with pytest.raises(SettingsError, match=message) as told:
        check_files(*(value or None for value in files.values()))
    assert "\n" not in str(told.value)


def test_wrong_files_end_the_start_before_anything_begins(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "service", "serve", "--port", "0", "--data", str(tmp_path / "data")],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={"SERVICE_CERTFILE": "/no/such.pem", "SERVICE_KEYFILE": "/no/such.pem"},
    )
    assert ended.returncode == 2
    assert ended.stderr == ("service: SERVICE_CERTFILE='/no/such.pem': No such file or directory\n")
    assert not (tmp_path / "data").exists()
