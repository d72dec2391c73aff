"""Posts to receivers that misbehave, and to addresses that are not allowed."""

import asyncio
import hashlib
import hmac
import ipaddress
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from email.utils import formatdate
from pathlib import Path
from typing import Any

import httpcore
import pytest
import receiver as receivers
from receiver import OK, Answer, Receiver, receiving, says, status

from service.metrics import Metrics, Store
from service.metrics.families import DELIVERIES
from service.outgoing import DeliveryError, Outgoing, check_notify_url, checked_client
from service.outgoing.addresses import is_allowed
from service.outgoing.bounded_stream import BoundedStream
from service.outgoing.delivery_error import seconds_of
from service.settings import Settings, SettingsError

SECRET = "a secret of sixteen characters"
BODY = b'{"id":1,"message":"caf\xc3\xa9"}'


def settings(**options: str) -> Settings:
    given = {"DATABASE_URL": "postgresql://user:pass@host/db", "SERVICE_SECRET": SECRET, **options}
    return Settings.load(given, Path("/nonexistent/.env"))


def posted(
    answer: Answer,
    *,
    host: str = "127.0.0.1",
    path: str = "/hook?a=b",
    posts: int = 1,
    tls: ssl.SSLContext | None = None,
    targets: str = "",
) -> tuple[Receiver, list[DeliveryError | None]]:
    """Post to a receiver; return it, and the result of each post."""

    async def run() -> tuple[Receiver, list[DeliveryError | None]]:
        found: list[DeliveryError | None] = []
        async with receiving(answer, tls=tls) as receiver:
            outgoing = Outgoing(settings(SERVICE_PRIVATE_TARGETS=targets))
            scheme = "http" if tls is None else "https"
            for place in range(posts):
                url = f"{scheme}://{host}:{receiver.port}{path}"
                found.append(await result(outgoing.post(url, BODY, delivery_id=f"test-{place}")))
            await outgoing.close()
        return receiver, found

    return asyncio.run(run())


