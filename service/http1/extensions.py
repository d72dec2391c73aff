"""The extensions of ASGI that our own HTTP/1.1 offers: names in `scope["extensions"]`."""

from collections.abc import Callable
from typing import Any

# A function that returns the body if all of it has come, else None. It saves a message and a timer:
# 5 us of a write's 45.
FULL_BODY = "swiftlet.full_body"
# A function that sends a response in one call instead of two messages. It takes finished header
# lines, a body, and a status that has a body (200 by default). It returns False when it can't; then
# send the messages.
SEND_PREBUILT = "swiftlet.send_prebuilt"
# In a message with a part of a body that goes on until the client leaves: true. Then a client that
# closes its side has left. Other servers ignore it.
ENDLESS = "swiftlet.endless"
# The attribute `repeated` of an application: returns header lines and body of the answer to the
# bytes of a request that was sent before, or None. It also gets what the application has opened.
LONGEST_REPEATED = 512  # bytes of such a request
Repeated = Callable[[bytes, dict[str, Any]], tuple[bytes, bytes] | None]
