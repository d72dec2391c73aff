"""Posts to receivers: webhooks and notifications."""

import asyncio
import hashlib
import hmac
from collections.abc import Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from service.metrics import Metrics
from service.metrics.families import DELIVERIES, DELIVERY_DURATION
from service.outgoing.addresses import is_allowed, literal
from service.outgoing.delivery_error import DeliveryError
from service.settings import Settings, SettingsError
from service.settings.targets import Network, parse_targets
from service.tracing import outgoing_headers

if TYPE_CHECKING:
    from service.outgoing.checked_client import CheckedClient

Target = Literal["notification", "webhook", "other"]


def signature(secret: str, body: bytes) -> str:
    """Return the value of X-Signature: `sha256=` and the HMAC of the body in hexadecimal digits."""
    return f"sha256={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}"


def check_target(settings: Settings, url: str, *, name: str = "the URL") -> None:
    """Check that something can be posted to a URL whose form is right.

    Args:
        settings: of the service.
        url: of the receiver.
        name: of the URL, for the error.

    Raises:
        SettingsError: nothing can be signed, or the URL has an address that is not allowed.
    """
    if settings.secret is None and settings.database_url is not None:
        # Without it cursors are signed with DATABASE_URL. A receiver that knows the rest of that
        # URL could try passwords, without a connection, until a signature fits.
        raise SettingsError(f"{name} needs SERVICE_SECRET, which signs what is posted: set it")
    host = urlsplit(url).hostname or ""
    address = literal(host)
    allowed = parse_targets(settings.private_targets)
    if address is not None and not is_allowed(address, allowed, explicit=True):
        raise SettingsError(
            f"{name} has the address {address}: if it is meant, add it to SERVICE_PRIVATE_TARGETS"
        )


def check_notify_url(settings: Settings) -> None:
    """Check that notifications can be posted, if SERVICE_NOTIFY_URL says where.

    Raises:
        SettingsError: see `check_target`.
    """
    if settings.notify_url is not None:
        check_target(settings, settings.notify_url, name="SERVICE_NOTIFY_URL")


class Outgoing:
    """Posts signed bodies, with one client per process that the first post makes.

    Args:
        settings: with the secret that signs and the private targets.
        metrics: counts deliveries; None for no counts.
    """

    def __init__(self, settings: Settings, metrics: Metrics | None = None) -> None:
        self._secret = settings.secret
        self._allowed = parse_targets(settings.private_targets)
        self._metrics = metrics
        self._client: CheckedClient | None = None
        self._opening = asyncio.Lock()

    async def post(
        self, url: str, body: bytes, *, delivery_id: str, target: Target = "other"
    ) -> None:
        """Post a JSON body; return when the receiver has answered 2xx.

        Args:
            url: of the receiver.
            body: the JSON.
            delivery_id: the same in each attempt, so that a receiver can skip a second one.
            target: what is delivered, for the metrics.

        Raises:
            DeliveryError: the receiver did not take it.
        """
        started = perf_counter()
        try:
            await self._post(url, body, delivery_id)
        except DeliveryError:
            self._count(target, "failure", started)
            raise
        self._count(target, "success", started)

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()

    async def _post(self, url: str, body: bytes, delivery_id: str) -> None:
        if self._secret is None:
            raise DeliveryError("SERVICE_SECRET is not set, so nothing can be signed")
        client = self._client or await self._open()
        headers = {
            "Content-Type": "application/json",
            "X-Signature": signature(self._secret, body),
            "X-Delivery-ID": delivery_id,
            **outgoing_headers(),
        }
        await client.post(url, body, headers)

    async def _open(self) -> "CheckedClient":
        async with self._opening:
            if self._client is None:
                try:
                    # Its import and the certificates take 0.1 s.
                    self._client = await asyncio.to_thread(_new_client, self._allowed)
                except OSError:
                    raise DeliveryError("the certificates of SSL_CERT_FILE can't be read") from None
        return self._client

    def _count(self, target: Target, result: str, started: float) -> None:
        if self._metrics is not None:
            self._metrics.add(DELIVERIES, target, result)
            self._metrics.observe(DELIVERY_DURATION, perf_counter() - started, target)


def _new_client(allowed: Sequence[Network]) -> "CheckedClient":
    from service.outgoing.checked_client import CheckedClient

    return CheckedClient(allowed)