async def result(post: Coroutine[Any, Any, None]) -> DeliveryError | None:
    try:
        async with asyncio.timeout(20):
            await post
    except DeliveryError as error:
        return error
    return None


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[str]]]:
    """Names and the addresses of each look-up, instead of DNS."""
    known: dict[str, list[list[str]]] = {}
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, **options: Any) -> Any:
        if host not in known:
            return real(host, port, **options)
        addresses = known[host].pop(0)
        return [(0, 0, 0, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return known


def test_a_post_is_signed_and_has_an_id_for_deduplication() -> None:
    receiver, found = posted(says(OK))
    assert found == [None]
    (taken,) = receiver.taken
    assert taken.line == "POST /hook?a=b HTTP/1.1"
    assert taken.body == BODY
    expected = hmac.new(SECRET.encode(), taken.body, hashlib.sha256).hexdigest()
    headers = taken.headers
    assert headers.pop("user-agent").startswith("swiftlet/")
    assert headers == {
        "host": f"127.0.0.1:{receiver.port}",
        "content-type": "application/json",
        "content-length": str(len(BODY)),
        "x-signature": f"sha256={expected}",
        "x-delivery-id": "test-0",
        "accept": "*/*",
        "accept-encoding": "identity",
        "connection": "keep-alive",
    }


def test_a_connection_is_used_again_and_no_cookie_is_kept() -> None:
    answer = OK.replace(b"\r\n\r\n", b"\r\nSet-Cookie: a=b\r\n\r\n")
    receiver, found = posted(says(answer), posts=3)
    assert found == [None] * 3
    assert receiver.connections == 1
    assert all("cookie" not in taken.headers for taken in receiver.taken)


def test_settings_of_proxies_and_passwords_in_the_environment_are_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login ada password hunter2\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    receiver, found = posted(says(OK))
    assert found == [None]
    assert "authorization" not in receiver.taken[0].headers


@pytest.mark.parametrize(
    ("answer", "told"),
    (
        (receivers.hang, "did not answer within 0.5 s"),
        (receivers.slow_headers, "did not answer within 0.5 s"),
        (receivers.endless_headers, "its answer is not HTTP"),
        (receivers.reset, "closed the connection"),
        (receivers.close, "closed the connection"),
        (says(b"SSH-2.0-OpenSSH_9.2 secret\r\n\r\n"), "its answer is not HTTP"),
        (receivers.endless_body, "answered 500: bbbb"),
        (receivers.endless(b"", b"HTTP/1.1 100 X\r\n\r\n" * 1000), "closed the connection"),
        (status(500, body="no\x07\x1b[31m\n luck"), "answered 500: no [31m luck"),
        (status(302, "Location: http://169.254.169.254/"), "302: redirects are not followed"),
        (status(307, "Location: http://[/"), "answered 307"),
        (status(404), "the receiver answered 404"),
        (status(101, "Upgrade: websocket", "Connection: upgrade"), "its answer is not HTTP"),
    ),
)
def test_a_receiver_that_misbehaves_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, answer: Answer, told: str
) -> None:
    monkeypatch.setattr(checked_client, "SECONDS", 0.5)
    # Longer than the test waits: a body without an end is left because of its size.
    monkeypatch.setattr(checked_client, "BODY_SECONDS", 60.0)
    receiver, (error,) = posted(answer)
    assert error is not None
    assert told in str(error)
    assert len(str(error)) < 300
    assert "secret" not in str(error)
    assert not error.permanent
    assert error.retry_after is None
    assert len(receiver.taken) == 1


@pytest.mark.parametrize(
    "answer",
    (
        receivers.slow_body,
        receivers.endless(b"HTTP/1.1 204 X\r\n\r\n", b"HTTP/1.1 200 X\r\n\r\n"),
        receivers.endless(b"HTTP/1.1 200 X\r\n\r\n", b"d" * 65_536),
        says(b"HTTP/1.1 200 X\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc"),
        status(202),
    ),
)
def test_2xx_is_success_whatever_comes_after_the_head(
    monkeypatch: pytest.MonkeyPatch, answer: Answer
) -> None:
    monkeypatch.setattr(checked_client, "BODY_SECONDS", 0.3)
    _, found = posted(answer, posts=2)
    assert found == [None, None]


def test_410_is_permanent_and_retry_after_is_honoured_within_bounds() -> None:
    _, (error,) = posted(status(410))
    assert error is not None
    assert error.permanent
    _, (error,) = posted(status(503, "Retry-After: 120"))
    assert error is not None
    assert (error.permanent, error.retry_after) == (False, 120.0)
    assert seconds_of("0") == 1.0
    assert seconds_of("9" * 400) == 3600.0
    assert seconds_of(formatdate(0, usegmt=True)) == 1.0
    later = seconds_of(formatdate(time.time() + 100, usegmt=True))
    assert later is not None
    assert 90 < later <= 100
    for wrong in ("-1", "soon", "", "1.5", "²", "Mon, 99 Foo 2026 99:99:99 GMT"):
        assert seconds_of(wrong) is None


def test_a_refused_connection_and_an_unknown_name_are_tried_again() -> None:
    async def run() -> list[DeliveryError | None]:
        async with receiving(says(OK)) as receiver:
            port = receiver.port
        outgoing = Outgoing(settings())
        urls = [f"http://ada:hunter2@{one}:{port}/hunter2" for one in ("127.0.0.1", "[::1]")]
        urls.append("http://name.invalid/hunter2")
        found = [await result(outgoing.post(url, BODY, delivery_id="test-1")) for url in urls]
        await outgoing.close()
        return found

    for error, told in zip(
        asyncio.run(run()), ("can't connect", "can't connect", "has no address"), strict=True
    ):
        assert error is not None
        assert told in str(error)
        assert "hunter2" not in str(error)
        assert not error.permanent


def test_a_login_in_the_url_is_sent_to_the_host_after_it() -> None:
    receiver, found = posted(says(OK), host="example.com@127.0.0.1")
    assert found == [None]
    assert receiver.taken[0].headers["host"] == f"127.0.0.1:{receiver.port}"
    assert receiver.taken[0].headers["authorization"].startswith("Basic ")


# Addresses that only this machine or network reaches, in each form that a name may resolve to.
INSIDE = (
    *("127.0.0.1", "127.9.9.9", "10.0.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "::1"),
    *("fd00::1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::", "::10.0.0.1"),
)
NEVER = (
    *("169.254.169.254", "fe80::1", "fe80::1%1", "0.0.0.0", "::", "224.0.0.1", "239.1.1.1"),
    *("255.255.255.255", "ff02::1", "ff0e::1", "::ffff:169.254.169.254", "fd00:ec2::254"),
    *("100.100.100.200", "168.63.129.16", "192.0.0.192", "64:ff9b::a83f:8110"),
    *("64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:a9fe:a9fe::", "::169.254.169.254", "fec0::1"),
    *(
        "2001:0:4136:e378:8000:63bf:5601:5601",
        "192.0.2.1",
        "198.18.0.1",
        "2001:db8::1",
        "240.0.0.1",
    ),
)
OUTSIDE = ("1.1.1.1", "93.184.215.14", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101")


@pytest.mark.parametrize("text", (*INSIDE, *NEVER, *OUTSIDE))
def test_only_public_addresses_of_a_name_are_allowed_unless_the_setting_has_them(text: str) -> None:
    address = ipaddress.ip_address(text)
    assert is_allowed(address, (), explicit=False) == (text in OUTSIDE)
    assert is_allowed(address, (), explicit=True) == (text not in NEVER)
    if "%" not in text:
        assert is_allowed(address, [ipaddress.ip_network(text)], explicit=False)


def test_a_name_that_resolves_to_a_private_address_is_refused_unless_it_is_listed(
    names: dict[str, list[list[str]]],
) -> None:
    names["inside.example"] = [["127.0.0.1", "::1", "169.254.169.254"]] * 2
    receiver, (error,) = posted(says(OK), host="inside.example")
    assert error is not None
    assert "SERVICE_PRIVATE_TARGETS" in str(error)
    assert not error.permanent
    assert receiver.connections == 0
    receiver, found = posted(says(OK), host="inside.example", targets="127.0.0.0/8")
    assert found == [None]
    assert receiver.taken[0].headers["host"] == f"inside.example:{receiver.port}"


def test_the_connection_goes_to_the_address_that_was_checked(
    names: dict[str, list[list[str]]],
) -> None:
    # A second look-up would be of a name that has moved: DNS rebinding.
    names["moving.example"] = [["127.0.0.1"], ["169.254.169.254"]]
    _, found = posted(says(OK), host="moving.example", targets="127.0.0.1")
    assert found == [None]
    assert len(names["moving.example"]) == 1


def test_the_next_address_is_tried_if_the_first_does_not_answer(
    names: dict[str, list[list[str]]],
) -> None:
    names["two.example"] = [["127.0.0.77", "127.0.0.1"]]
    _, found = posted(says(OK), host="two.example", targets="127.0.0.0/8")
    assert found == [None]


def test_localhost_is_meant_and_a_link_local_address_is_refused() -> None:
    _, found = posted(says(OK), host="localhost")
    assert found == [None]
    for host in ("169.254.169.254", "[::ffff:169.254.169.254]", "0.0.0.0", "[::]"):
        _, (error,) = posted(says(OK), host=host)
        assert error is not None
        assert "private address" in str(error)


# Other programs read each of these hosts as 127.0.0.1; the system's look-up does as well.
@pytest.mark.parametrize("host", ("127.1", "0x7f.1", "2130706433", "0177.0.0.1", "0x7f000001"))
def test_an_odd_form_of_an_address_is_a_name(host: str) -> None:
    receiver, (error,) = posted(says(OK), host=host)
    assert error is not None
    assert receiver.connections == 0


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_a_certificate_is_checked_for_the_name(
    names: dict[str, list[list[str]]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=receiver.example"]
    command += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-addext", "subjectAltName=DNS:receiver.example"]
    subprocess.run(
        [*command, "-keyout", str(key), "-out", str(chain)], check=True, capture_output=True
    )
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(chain, key)
    listed = "127.0.0.1"
    names["receiver.example"] = [["127.0.0.1"]] * 2
    names["other.example"] = [["127.0.0.1"]]

    _, (error,) = posted(says(OK), host="receiver.example", tls=tls, targets=listed)
    assert error is not None
    assert "no TLS connection to the receiver: self-signed certificate" in str(error)
    monkeypatch.setenv("SSL_CERT_FILE", str(chain))
    receiver, found = posted(says(OK), host="receiver.example", tls=tls, targets=listed)
    assert found == [None]
    assert receiver.names == ["receiver.example"]
    _, (error,) = posted(says(OK), host="other.example", tls=tls, targets=listed)
    assert error is not None
    assert "Hostname mismatch" in str(error)


def test_certificates_that_can_not_be_read_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", __file__)
    _, (error,) = posted(says(OK))
    assert str(error) == "the certificates of SSL_CERT_FILE can't be read"


class Pieces(httpcore.AsyncNetworkStream):
    """Has as many bytes as are asked for, and remembers how many these were."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    async def read(self, max_bytes: int, *_: object, **__: object) -> bytes:
        self.asked.append(max_bytes)
        return bytes(max_bytes)

    async def write(self, *_: object, **__: object) -> None:
        pass

    async def start_tls(self, *_: object, **__: object) -> httpcore.AsyncNetworkStream:
        return self


async def read_always(stream: httpcore.AsyncNetworkStream) -> None:
    while True:
        await stream.read(65_536)


def test_an_answer_is_read_in_small_pieces_up_to_its_bound() -> None:
    """The parts of an answer can be so small that they take 1,000 times as long as they should."""

    async def run() -> None:
        pieces = Pieces()
        plain = BoundedStream(pieces)
        for stream in (plain, await plain.start_tls(ssl.create_default_context())):
            for _ in range(2):
                pieces.asked.clear()
                await stream.write(b"a request")
                with pytest.raises(httpcore.ReadError):
                    await read_always(stream)
                assert sum(pieces.asked) == 65_536
                assert max(pieces.asked) == 1024

    asyncio.run(run())


def test_a_look_up_that_hangs_delays_no_end_of_the_process() -> None:
    code = """
import asyncio, socket, time
from service.outgoing import DeliveryError, Outgoing, checked_client
from service.settings import Settings

async def main():
    outgoing = Outgoing(Settings(secret="0123456789abcdef"))
    try:
        await outgoing.post("http://slow.example/", b"{}", delivery_id="test-1")
    except DeliveryError as error:
        print(error)
    await outgoing.close()

socket.getaddrinfo = lambda *_, **__: time.sleep(600)
checked_client.TIMEOUTS = checked_client.httpx.Timeout(0.2)
asyncio.run(main())
"""
    ran = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
    )
    assert ran.stdout == "the look-up of the receiver's name took too long\n"


def test_a_service_that_posts_nothing_does_not_import_httpx() -> None:
    code = "import sys, service.asgi; sys.exit('httpx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("options", "told"),
    (
        ({"SERVICE_SECRET": ""}, "SERVICE_NOTIFY_URL needs SERVICE_SECRET"),
        (
            {"SERVICE_NOTIFY_URL": "http://169.254.169.254/latest"},
            "has the address 169.254.169.254: if it is meant, add it to SERVICE_PRIVATE_TARGETS",
        ),
        ({"SERVICE_NOTIFY_URL": "http://ada@[::ffff:a9fe:a9fe]:80"}, "add it to SERVICE_PRIVATE"),
    ),
)
def test_a_notify_url_that_can_not_work_stops_the_start(options: dict[str, str], told: str) -> None:
    given = settings(**{"SERVICE_NOTIFY_URL": "http://127.0.0.1:9/", **options})
    with pytest.raises(SettingsError, match="SERVICE_NOTIFY_URL ") as caught:
        check_notify_url(given)
    assert told in str(caught.value)
    check_notify_url(settings(SERVICE_NOTIFY_URL="http://127.0.0.1:9/"))
    check_notify_url(settings(SERVICE_SECRET=""))


def test_deliveries_are_counted() -> None:
    async def run() -> dict[tuple[str, ...], float]:
        store = Store()
        outgoing = Outgoing(settings(), Metrics(store))
        async with receiving(says(OK)) as receiver:
            url = f"http://127.0.0.1:{receiver.port}/"
            await outgoing.post(url, BODY, delivery_id="test-1", target="notification")
            receiver.answer = status(500)
            await result(outgoing.post(url, BODY, delivery_id="test-2"))
        await outgoing.close()
        return {
            labels: store.values[store.place(DELIVERIES, labels)]
            for labels in (("notification", "success"), ("other", "failure"))
        }

    assert asyncio.run(run()) == {("notification", "success"): 1.0, ("other", "failure"): 1.0}


def test_posts_that_hang_hold_up_no_other_and_are_cancelled_at_once() -> None:
    async def run() -> None:
        outgoing = Outgoing(settings())
        async with receiving(receivers.hang) as hanging, receiving(says(OK)) as receiver:
            slow = [
                asyncio.create_task(
                    outgoing.post(f"http://127.0.0.1:{hanging.port}/", BODY, delivery_id=f"{n}")
                )
                for n in range(100)
            ]
            await until(lambda: len(hanging.taken) == 100)
            await outgoing.post(f"http://127.0.0.1:{receiver.port}/", BODY, delivery_id="a")
            for one in slow:
                one.cancel()
            async with asyncio.timeout(2):
                await asyncio.wait(slow)
                await outgoing.close()
            assert all(one.cancelled() for one in slow)

    asyncio.run(run())


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not true():  # noqa: ASYNC110 - what it looks at sets no event
            await asyncio.sleep(0.005)
