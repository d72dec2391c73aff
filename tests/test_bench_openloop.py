"""Tests of the load generator for fixed rates, against a small server that answers as told."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from bench.openloop import Load, Offered, Requests, Run, complete

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
Answer = Callable[[int], Awaitable[bytes]]


async def offered(
    answer: Answer, *, connections: int = 1, rate: int = 200, workload: str = "read"
) -> Offered:
    """Offer a second of load to a server; `answer` gets the number of the request, from 1."""
    asked = 0
    ended: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        task = asyncio.current_task()
        assert task is not None
        ended.append(task)
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                _, _, length = head.partition(b"Content-Length: ")
                await reader.readexactly(int(length.partition(b"\r")[0] or 0))
                asked += 1
                writer.write(await answer(asked))
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        found = await Run(
            Load(
                port=port,
                workload=workload,
                rate=rate,
                seconds=1,
                items=10,
                connections=connections,
            )
        )()
        await asyncio.gather(*ended)
    return found


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("workload", ("read", "create", "mixed"))
async def test_every_request_of_the_schedule_is_sent_and_answered(workload: str) -> None:
    async def at_once(_: int) -> bytes:
        return ANSWER

    found = await offered(at_once, connections=8, workload=workload)
    assert (found.requests, found.errors, found.unanswered) == (200, 0, 0)
    assert found.reached
    assert found.seconds >= 1  # not faster than its schedule
    assert 0 < found.p50 <= found.p99 <= found.p999


async def test_a_pause_of_the_server_counts_for_all_who_were_due_in_it() -> None:
    async def with_a_pause(number: int) -> bytes:
        if number == 50:
            await asyncio.sleep(0.4)
        return ANSWER

    found = await offered(with_a_pause)
    # One connection that asks again when it is answered would see 1 slow response of 120.
    assert found.p95 > 100
    assert found.requests == 200


async def test_a_server_that_does_not_keep_up_does_not_reach_the_rate() -> None:
    async def slowly(_: int) -> bytes:
        await asyncio.sleep(0.02)
        return ANSWER

    found = await offered(slowly)
    assert not found.reached
    assert found.requests + found.unanswered == 200
    assert found.p50 > 100  # what waits until the end counts too


async def test_bad_answers_are_errors() -> None:
    async def worse_each_time(number: int) -> bytes:
        return ANSWER if number % 2 else b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"

    found = await offered(worse_each_time, connections=8)
    assert found.errors == 100


@pytest.mark.parametrize(
    ("data", "whole"),
    (
        (ANSWER, True),
        (ANSWER[:-1], False),
        (ANSWER[:20], False),
        (ANSWER.replace(b"Content-Length", b"content-length"), True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n", False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", True),
    ),
)
def test_a_response_may_come_in_pieces(data: bytes, whole: bool) -> None:
    assert complete(data) is whole


def test_a_mixed_load_is_80_15_5() -> None:
    load = Load(port=1, workload="mixed", rate=1, seconds=1, items=1000, seed=1)
    requests = Requests(load)
    kinds = [requests.next()[:3] for _ in range(10_000)]
    found = [kinds.count(kind) for kind in (b"GET", b"PAT", b"POS")]
    for count, share in zip(found, (0.80, 0.15, 0.05), strict=True):
        assert count == pytest.approx(share * 10_000, rel=0.1)
