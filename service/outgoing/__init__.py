"""HTTP requests to others: signed, bounded, and never to a private address by accident."""

from service.outgoing.addresses import allowed_of
from service.outgoing.delivery_error import DeliveryError
from service.outgoing.posting import Outgoing, check_notify_url, check_target, signature

__all__ = [
    "DeliveryError",
    "Outgoing",
    "allowed_of",
    "check_notify_url",
    "check_target",
    "signature",
]
