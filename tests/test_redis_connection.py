"""The connection to Redis: replies in any pieces, errors, and servers that misbehave.

A scripted server plays what a real one does rarely; TLS, logins and numbers of databases are tried
with real ones.
"""

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import redis
import uvloop
from hiredis import Reader
from redis.exceptions import RedisError
from test_cache_redis import HERE, NewRedis, free_port, new_redis

from service.cache.client import client, connect
from service.cache.generations import Tags
from service.cache.multiplexed import CommandError, Done, Multiplexed, Replies
from service.cache.response import CachedResponse
from service.cache.shared import Shared

__all__ = ["new_redis"]  # a fixture

HELLO = b"%1\r\n$5\r\nproto\r\n:3\r\n"
Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=(asyncio.run, uvloop.run), ids=("asyncio", "uvloop"))
def run(request: pytest.FixtureRequest) -> Run:
    chosen: Run = request.param
    return chosen


class Scripted:
    """A Redis that answers each command as `answer` says; None answers nothing."""

    def __init__(self, answer: Callable[[list[bytes]], bytes | None]) -> None:
        self.answer = answer
        self.writers: list[asyncio.StreamWriter] = []
        self.commands: list[list[bytes]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        parser = Reader()
        with suppress(ConnectionError):
            while data := await reader.read(65_536):
                parser.feed(data)
                while (command := parser.gets()) is not False:
                    if command[0] in (b"HELLO", b"CLIENT"):
                        answer: bytes | None = HELLO if command[0] == b"HELLO" else b"+OK\r\n"
                    else:
                        self.commands.append(command)
                        answer = self.answer(command)
                    writer.write(answer or b"")
        writer.close()


@asynccontextmanager
async def scripted(
    answer: Callable[[list[bytes]], bytes | None],
) -> AsyncIterator[tuple[Scripted, str]]:
    made = Scripted(answer)
    server = await asyncio.start_server(made.serve, HERE, 0)
    try:
        yield made, f"redis://{HERE}:{server.sockets[0].getsockname()[1]}/0"
    finally:
        server.close()
        for writer in made.writers:
            writer.close()
        await asyncio.sleep(0)


async def connected(url: str, seconds: float = 5, **options: Any) -> Multiplexed:
    one = client(url, 5)
    made = Multiplexed(await connect(one, ""), seconds, options.pop("lost", 20), **options)
    await one.aclose()
    return made


def waiting(connection: Multiplexed, *command: str) -> "asyncio.Future[Replies | Exception]":
    """The replies to a command, or the error."""
    answered: asyncio.Future[Replies | Exception] = asyncio.get_running_loop().create_future()
    done: Done = answered.set_result
    connection.send([command], done)
    return answered


def test_replies_in_pieces_and_together_reach_those_who_asked(run: Run) -> None:
    async def check() -> None:
        messages: list[tuple[bytes, bytes]] = []
        push = b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n"
        async with scripted(lambda _: b"") as (server, url):
            connection = await connected(url, on_message=lambda *one: messages.append(one))
            asked = [waiting(connection, "MGET", str(number)) for number in range(4)]
            sent = b"*2\r\n$1\r\na\r\n_\r\n" + push + b":1\r\n-MOVED 3 there\r\n+OK\r\n"
            for place in range(len(sent) - 5):  # a byte at a time, and then the rest
                server.writers[0].write(sent[place : place + 1])
                await asyncio.sleep(0)
            server.writers[0].write(sent[-5:] + push)
            found = [await one for one in asked]
            assert found[:2] == [[[b"a", None]], [1]]
            assert isinstance(found[2], list)
            assert isinstance(found[2][0], CommandError)
            assert str(found[2][0]) == "MOVED 3 there"
            assert found[3] == [b"OK"]
            await waiting_for(lambda: len(messages) == 2)
            assert set(messages) == {(b"c", b"hi")}
            connection.close()

    run(check())


async def waiting_for(test: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not test():  # noqa: ASYNC110 - of whatever kind
            await asyncio.sleep(0.001)


def test_a_large_reply_is_read(run: Run) -> None:
    async def check() -> None:
        value = b"x" * 3_000_000
        async with scripted(lambda _: b"$%d\r\n%b\r\n" % (len(value), value)) as (_, url):
            connection = await connected(url)
            assert await waiting(connection, "GET", "a") == [value]
            connection.close()

    run(check())


@pytest.mark.parametrize(
    "answer",
    (
        b"?what\r\n",
        b"$-7\r\n",
        b":1\r\n:2\r\n",  # one reply too many
        b"$9223372036854775807\r\nx",
    ),
)
def test_what_is_no_reply_closes_the_connection(answer: bytes, run: Run) -> None:
    async def check() -> None:
        closed: list[Exception | None] = []
        async with scripted(lambda _: answer) as (_, url):
            connection = await connected(url, 0.05, lost=0.2, on_close=closed.append)
            first = await waiting(connection, "GET", "a")
            second = await waiting(connection, "GET", "b")
            assert isinstance(second, OSError)
            assert isinstance(first, OSError) or first == [1]
            await waiting_for(lambda: closed)
            connection.close()
            assert len(closed) == 1
            assert isinstance(closed[0], OSError)

    run(check())


def test_a_redis_that_closes_in_the_middle_fails_all_who_wait(run: Run) -> None:
    async def check() -> None:
        async with scripted(lambda _: b"*2\r\n$5\r\nab") as (server, url):
            connection = await connected(url)
            asked = [waiting(connection, "MGET", str(number)) for number in range(3)]
            await waiting_for(lambda: len(server.commands) == 3)
            server.writers[0].close()
            for one in asked:
                assert isinstance(await one, ConnectionError)
            assert isinstance(await waiting(connection, "PING"), ConnectionError), "at once"
            with pytest.raises(ConnectionError):
                await connection.call(("PING",))
            await connection.sleep(30)  # ends at once

    run(check())


def test_a_late_answer_is_given_to_no_other_command(run: Run) -> None:
    """What was given up is still answered, in its place."""

    async def check() -> None:
        async with scripted(lambda _: None) as (server, url):
            connection = await connected(url, 0.05)
            first, call = waiting(connection, "GET", "a"), asyncio.create_task(pinged(connection))
            assert isinstance(await first, TimeoutError)
            assert not call.done(), "a call waits until the connection is lost"
            second = waiting(connection, "GET", "b")
            server.writers[0].write(b"$1\r\na\r\n+PONG\r\n$1\r\nb\r\n")
            assert await second == [b"b"]
            assert await call == [b"PONG"]
            connection.close()

    run(check())


async def pinged(connection: Multiplexed) -> Replies:
    return await connection.call(("PING",))


def test_a_connection_without_answers_is_closed(run: Run) -> None:
    async def check() -> None:
        async with scripted(lambda _: None) as (_, url):
            connection = await connected(url, 0.02, lost=0.1)
            with pytest.raises(TimeoutError, match="did not answer"):
                await pinged(connection)
            await connection.sleep(30)  # it is closed

    run(check())


def test_who_is_cancelled_leaves_the_replies_to_the_others(run: Run) -> None:
    async def check() -> None:
        async with scripted(lambda _: None) as (server, url):
            connection = await connected(url)
            calls = [asyncio.create_task(pinged(connection)) for _ in range(2)]
            await waiting_for(lambda: len(server.commands) == 2)
            calls[0].cancel()
            server.writers[0].write(b"+first\r\n+second\r\n")
            assert await calls[1] == [b"second"]
            connection.close()

    run(check())


# What shared.Shared makes of it.


@asynccontextmanager
async def sharing(url: str) -> AsyncIterator[tuple[Shared, list[Tags]]]:
    """The tier in Redis, in use, and the tags that it published otherwise."""
    otherwise: list[Tags] = []

    async def publish_otherwise(tags: Tags) -> None:
        otherwise.append(tags)

    async with asyncio.TaskGroup() as tasks:
        shared = Shared(
            client(url, 5),
            ttl=10,
            fingerprint="",
            spawn=tasks.create_task,
            publish_otherwise=publish_otherwise,
        )
        await shared.connect()
        await shared.begin()
        yield shared, otherwise
        await shared.close()


@pytest.mark.parametrize(
    "error",
    (
        b"-READONLY You can't write against a read only replica.\r\n",
        b"-LOADING Redis is loading the dataset in memory\r\n",
        b"-MOVED 3999 127.0.0.1:6381\r\n",
        b"-NOAUTH Authentication required.\r\n",
    ),
)
def test_an_error_in_place_of_a_reply_stops_the_use_of_redis(error: bytes, run: Run) -> None:
    async def check() -> None:
        fails = False

        def answer(command: list[bytes]) -> bytes:
            return error if fails else b":0\r\n"

        async with scripted(answer) as (_, url), sharing(url) as (shared, otherwise):
            await shared.invalidate((7,))
            assert (shared.up, otherwise) == (True, [])
            fails = True
            await shared.invalidate((8,))
            assert (shared.up, shared.reached, otherwise) == (False, False, [(8,)])
            await shared.invalidate((9,))
            assert otherwise == [(8,), (9,)], "at once, without Redis"
            with pytest.raises(CommandError):
                await shared.begin()
            fails = False
            await shared.begin()
            assert shared.up
            fails = True
            assert await shared.look_up("/items", (7,)) == (None, None)
            assert not shared.up

    run(check())


def test_the_generations_are_deleted_before_the_message_is_published(run: Run) -> None:
    async def check() -> None:
        async with scripted(lambda _: b":0\r\n") as (server, url), sharing(url) as (shared, _):
            del server.commands[:]
            # Those of one turn of the event loop go together; a row has no generation in Redis.
            ended: list[int] = []
            shared.invalidate_then((7, 60_000), lambda: ended.append(1))
            shared.invalidate_then((8, 7), lambda: ended.append(2))
            await shared.invalidate((7,))
            assert ended == [1, 2]
            place = b"{swiftlet:}:"
            assert server.commands == [
                [b"DEL", place + b"7", place + b"8"],
                [
                    b"PUBLISH",
                    place + b"invalidations",
                    f"{shared.sender}:7,60000,8".encode(),
                ],
            ]

    run(check())


def test_the_log_says_why_a_connection_was_closed_without_waiting_commands(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def check() -> None:
        async with scripted(lambda _: b":0\r\n") as (server, url), sharing(url) as (shared, _):
            server.writers[0].write(b"-ERR you are not welcome\r\n")
            await waiting_for(lambda: not shared.up)

    run(check())
    warned = [one for one in caplog.records if one.getMessage() == "Redis is not used"]
    assert len(warned) == 1
    assert "you are not welcome" in str(vars(warned[0])["fields"])


def test_requests_that_wait_for_a_hung_redis_go_on_after_50_ms(run: Run) -> None:
    async def check() -> None:
        hangs = False
        async with (
            scripted(lambda _: None if hangs else b":0\r\n") as (_, url),
            sharing(url) as (shared, otherwise),
        ):
            hangs = True
            asked = [shared.look_up(f"/{number}", (7,)) for number in range(3)]
            found = await asyncio.gather(*asked, shared.invalidate((7,)))
            assert found == [(None, None)] * 3 + [None]
            assert (shared.up, otherwise) == (False, [(7,)])
            assert shared.misses == 3

    run(check())


# Real servers.


@pytest.mark.parametrize("way", ("url", "unix"))
def test_a_response_is_kept_in_the_database_of_the_url(
    way: str, new_redis: NewRedis, run: Run
) -> None:
    server = new_redis("user me on >p@ss ~* &* +@all").start()
    url = {
        "url": f"redis://me:p%40ss@{HERE}:{server.port}/3",
        # RESP3 in any case: with RESP2 a connection with subscriptions takes no other commands.
        "unix": server.unix.replace("://", "://me:p%40ss@") + "?db=3&protocol=2",
    }[way]
    run(check_kept(url))
    assert [*server.say("INFO", "keyspace")] == ["db3"]


async def check_kept(url: str) -> None:
    async with sharing(url) as (shared, otherwise):
        shared.disconnect()
        await shared.connect(channels=("a",))
        await shared.begin()
        _, lease = await shared.look_up("/items", (7,))
        assert lease is not None
        shared.keep(lease, CachedResponse(b"body", ()))
        kept, _ = await shared.look_up("/items", (7,))
        assert kept is not None
        assert kept.body == b"body"
        await shared.invalidate((7,))
        kept, lease = await shared.look_up("/items", (7,))
        assert kept is None
        assert lease is not None
        assert not otherwise


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_redis_is_used_over_tls(tmp_path: Path, run: Run, new_redis: NewRedis) -> None:
    """A proxy speaks TLS: not every server is built with it."""
    server = new_redis().start()
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-keyout", key, "-out", certificate, "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65_536):
                writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_connection(HERE, server.port)
        await asyncio.gather(carry(reader, forth), carry(back, writer))

    async def check() -> None:
        port = free_port()
        async with await asyncio.start_server(serve, HERE, port, ssl=context) as proxy:
            await check_kept(f"rediss://{HERE}:{port}/1?ssl_ca_certs={certificate}")
            with pytest.raises(RedisError, match="CERTIFICATE"):
                await connect(client(f"rediss://{HERE}:{port}/1", 5), "")
            proxy.close()

    run(check())


@pytest.mark.parametrize("url", ("redis://h/1", "rediss://h", "unix:///x"))
def test_a_connection_does_not_look_up_the_version_of_redis_py(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading it from the installed packages took each worker 12 ms of CPU."""
    monkeypatch.setattr("redis.utils.get_lib_version", lambda: pytest.fail("looked up"))
    one = client(url)
    assert isinstance(one, redis.asyncio.Redis)
    made = one.connection_pool.make_connection()  # type: ignore[no-untyped-call]
    assert (made.driver_info.name, made.driver_info.lib_version) == ("redis-py", redis.__version__)
