"""Rate limits of a real server with two workers, and a Redis that the tests kill."""

import itertools
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from conftest import Service, check_answer
from test_cache_redis import Server, hung, killed
from test_faults import eventually

from service.app import create_app
from service.settings import Settings
from service.web.endpoint import Operation

from limited_app import answer  # isort: skip


class Limited(NamedTuple):
    service: Service
    redis: Server


@pytest.fixture(scope="module", params=("uvicorn", "granian"))
def limited(
    request: pytest.FixtureRequest, own_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Limited]:
    """Two workers of limited_app; the tests name their clients in X-Forwarded-For."""
    place = tmp_path_factory.mktemp("limited")
    redis = Server(place / "redis")
    running = Service(
        place / "service.log",
        *("--server", request.param, "--workers", "2", "--app", "limited_app:app"),
        DATABASE_URL=own_database_url,
        REDIS_URL=redis.start().unix,
        PYTHONPATH=str(Path(__file__).parent),
        SERVICE_RATE_LIMIT="100/60s",
        SERVICE_RATE_LIMIT_WRITES="10/60s",
        SERVICE_TRUSTED_PROXIES="127.0.0.0/8",
        SERVICE_LOG="json",
    )
    try:
        running.wait_until_ready()
        yield Limited(running, redis)
        assert running.stop() == 0
        assert "Traceback" not in running.log.read_text(), running.log.read_text()
    finally:
        running.process.kill()
        running.process.wait()
        redis.kill()


numbers = itertools.count(1)


def client_of(service: Service, address: str = "") -> httpx.Client:
    """A client with an address of its own."""
    number = next(numbers)
    headers = {"X-Forwarded-For": address or f"198.51.{number // 256}.{number % 256}"}
    hooks = {"response": [check_answer]}
    return httpx.Client(base_url=service.url, headers=headers, timeout=30, event_hooks=hooks)


