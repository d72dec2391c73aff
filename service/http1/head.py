"""Parse the head of a request strictly (RFC 9112, sections 2 and 3).

A head that a proxy could parse differently is rejected. Such a difference would allow request
smuggling: a request that the proxy does not see.
"""

import re
from typing import NamedTuple

from msgspec import Struct

from service.errors import (
    BadExpectation,
    HeadersTooLarge,
    Malformed,
    TargetTooLong,
    VersionNotSupported,
)
from service.http1.framing import check_authority
from service.http1.headers import TOKEN, Fields, HeaderReader

# Maximum bytes of request line and headers together.
HEAD_LIMIT = 65_536
# Maximum bytes of the request line; RFC 9112, 3 asks for at least 8,000.
LINE_LIMIT = 16_384
_METHODS = {
    name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
}
_METHOD = re.compile(TOKEN)
# The usual form of a request line. A target may have all visible ASCII except the fragment's `#`.
# URIs exclude some more ("<", "|"), but clients send them unencoded.
_USUAL_LINE = re.compile(rb"([A-Z]{1,32}) (/[!\"$->@-~]*)(?:\?([!\"$-~]*))? HTTP/1\.1")
_TARGET = re.compile(rb"[!\"$-~]+")
_VERSION = re.compile(rb"HTTP/[0-9]\.[0-9]")
_ABSOLUTE = re.compile(rb"https?://([^/?]*)([^?]*)(?:\?(.*))?", re.IGNORECASE)
_BROKEN_LINE = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)|\0")


class Line(NamedTuple):
    """A request line; `authority` is set when the target is an absolute URL."""

    method: str
    version: str
    path: bytes
    query: bytes
    authority: bytes | None = None


class Head(Struct, gc=False):
    """A request without its body.

    `names` are those of the headers, in lower case. `length` is the length of the body in bytes,
    None for a chunked body. `keep` says whether the connection may stay open, `expects` whether the
    client waits for `100 Continue`.
    """

    method: str
    version: str
    path: bytes
    query: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    names: frozenset[bytes]
    length: int | None
    keep: bool
    expects: bool


def parse_head(data: bytes, start: int, end: int, reader: HeaderReader) -> Head:
    """Parse the head between `start` and `end`, without the empty line that ends it.

    Raises:
        Problem: 400, 413, 414, 417, 431, 501 or 505; the connection must be closed.
    """
    cut = data.find(b"\r\n", start)
    usual = _USUAL_LINE.fullmatch(data, start, cut)
    line: Line | None = None
    if usual is None or cut - start > LINE_LIMIT:
        line = _unusual_line(data[start:cut])
    if end - start > HEAD_LIMIT:
        raise HeadersTooLarge(f"the headers are longer than {HEAD_LIMIT} bytes")
    fields = reader.read(data[cut + 2 : end])
    if usual is None or line is not None or not fields.hosted or fields.expects is not None:
        return _unusual_head(line or parse_line(data[start:cut]), fields)
    name, path, query = usual.groups()
    return Head(
        _METHODS.get(name) or name.decode("ascii"),
        "1.1",
        path,
        query or b"",
        fields.headers,
        fields.names,
        fields.length,
        fields.keep,
        expects=False,
    )


def _unusual_head(line: Line, fields: Fields) -> Head:
    method, version, path, query, authority = line
    headers, keep, expects = fields.headers, fields.keep, False
    if version != "1.1":
        keep = False
        if fields.coded:
            raise Malformed("HTTP/1.0 has no Transfer-Encoding")
    else:
        if not fields.hosted:
            raise Malformed("an HTTP/1.1 request needs a Host header")
        if fields.expects is not None:
            if fields.expects.lower() != b"100-continue":
                raise BadExpectation("the only supported expectation is 100-continue")
            expects = True
    names = fields.names
    if authority is not None:  # RFC 9112, 3.2.2: the Host header is ignored then
        others = (pair for pair in headers if pair[0] != b"host")
        headers, names = (*others, (b"host", authority)), names | {b"host"}
    return Head(method, version, path, query, headers, names, fields.length, keep, expects)


def parse_line(line: bytes) -> Line:
    """Parse a request line.

    Raises:
        Problem: 400, 414 or 505.
    """
    usual = _USUAL_LINE.fullmatch(line)
    if usual is None or len(line) > LINE_LIMIT:
        return _unusual_line(line)
    name, path, query = usual.groups()
    return Line(_METHODS.get(name) or name.decode("ascii"), "1.1", path, query or b"")


def check_beginning(data: bytes, new: int) -> None:
    """Reject an incomplete head that can't become valid; check only the bytes from `new` on.

    Raises:
        Problem: the error that parse_head would raise for the complete head.
    """
    line, ended, _ = data.partition(b"\r\n")
    if ended:
        parse_line(line)
    else:
        method, space, _ = line.removesuffix(b"\r").partition(b" ")
        if method or space:
            check_method(method)
        if len(line) > LINE_LIMIT:
            raise TargetTooLong(f"the request line is longer than {LINE_LIMIT} bytes")
    if _BROKEN_LINE.search(data, max(new - 1, 0)):
        raise Malformed("lines must end with CR LF, and contain no other CR, LF or NUL")
    if len(data) > HEAD_LIMIT + 3:
        raise HeadersTooLarge(f"the headers are longer than {HEAD_LIMIT} bytes")


def _unusual_line(line: bytes) -> Line:
    name, *rest = line.split(b" ")
    check_method(name)
    if len(line) > LINE_LIMIT:
        raise TargetTooLong(f"the request line is longer than {LINE_LIMIT} bytes")
    if len(rest) != 2:
        raise Malformed("the request line is not `METHOD target HTTP/1.1`")
    target, protocol = rest
    version = _unusual_version(protocol)
    method = name.decode("ascii")
    if not _TARGET.fullmatch(target):
        raise Malformed("the target of a request must have visible ASCII characters, without a #")
    if target.startswith(b"/"):
        path, _, query = target.partition(b"?")
        return Line(method, version, path, query)
    if target == b"*" and method == "OPTIONS":
        return Line(method, version, target, b"")
    whole = _ABSOLUTE.fullmatch(target)
    if whole is None or method == "CONNECT":
        raise Malformed("the target of the request is neither a path nor an http URL")
    authority, path, query = whole.groups()
    check_authority(authority)
    if not authority or authority.startswith(b":"):
        raise Malformed("the URL in the request line has no host")
    if not path:  # RFC 9112, 3.2.4: OPTIONS without a path is about the whole server
        path = b"*" if method == "OPTIONS" and query is None else b"/"
    return Line(method, version, path, query or b"", authority)


def check_method(name: bytes) -> None:
    """Check the form of a method; the application decides whether it is allowed.

    Raises:
        Malformed: it is not a word of at most 32 characters.
    """
    if len(name) > 32 or not _METHOD.fullmatch(name):
        raise Malformed("this is not HTTP/1.1: a request begins with a method")


def _unusual_version(protocol: bytes) -> str:
    if protocol == b"HTTP/1.0":
        return "1.0"
    if not _VERSION.fullmatch(protocol):
        raise Malformed("the request line does not end with HTTP/1.1")
    if protocol.startswith(b"HTTP/1."):
        return "1.1"  # RFC 9110, 2.5: treat a higher minor version as the highest known one
    raise VersionNotSupported("only HTTP/1.1 and HTTP/1.0 are supported")
