"""An answer in one call, as our own server takes it, and in the two messages of ASGI."""

from types import SimpleNamespace
from typing import Any

import pytest

from service.cache.off import NoCache
from service.http1.extensions import SEND_PREBUILT
from service.web.codec import Header, Reply
from service.web.endpoint import Endpoint, Operation
from service.web.request import Request

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def answered(reply: Reply, method: str, *, offered: bool) -> tuple[Any, list[Any]]:
    """What was sent in one call, and the messages that were sent."""
    whole: list[tuple[int, list[bytes], bytes]] = []
    messages: list[Any] = []

    def ready(lines: bytes, body: bytes, status: int) -> bool:
        whole.append((status, lines.split(b"\r\n"), body))
        return True

    async def handler(_: Request) -> Reply:
        return reply

    async def send(message: Any) -> None:
        messages.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": "/x",
        "query_string": b"",
        "headers": [(b"x-request-id", b"one")],
        "state": {
            "cache": NoCache(),
            "guard": None,
            "metrics": None,
            "tracer": None,
            "settings": SimpleNamespace(slow_request_ms=1000),
        },
        "extensions": {SEND_PREBUILT: ready} if offered else {},
    }
    endpoint = Endpoint([Operation(method, "/x", handler, "")])
    await endpoint(scope, None, send)  # type: ignore[arg-type]  # nothing is received
    return whole, messages


@pytest.mark.parametrize("status", (200, 201))
async def test_both_ways_to_send_a_response_give_the_same_bytes(status: int) -> None:
    reply = Reply(b"{}" * 600, status, ((b"etag", b'"1"'), (b"location", b"/x/%d")))
    ((found, lines, body),), none = await answered(reply, "POST", offered=True)
    _, (start, content) = await answered(reply, "POST", offered=False)
    assert not none
    assert (found, body) == (start["status"], content["body"])
    times = (b"x-process-time", b"server-timing")
    names = [line.partition(b": ")[0] for line in lines]
    assert names == [name for name, _ in start["headers"]]
    same = [b": ".join(pair) for pair in start["headers"] if pair[0] not in times]
    assert [line for line in lines if not line.startswith(times)] == same


@pytest.mark.parametrize(
    "header", ((b"a", b"b\r\nc: d"), (b"a", b"b\n"), (b"a", b"\0"), (b"connection", b"close"))
)
async def test_requests_with_special_headers_use_the_messages_of_asgi(header: Header) -> None:
    whole, messages = await answered(Reply(b"{}", 200, (header,)), "GET", offered=True)
    assert not whole
    assert len(messages) == 2


@pytest.mark.parametrize(("status", "method"), ((200, "HEAD"), (204, "GET"), (304, "GET")))
async def test_responses_without_a_body_use_the_messages_of_asgi(status: int, method: str) -> None:
    whole, messages = await answered(Reply(b"{}", status), method, offered=True)
    assert not whole
    assert messages[1]["body"] == b""
