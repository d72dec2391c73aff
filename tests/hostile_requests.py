"""Hostile and odd requests, with the answers of both servers: the rows of a table in docs/http.md.

framing_vectors.py has those about HTTP/1.1 itself, test_bad_input.py those about JSON, paths and
queries. Each is sent in one write, with `LAST` behind it.
"""

import gzip
from typing import NamedTuple

JSON = "Content-Type: application/json"
ITEM = b'{"name":"a"}'
LIMIT = 1_048_576  # SERVICE_BODY_LIMIT


class Hostile(NamedTuple):
    """A request, and the statuses of all answers of our server and of granian."""

    name: str
    data: bytes
    ours: tuple[int, ...]
    granian: tuple[int, ...]


def sent(
    name: str,
    line: str,
    *headers: str,
    body: bytes = b"",
    ours: tuple[int, ...] = (200, 200),
    granian: tuple[int, ...] | None = None,
) -> Hostile:
    """A request with Host; the text may have characters up to U+00FF."""
    head = "\r\n".join((f"{line} HTTP/1.1", "Host: x", *headers, "", ""))
    return Hostile(name, head.encode("latin-1") + body, ours, granian or ours)


def posted(name: str, *headers: str, body: bytes = ITEM, status: int = 201) -> Hostile:
    """A POST of an item with its length."""
    length = f"Content-Length: {len(body)}"
    return sent(name, "POST /items", length, *headers, body=body, ours=(status, 200))


def chunked(size: int, count: int) -> bytes:
    return b"%x\r\n%b\r\n" % (size, b" " * size) * count + b"0\r\n\r\n"


REQUESTS = [
    # Paths and methods.
    sent("%00 as a path", "GET /%00", ours=(404, 200)),
    sent("%FF as a path", "GET /%FF", ours=(404, 200)),
    sent("%C0%AF in a path", "GET /items%C0%AF1", ours=(404, 200)),
    sent("%0D%0A in a path", "GET /items%0D%0AX-A:%20b", ours=(404, 200)),
    sent("%1B in an id", "GET /items/%1B[31m", ours=(422, 200)),
    sent("a path of 8,000 bytes", f"GET /{'a' * 8_000}", ours=(404, 200)),
    sent("a path of dots", "GET /../../../etc/passwd", ours=(404, 200)),
    sent("a path of a backslash", "GET /..%5C..%5Cetc", ours=(404, 200)),
    sent(
        "a query of 60,000 bytes", f"GET /items?q={'a' * 60_000}", ours=(414,), granian=(422, 200)
    ),
    sent("a query of 64 KiB", f"GET /items?q={'a' * 65_536}", ours=(414,)),
    sent("a query of a megabyte", f"GET /items?q={'a' * 1_000_000}", ours=(414,), granian=(431,)),
    sent("TRACE of an item", "TRACE /items/1", ours=(405, 200)),
    sent("BREW", "BREW /items", ours=(405, 200)),
    sent("get", "get /items", ours=(405, 200)),
    # Headers. RFC 9110, 13.1: a malformed If-Match is refused, a malformed If-None-Match ignored.
    sent("50 cookies", "GET /items", *(f"Cookie: a{n}=b" for n in range(50))),
    sent("bytes above ASCII in a header", "GET /items", "X-A: \xff\xfe\xe4"),
    sent("an Accept that is none", "GET /items", "Accept: \xff/;q=nan,,"),
    sent("Accept: application/xml", "GET /items", "Accept: application/xml"),
    sent("an Accept-Encoding of 4,000 codings", "GET /items", f"Accept-Encoding: {'a,' * 4_000}"),
    sent("Range of a list", "GET /items", "Range: bytes=0-1"),
    sent("10,000 ranges", "GET /docs", f"Range: bytes={','.join(['0-'] * 10_000)}"),
    sent("X-Request-ID with an escape", "GET /items", "X-Request-ID: a\x1b[31m", ours=(400,)),
    sent("X-Request-ID above ASCII", "GET /items", "X-Request-ID: a\xff"),
    sent("X-Forwarded-For of anybody", "GET /items", "X-Forwarded-For: 127.0.0.1"),
    sent("a wrong traceparent", "GET /items", "traceparent: 00-\xff-zz"),
    sent("a Referer with an attack", "GET /items", "Referer: ${jndi:ldap://x/a}"),
    sent("If-None-Match of 5,000 tags", "GET /items/1", "If-None-Match: " + '"x",' * 5_000),
    sent("If-Match of noise", "GET /items/1", "If-Match: \xff", ours=(400, 200)),
    sent("X-HTTP-Method-Override", "GET /items/1", "X-HTTP-Method-Override: DELETE"),
    sent(
        "a WebSocket with a subprotocol above ASCII",
        "GET /items",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Protocol: \xff",
    ),
    sent("a preflight without CORS headers", "OPTIONS /items", ours=(405, 200)),
    sent(
        "a preflight of another origin",
        "OPTIONS /items",
        "Origin: https://evil.example",
        "Access-Control-Request-Method: POST",
        ours=(403, 200),
    ),
    sent(
        "a preflight of the origin null",
        "OPTIONS /items",
        "Origin: null",
        "Access-Control-Request-Method: POST",
        ours=(403, 200),
    ),
    # Bodies.
    posted("two Content-Types", JSON, "Content-Type: text/plain", status=415),
    posted("a Content-Type of noise", "Content-Type: \xff\xfe", status=415),
    posted("a Content-Type with a charset of noise", f"{JSON}; charset=\xff", status=415),
    posted("a gzip body", JSON, "Content-Encoding: gzip", body=gzip.compress(ITEM), status=415),
    posted("a deflate body", JSON, "Content-Encoding: deflate", status=415),
    posted("a chunked body said twice in TE", JSON, "TE: chunked, trailers"),
    posted("a megabyte and a byte", JSON, body=ITEM + b" " * (LIMIT + 1 - len(ITEM)), status=413),
    posted("3 MB", JSON, body=b" " * 3_000_000, status=413),
    sent(
        "4 MB in chunks",
        "POST /items",
        JSON,
        "Transfer-Encoding: chunked",
        body=chunked(65_536, 64),
        ours=(413, 200),
    ),
    sent(
        "3 MB announced, with Expect",
        "POST /items",
        JSON,
        "Expect: 100-continue",
        "Content-Length: 3000000",
        ours=(413,),
    ),
    sent(
        "a trailer behind a chunked item",
        "POST /items",
        JSON,
        "Transfer-Encoding: chunked",
        body=b"c\r\n%b\r\n0\r\nX-Request-ID: trailer\r\nX-API-Key: trailer\r\n\r\n" % ITEM,
        ours=(201, 200),
    ),
    sent(
        "an import that is not gzip",
        "POST /items/import",
        "Content-Type: application/x-ndjson",
        "Content-Encoding: gzip",
        "Content-Length: 12",
        body=ITEM,
        ours=(400, 200),
    ),
    sent(
        "a gzip of 20 MB of zeros as an item",
        "POST /items/import",
        "Content-Type: application/x-ndjson",
        "Content-Encoding: gzip",
        f"Content-Length: {len(gzip.compress(bytes(20_000_000), 1))}",
        body=gzip.compress(bytes(20_000_000), 1),
        ours=(413, 200),
    ),
]