def fire(service: Service, path: str, requests: int) -> list[httpx.Response]:
    """The responses to as many requests of one address, over eight connections at a time."""
    number = next(numbers)
    address = f"198.51.{number // 256}.{number % 256}"

    def several(_: int) -> list[httpx.Response]:
        with client_of(service, address) as client:
            return [client.get(path) for _ in range(requests // 8)]

    with ThreadPoolExecutor(8) as pool:
        return [one for responses in pool.map(several, range(8)) for one in responses]


def decisions(service: Service) -> dict[str, Counter[str]]:
    """How many requests the policy `default` has allowed and refused, by source, in the metrics."""
    text = httpx.get(f"{service.url}/metrics").text
    found = re.findall(
        r'^ratelimit_decisions_total\{policy="default",decision="(\w+)",source="(\w+)"\} (\d+)$',
        text,
        re.MULTILINE,
    )
    counts = {source: Counter[str]() for source in ("redis", "process")}
    for decision, source, number in found:
        counts[source][decision] += int(number)
    return counts


@pytest.mark.parametrize("path", ("/read", "/cached"))
def test_two_workers_allow_the_limit_and_at_most_a_twentieth_more(
    limited: Limited, path: str
) -> None:
    """More only where a worker decided alone, as it does when Redis takes more than 50 ms."""
    before = decisions(limited.service)
    responses = fire(limited.service, path, 304)
    counts = Counter(response.status_code for response in responses)

    def grown() -> dict[str, Counter[str]]:
        return {one: now - before[one] for one, now in decisions(limited.service).items()}

    shown = Counter({"allowed": counts[200], "refused": counts[429]})
    eventually(lambda: grown()["redis"] + grown()["process"] == shown, 10)
    alone = grown()["process"]["allowed"]
    assert counts.keys() == {200, 429}
    assert 100 <= counts[200] <= 105 + alone
    for response in responses:
        assert response.headers["ratelimit-policy"] == '"default";q=100;w=60'
        name, left, reset = response.headers["ratelimit"].split(";")
        assert name == '"default"'
        assert 0 <= int(left.removeprefix("r=")) < 100
        if response.status_code == 429:
            retry = response.headers["retry-after"]
            assert (left, reset) == ("r=0", f"t={retry}")
            assert 50 <= int(retry) <= 60
            assert response.json()["detail"] == f"too many requests: try again in {retry} s"


def test_the_first_request_after_retry_after_passes(limited: Limited) -> None:
    with client_of(limited.service) as client:
        # As many as a busy machine needs to send 20 within a second.
        responses = (client.get("/second") for _ in range(2000))
        refused = next(one for one in responses if one.status_code == 429)
        assert refused.headers["ratelimit-policy"] == '"GET /second";q=20;w=1'
        assert refused.headers["retry-after"] == "1"
        time.sleep(1)
        assert client.get("/second").status_code == 200


def test_writes_and_operations_have_limits_of_their_own(limited: Limited) -> None:
    with client_of(limited.service) as client:
        writes = [client.post("/write") for _ in range(12)]
        assert [one.status_code for one in writes] == [200] * 10 + [429] * 2
        assert writes[9].headers["ratelimit"].startswith('"writes";r=0;t=')
        assert writes[10].headers["ratelimit-policy"] == '"writes";q=10;w=60'
        assert client.get("/read").headers["ratelimit"] == '"default";r=99;t=60'
        assert client.head("/read").headers["ratelimit"].startswith('"default";r=98;t=')
        for path in ("/exempt", "/health/live", "/openapi.json"):
            assert "ratelimit" not in client.get(path).headers


def test_an_ipv6_site_is_one_client_and_untrusted_entries_are_not_believed(
    limited: Limited,
) -> None:
    number = next(numbers)
    for first, second, same in (
        (f"2001:db8:{number}::1", f"2001:db8:{number}:0:9::2", True),
        (f"2001:db8:{number}:1::1", f"2001:db8:{number}:2::1", False),
        (f"1.1.1.1, 203.0.{number}.1", f"2.2.2.2, 203.0.{number}.1", True),
        (f"203.0.{number}.2, 127.0.0.9", f"203.0.{number}.3, 127.0.0.9", False),
    ):
        left = []
        for address in (first, second):
            with client_of(limited.service, address) as client:
                left.append(client.get("/read").headers["ratelimit"].split(";")[1])
        assert left == ["r=99", "r=98" if same else "r=99"], (first, second)


@pytest.mark.parametrize("trouble", (killed, hung))
def test_no_client_sees_that_redis_is_away(
    limited: Limited, trouble: Callable[[Server], AbstractContextManager[None]]
) -> None:
    with trouble(limited.redis):
        responses = fire(limited.service, "/read", 304)
        away = 'dependency_up{dependency="redis"} 0\n'
        eventually(lambda: away in httpx.get(f"{limited.service.url}/metrics").text, 10)
    counts = Counter(response.status_code for response in responses)
    assert counts.keys() == {200, 429}
    assert 50 <= counts[200] <= 100
    # It is used again within 2 s, later on a busy machine: then both workers see one count.
    until = time.monotonic() + 60
    while True:
        counts = Counter(one.status_code for one in fire(limited.service, "/read", 304))
        assert counts.keys() == {200, 429}
        if 100 <= counts[200] <= 105 and limited.redis.say("KEYS", "swiftlet:limit:*"):
            break
        assert time.monotonic() < until
        time.sleep(0.2)


def test_a_wrong_limit_of_an_operation_is_refused_when_the_application_is_built() -> None:
    settings = Settings(database_url="postgresql:///none?host=/nowhere")
    operation = Operation("GET", "/a", answer, "Wrong", limit="5 per minute")
    with pytest.raises(ValueError, match="the limit of GET /a: '5 per minute' is no rate limit"):
        create_app(settings, routes=[operation])
    # Without a limit, requests are not checked at all.
    without = create_app(settings, routes=[operation._replace(limit="off")])
    assert without.policies.all == ()
    assert not without.checks.limits
