"""Trace contexts in headers: what is accepted, what is passed on, and what a response says."""

import httpx
import pytest
from test_cache_redis import eventually

from service.timing import Timing, timing
from service.traceparent import parse, parse_state
from service.tracing import outgoing_headers
from service.web.request import Request

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GIVEN = f"00-{TRACE}-{PARENT}-01"


@pytest.mark.parametrize(
    ("value", "flags"),
    (
        (GIVEN, 1),
        (f"00-{TRACE}-{PARENT}-00", 0),
        (f"00-{TRACE}-{PARENT}-03", 3),
        (f"00-{TRACE}-{PARENT}-fe", 2),  # flags that are not known yet
        (f"cc-{TRACE}-{PARENT}-01", 1),  # a later version
        (f"cc-{TRACE}-{PARENT}-01-what-comes-later", 1),
    ),
)
def test_a_valid_context_is_read(value: str, flags: int) -> None:
    found = parse(value.encode())
    assert found is not None
    assert (found.trace_id, found.parent_id, found.flags) == (TRACE, PARENT, flags)
    assert str(found) == f"00-{TRACE}-{PARENT}-0{flags}"


@pytest.mark.parametrize(
    "value",
    (
        None,
        "",
        f"00-{TRACE}-{PARENT}",
        f"00-{TRACE}-{PARENT}-1",
        f"00-{TRACE}-{PARENT}-01-",
        f"00-{TRACE}-{PARENT}-01-more",
        f"00-{TRACE}-{PARENT}-01.more",
        f"cc-{TRACE}-{PARENT}-01.more",
        f"cc-{TRACE}-{PARENT}-01more",
        f"ff-{TRACE}-{PARENT}-01",
        f"0-{TRACE}-{PARENT}-01",
        f"000-{TRACE}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{TRACE}-{PARENT.upper()}-01",
        f"00-{TRACE}-{PARENT}-0A",
        f"00-{TRACE[:-1]}-{PARENT}-01",
        f"00-{TRACE}a-{PARENT}-01",
        f"00-{TRACE[:-1]}g-{PARENT}-01",
        f"00_{TRACE}_{PARENT}_01",
        f"{GIVEN}\n",
        f"{GIVEN}, {GIVEN}",
        f"cc-{TRACE}-{PARENT}-01-a, cc-{TRACE}-{PARENT}-01-a",
    ),
)
def test_a_malformed_context_is_as_none(value: str | None) -> None:
    assert parse(None if value is None else value.encode()) is None


@pytest.mark.parametrize(
    ("value", "passed"),
    (
        ("a=1", "a=1"),
        ("a=1, b@t=2 3 ,,\tc-d*/_=!", "a=1,b@t=2 3,c-d*/_=!"),
        (",".join(f"k{n}=v" for n in range(32)), ",".join(f"k{n}=v" for n in range(32))),
        (",".join(f"k{n}=v" for n in range(33)), ""),
        ("a=1,a=2", ""),
        ("A=1", ""),
        ("a", ""),
        ("a=1=2", ""),
        ("a=", ""),
        ("a=é", ""),
        (f"a={'v' * 256}", f"a={'v' * 256}"),
        (f"a={'v' * 257}", ""),
    ),
)
def test_a_tracestate_is_passed_on_if_it_is_valid(value: str, passed: str) -> None:
    assert parse_state(value.encode()) == passed
    assert parse_state(None) == ""


def in_request(*headers: tuple[bytes, bytes]) -> dict[str, str]:
    async def receive() -> dict[str, str]:
        raise NotImplementedError

    request = Request({"type": "http", "headers": [*headers], "state": {}}, receive)
    token = timing.set(Timing(request))
    try:
        return outgoing_headers()
    finally:
        timing.reset(token)


def test_a_call_to_another_service_gets_the_context_of_its_request() -> None:
    traced = (b"traceparent", GIVEN.encode())
    assert in_request(traced) == {"traceparent": GIVEN}
    state = (b"tracestate", b"a=1"), (b"tracestate", b"b=2")
    assert in_request(traced, *state) == {"traceparent": GIVEN, "tracestate": "a=1,b=2"}
    assert in_request(*state) == {}
    assert in_request(traced, traced, *state) == {}
    assert outgoing_headers() == {}


def test_a_response_says_which_trace_its_request_belongs_to(client: httpx.Client) -> None:
    """No span is recorded here: so the flag is 00, and the span that of the caller."""
    said = f"00-{TRACE}-{PARENT}-00"
    path = client.post("/items", json={"name": "Lamp"}).headers["location"]

    def is_hit() -> bool:
        answer = client.get(path, headers={"traceparent": GIVEN})
        assert answer.headers.get_list("traceresponse") == [said]
        assert "traceresponse" not in client.get(path).headers
        return answer.headers["x-cache"] == "HIT"

    assert not is_hit()
    eventually(is_hit, 10)
    for method, where in (("GET", "/nothing"), ("POST", "/items"), ("GET", "/health")):
        answer = client.request(method, where, headers={"traceparent": GIVEN})
        assert answer.headers.get_list("traceresponse") == [said]
        assert TRACE not in answer.text


@pytest.mark.parametrize("given", ([GIVEN, GIVEN], [GIVEN.upper()]))
def test_a_wrong_context_is_ignored(client: httpx.Client, given: list[str]) -> None:
    path = client.post("/items", json={"name": "Lamp"}).headers["location"]
    for _ in range(2):
        answer = client.get(path, headers=[("traceparent", one) for one in given])
        assert answer.status_code == 200
        assert "traceresponse" not in answer.headers
