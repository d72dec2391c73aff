"""A client of httpx whose connections go to checked addresses only.

It imports httpx, which takes 0.1 s and 10 MB, so only `posting` imports it, before the first
request.
"""

import asyncio
import importlib.metadata
import socket
import ssl
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpcore
import httpx

from service.outgoing.addresses import allowed_of, literal
from service.outgoing.bounded_stream import BoundedStream
from service.outgoing.delivery_error import DeliveryError, seconds_of
from service.settings.targets import Address, Network
from service.threads import in_thread

# Seconds from the look-up of the name to the head of the answer; then for its body.
SECONDS, BODY_SECONDS = 10.0, 1.0
TIMEOUTS = httpx.Timeout(SECONDS, connect=5.0, pool=5.0)
# How many characters of an answer an error shows.
SHOWN = 200
# All kinds of deliveries together, each of which has its own limit. Many servers close a connection
# that is idle for 5 s: one that is closed while a request is on its way costs a retry.
CONNECTIONS, IDLE_CONNECTIONS, IDLE_SECONDS = 1000, 32, 4.0


class CheckedBackend(httpcore.AnyIOBackend):
    """Connects to an address that was checked.

    It resolves a name once and connects to what it checked. A second look-up, such as that of a
    check before the request, could have another answer.

    Args:
        allowed: the networks of SERVICE_PRIVATE_TARGETS.
    """

    def __init__(self, allowed: Sequence[Network]) -> None:
        self.allowed = allowed

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore gives it
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first allowed address of a host that answers.

        Raises:
            DeliveryError: the name has no address, no allowed address, or none that answers.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (timeout or 5.0)
        addresses = await self._addresses(host, port, deadline)
        failure: Exception | None = None
        for place, address in enumerate(addresses):
            # Each gets its share of the time that is left: the first may be unreachable.
            share = (deadline - loop.time()) / (len(addresses) - place)
            try:
                stream = await super().connect_tcp(
                    str(address), port, max(share, 0.01), local_address, socket_options
                )
                return BoundedStream(stream)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        timed_out = isinstance(failure, httpcore.ConnectTimeout)
        why = "no answer in time" if timed_out else "refused or unreachable"
        raise DeliveryError(f"can't connect to port {port} of the receiver: {why}") from failure

    async def _addresses(self, host: str, port: int, deadline: float) -> list[Address]:
        texts: list[object] = [host]
        if literal(host) is None:
            look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
            try:
                async with asyncio.timeout_at(deadline):
                    # The loop's own look-up would hold up its end, and others: it has few threads.
                    found = await in_thread(look_up)
            except TimeoutError:
                raise DeliveryError("the look-up of the receiver's name took too long") from None
            except (OSError, UnicodeError):
                raise DeliveryError("the name of the receiver has no address") from None
            texts = [one[4][0] for one in found]
        allowed = allowed_of(host, texts, self.allowed)
        if not allowed:
            raise DeliveryError(
                "the receiver has a private address: if that is meant, add its network to"
                " SERVICE_PRIVATE_TARGETS"
            )
        return allowed


class CheckedTransport(httpx.AsyncHTTPTransport):
    """httpx's transport with connections of a CheckedBackend, for which it has no parameter."""

    def __init__(self, allowed: Sequence[Network]) -> None:
        # Instead of its own: that reads the certificates and makes a pool without checks.
        self._pool = httpcore.AsyncConnectionPool(
            # The variables SSL_CERT_FILE and SSL_CERT_DIR name certificates of one's own.
            ssl_context=httpx.create_ssl_context(),
            max_connections=CONNECTIONS,
            max_keepalive_connections=IDLE_CONNECTIONS,
            keepalive_expiry=IDLE_SECONDS,
            network_backend=CheckedBackend(allowed),
        )


class CheckedClient:
    """Posts; follows no redirect, keeps no cookie and reads no proxy or .netrc.

    Args:
        allowed: the networks of SERVICE_PRIVATE_TARGETS.
    """

    def __init__(self, allowed: Sequence[Network]) -> None:
        self._client = httpx.AsyncClient(
            transport=CheckedTransport(allowed),
            timeout=TIMEOUTS,
            follow_redirects=False,
            trust_env=False,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            headers={
                # What is not decompressed can't become large.
                "Accept-Encoding": "identity",
                "User-Agent": f"swiftlet/{importlib.metadata.version('swiftlet')}",
            },
        )

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Post, and return when the receiver has answered 2xx.

        Raises:
            DeliveryError: the receiver did not take it.
        """
        try:
            async with asyncio.timeout(SECONDS):
                request = self._client.build_request("POST", url, content=body, headers=headers)
                response = await self._client.send(request, stream=True)
        except (TimeoutError, httpx.HTTPError, httpx.InvalidURL) as error:
            raise DeliveryError(_why(error)) from None
        try:
            beginning = await _beginning(response)
        finally:
            await response.aclose()
        if not response.is_success:
            raise _refusal(response, beginning)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


async def _beginning(response: httpx.Response) -> bytes:
    """Read an answer to its end, so that the connection can be used again."""
    read = bytearray()
    # The head has said whether it was taken: what happens to the rest changes nothing.
    with suppress(httpx.HTTPError, TimeoutError):
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in response.aiter_raw():
                read += chunk
    return bytes(read)


def _refusal(response: httpx.Response, beginning: bytes) -> DeliveryError:
    status = response.status_code
    if 300 <= status < 400:
        said = "redirects are not followed"
    else:
        text = beginning[: 4 * SHOWN].decode("utf-8", "replace")
        said = " ".join("".join(c if c.isprintable() else " " for c in text).split())[:SHOWN]
    # 410 means that it is gone for good. Any other answer may be an error of the receiver that is
    # soon corrected, even 401 or 404, so another attempt is made.
    return DeliveryError(
        f"the receiver answered {status}" + (f": {said}" if said else ""),
        permanent=status == 410,
        status=status,
        retry_after=seconds_of(response.headers.get("retry-after")),
    )


def _why(error: Exception) -> str:
    """Return the reason in words of ours: httpx's may have parts of the URL or of the answer."""
    if isinstance(error, httpx.PoolTimeout):
        return "too many deliveries at the same time"
    if isinstance(error, TimeoutError | httpx.TimeoutException):
        return f"the receiver did not answer within {SECONDS:g} s"
    if isinstance(error, httpx.ConnectError):  # CheckedBackend has its own: this is TLS
        return f"no TLS connection to the receiver: {_tls_reason(error)}"
    if isinstance(error, httpx.RemoteProtocolError | httpx.ReadError | httpx.WriteError):
        return "the receiver closed the connection, or its answer is not HTTP"
    return f"the receiver can't be reached ({type(error).__name__})"


def _tls_reason(error: BaseException) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return cause.verify_message
        if isinstance(cause, ssl.SSLError):
            return str(cause.reason or "it speaks no TLS").lower().replace("_", " ")
        cause = cause.__cause__ or cause.__context__
    return "it closed the connection"
