"""Why something was not delivered, and when to try again."""

import time
from datetime import UTC, datetime

# Seconds: a receiver's Retry-After is honoured between them.
LEAST_WAIT, LONGEST_WAIT = 1.0, 3600.0
# The one form of a time that RFC 9110 lets servers send.
HTTP_TIME = "%a, %d %b %Y %H:%M:%S GMT"


class DeliveryError(Exception):
    """The receiver did not take it; the message has no part of the URL.

    Args:
        message: why.
        permanent: whether another attempt is useless.
        retry_after: seconds that the receiver asks us to wait; None if it does not say.
        status: of the receiver's answer; None without one.
    """

    def __init__(
        self,
        message: str,
        *,
        permanent: bool = False,
        retry_after: float | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(message)
        self.permanent = permanent
        self.retry_after = retry_after
        self.status = status


def seconds_of(retry_after: str | None) -> float | None:
    """Return the seconds of a Retry-After, bounded; None without one or if it can't be read."""
    if retry_after is None:
        return None
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        seconds = float(text[:9])
    else:
        try:
            moment = datetime.strptime(text, HTTP_TIME).replace(tzinfo=UTC)
        except ValueError:
            return None
        seconds = moment.timestamp() - time.time()
    return min(max(seconds, LEAST_WAIT), LONGEST_WAIT)
