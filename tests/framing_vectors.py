"""Requests and their expected answers: the test cases of test_framing.py.

A vector is sent in one write, followed by `GET /health/live` with `Connection: close`. If that is
answered too (the last 200), the connection was kept and both sides agree on the end of the request.
A line of the text ends with CR LF. `<CR>`, `<LF>` and `<NUL>` are single bytes, `<ID>` is the id of
an item, `<LENGTH>` the number of bytes after the first head. RFC 9110 and RFC 9112 decide what is
right; if they allow a choice, the strict one is expected.
"""

from typing import NamedTuple


class Vector(NamedTuple):
    """A test case: `statuses` of all answers, and whether it `deletes` the item."""

    name: str
    statuses: tuple[int, ...]
    text: str
    deletes: bool = False

    def bytes(self, item: int) -> bytes:
        text = self.text.replace("\n", "\r\n").replace("<ID>", str(item))
        for word, byte in (("<CR>", "\r"), ("<LF>", "\n"), ("<NUL>", "\0")):
            text = text.replace(word, byte)
        length = len(text.partition("\r\n\r\n")[2])
        return text.replace("<LENGTH>", str(length)).encode("latin-1")


DELETE = "DELETE /items/<ID>?permanent=true"
JSON = "Content-Type: application/json\n"
ITEM = '{"name":"a"}'


def bad(
    name: str, headers: str, *statuses: int, line: str = f"{DELETE} HTTP/1.1", host: str = "x"
) -> Vector:
    """Return a request that would delete the item if it were accepted."""
    hosted = f"Host: {host}\n" if host else ""
    return Vector(name, statuses or (400,), f"{line}\n{hosted}{headers}\n")


def good(
    name: str,
    headers: str = "",
    *,
    line: str = f"{DELETE} HTTP/1.1",
    host: str = "x",
    body: str = "",
) -> Vector:
    """Return a request that deletes the item and keeps the connection."""
    hosted = f"Host: {host}\n" if host else ""
    return Vector(name, (204, 200), f"{line}\n{hosted}{headers}\n{body}", deletes=True)


def chunks(name: str, body: str, *statuses: int) -> Vector:
    """Return a DELETE with a chunked body; it ignores the body, but must reject a broken one."""
    return Vector(
        name,
        statuses or (400,),
        f"{DELETE} HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\n{body}",
        deletes=statuses[:1] == (204,),
    )


def line(name: str, text: str, *statuses: int) -> Vector:
    """Return a request line with the only header that it needs."""
    return Vector(name, statuses or (400,), f"{text}\nHost: x\n\n")


CODED = [
    bad("Transfer-Encoding: xchunked", "Transfer-Encoding: xchunked\n"),
    bad("Transfer-Encoding: gzip", "Transfer-Encoding: gzip\n"),
    bad("Transfer-Encoding: identity", "Transfer-Encoding: identity\n"),
    bad("Transfer-Encoding without a value", "Transfer-Encoding:\n"),
    bad("Transfer-Encoding: gzip, chunked", "Transfer-Encoding: gzip, chunked\n", 501),
    bad("Transfer-Encoding: chunked, gzip", "Transfer-Encoding: chunked, gzip\n"),
    bad("Transfer-Encoding: chunked, identity", "Transfer-Encoding: chunked, identity\n"),
    bad("Transfer-Encoding: chunked, chunked", "Transfer-Encoding: chunked, chunked\n"),
    bad("Transfer-Encoding: chunked;q=1", "Transfer-Encoding: chunked;q=1\n"),
    bad("Transfer-Encoding: , chunked", "Transfer-Encoding: , chunked\n"),
    bad("Transfer-Encoding: chunked,", "Transfer-Encoding: chunked,\n"),
    bad('Transfer-Encoding: "chunked"', 'Transfer-Encoding: "chunked"\n'),
    bad("Transfer-Encoding: chunked behind a vertical tab", "Transfer-Encoding: \x0bchunked\n"),
    bad("Transfer-Encoding: chunked behind a NUL", "Transfer-Encoding: <NUL>chunked\n"),
    bad("Transfer-Encoding: chunked before a CR", "Transfer-Encoding: chunked<CR>\n"),
    bad("a space before the colon of Transfer-Encoding", "Transfer-Encoding : chunked\n"),
    bad(
        "two Transfer-Encoding headers, xchunked and chunked",
        "Transfer-Encoding: xchunked\nTransfer-Encoding: chunked\n",
        501,
    ),
    bad(
        "two Transfer-Encoding headers, chunked;q=1 and chunked",
        "Transfer-Encoding: chunked;q=1\nTransfer-Encoding: chunked\n",
        501,
    ),
    bad(
        "two Transfer-Encoding headers, both chunked",
        "Transfer-Encoding: chunked\nTransfer-Encoding: chunked\n\n0\n",
    ),
    bad(
        "two Transfer-Encoding headers, chunked and gzip",
        "Transfer-Encoding: chunked\nTransfer-Encoding: gzip\n\n0\n",
    ),
    bad(
        "Transfer-Encoding before Content-Length",
        "Transfer-Encoding: chunked\nContent-Length: 5\n\n0\n",
    ),
    bad(
        "Content-Length before Transfer-Encoding",
        "Content-Length: 5\nTransfer-Encoding: chunked\n\n0\n",
    ),
    bad(
        "Transfer-Encoding: gzip with Content-Length",
        "Transfer-Encoding: gzip\nContent-Length: 0\n",
    ),
    bad(
        "Transfer-Encoding: chunked in HTTP/1.0",
        "Transfer-Encoding: chunked\n\n0\n",
        line=f"{DELETE} HTTP/1.0",
    ),
    bad(
        "Transfer-Encoding: gzip with an upgrade",
        "Connection: upgrade\nUpgrade: h2c\nTransfer-Encoding: gzip\n",
    ),
    bad(
        "Transfer-Encoding: gzip with Connection: close",
        "Connection: close\nTransfer-Encoding: gzip\n",
    ),
    bad(
        "Transfer-Encoding that Connection names as a header to drop",
        "Connection: transfer-encoding\nTransfer-Encoding: xchunked\n",
    ),
    Vector(
        "POST with Transfer-Encoding: gzip and an upgrade",
        (400,),
        f"POST /items HTTP/1.1\nHost: x\n{JSON}Connection: upgrade\nUpgrade: h2c\n"
        f"Transfer-Encoding: gzip\n\n{ITEM}",
    ),
    Vector(
        "a good request before Transfer-Encoding: gzip with an upgrade",
        (200, 400),
        "GET /health/live HTTP/1.1\nHost: x\n\n"
        f"{DELETE} HTTP/1.1\nHost: x\nConnection: upgrade\nUpgrade: h2c\n"
        "Transfer-Encoding: gzip\n\n",
    ),
    Vector(
        "GET with Transfer-Encoding: gzip",
        (400,),
        "GET /health/live HTTP/1.1\nHost: x\nTransfer-Encoding: gzip\n\n",
    ),
    Vector(
        "POST to no path with Transfer-Encoding: nonsense",
        (400,),
        "POST /nothing HTTP/1.1\nHost: x\nTransfer-Encoding: nonsense\n\nhello",
    ),
    good("Transfer-Encoding: CHUNKED", "Transfer-Encoding: CHUNKED\n", body="0\n\n"),
    good(
        "Transfer-Encoding: chunked between tabs", "Transfer-Encoding:\tchunked\t \n", body="0\n\n"
    ),
    good("a declined upgrade", "Connection: upgrade\nUpgrade: h2c\n"),
]

LENGTHS = [
    bad("two lengths that differ", "Content-Length: 5\nContent-Length: 7\n\nhello!!"),
    bad("two lengths that agree", "Content-Length: 5\nContent-Length: 5\n\nhello"),
    bad("a list of lengths", "Content-Length: 5, 5\n\nhello"),
    bad("Content-Length: +5", "Content-Length: +5\n\nhello"),
    bad("Content-Length: -1", "Content-Length: -1\n"),
    bad("Content-Length: 0x5", "Content-Length: 0x5\n\nhello"),
    bad("Content-Length: 5.0", "Content-Length: 5.0\n\nhello"),
    bad("Content-Length: 5 5", "Content-Length: 5 5\n\nhello"),
    bad("Content-Length: 5;", "Content-Length: 5;\n\nhello"),
    bad("Content-Length: 1_0", "Content-Length: 1_0\n\nhellohello"),
    bad("Content-Length without a value", "Content-Length:\n"),
    bad("Content-Length: five", "Content-Length: five\n\nhello"),
    bad("Content-Length in superscript", "Content-Length: \xb2\n\nhi"),
    bad("Content-Length of twenty digits", f"Content-Length: {'9' * 20}\n", 413),
    bad("Content-Length of 5,000 digits", f"Content-Length: {'9' * 5000}\n", 413),
    bad("Content-Length: 5 on a folded line", "Content-Length:\n 5\n\nhello"),
    bad("a space before the colon of Content-Length", "Content-Length : 5\n\nhello"),
    good("Content-Length: 0", "Content-Length: 0\n"),
    good("Content-Length: 005", "Content-Length: 005\n", body="hello"),
    good("Content-Length between white space", "Content-Length: \t5\t \n", body="hello"),
    good("a body for DELETE", "Content-Length: 5\n", body="hello"),
]

HOSTS = [
    bad("no Host", "", host=""),
    bad("two Hosts", "Host: y\n"),
    bad("two Hosts that agree", "Host: x\n"),
    *(
        bad(f"Host: {host}", "", host=host)
        for host in (
            "bad host",
            "user@a",
            "user:password@a",
            "a/path",
            "a?query",
            "a#fragment",
            "a, b",
            "a,b",
            "a:b",
            "a:80:80",
            "a:99999",
            "a:-1",
            "a:+80",
            "http://a",
            "[::1",
            "::1",
            "[::g]",
            "[::1]a",
            "a%zz",
            "a\\b",
            "<a>",
            'a"b',
            "a<NUL>b",
            "a\tb",
            "\xe4",
        )
    ),
    bad("a folded Host", " y\n"),
    bad("a space before the colon of Host", "Host : x\n", host=""),
    bad("a space before Host", " Host: x\n", host=""),
    good("a Host without a name", host=" "),
    *(
        good(f"Host: {host}", host=host)
        for host in (
            "a:80",
            "a:",
            "[::1]:80",
            "[::ffff:1.2.3.4]",
            "a_b.example.",
            "a%20b",
            "~a!$&'()*+;=",
        )
    ),
    Vector("HTTP/1.0 without Host", (204,), f"{DELETE} HTTP/1.0\n\n", deletes=True),
    bad("HTTP/1.0 with two Hosts", "Host: y\n", line=f"{DELETE} HTTP/1.0"),
]

LINES = [
    *(
        line(f"{version} as the version", f"{DELETE} {version}", status)
        for version, status in (
            ("HTTP/2.0", 505),
            ("HTTP/0.9", 505),
            ("HTTP/3.0", 505),
            ("HTTP/0.0", 505),
            ("HTTP/9.9", 505),
            ("HTTP/2", 400),
            ("HTTP/1", 400),
            ("HTTP/1.10", 400),
            ("HTTP/11.1", 400),
            ("HTTP/1.1a", 400),
            ("HTTP/01.1", 400),
            ("HTTP/+1.1", 400),
            ("HTTP /1.1", 400),
            ("HTTP/1 .1", 400),
            ("http/1.1", 400),
            ("HTTPS/1.1", 400),
            ("RTSP/1.0", 400),
            ("ICE/1.0", 400),
            ("SIP/2.0", 400),
            ("X", 400),
        )
    ),
    line("OPTIONS in RTSP/1.0", "OPTIONS /items RTSP/1.0"),
    line("DESCRIBE in RTSP/1.0", "DESCRIBE /items RTSP/1.0"),
    line("SOURCE in ICE/1.0", "SOURCE /items ICE/1.0"),
    line("the beginning of HTTP/2", "PRI * HTTP/2.0", 505),
    line("no version", DELETE),
    line("no version, but a space", f"{DELETE} "),
    line("no target", "DELETE HTTP/1.1"),
    line("no method", "/items/<ID>?permanent=true HTTP/1.1"),
    line("a space before the method", f" {DELETE} HTTP/1.1"),
    line("two spaces before the target", f"{DELETE.replace(' ', '  ')} HTTP/1.1"),
    line("two spaces behind the target", f"{DELETE}  HTTP/1.1"),
    line("a space behind the version", f"{DELETE} HTTP/1.1 "),
    line("a tab in place of a space", f"{DELETE}\tHTTP/1.1"),
    line("tabs in place of spaces", f"{DELETE} HTTP/1.1".replace(" ", "\t")),
    line("a form feed in place of a space", f"{DELETE}\x0cHTTP/1.1"),
    line("a space in the target", "DELETE /items/<ID> ?permanent=true HTTP/1.1"),
    line("a CR in the target", "DELETE /items/<ID><CR>?permanent=true HTTP/1.1"),
    line("a CR behind the version", f"{DELETE} HTTP/1.1<CR>"),
    line("a NUL in the target", f"{DELETE}<NUL> HTTP/1.1"),
    line("a tab in the target", f"{DELETE}\t HTTP/1.1"),
    line("a byte above ASCII in the target", f"{DELETE}&\xe4 HTTP/1.1"),
    line("DEL in the target", f"{DELETE}&\x7f HTTP/1.1"),
    line("a fragment in the target", f"{DELETE}#there HTTP/1.1"),
    line("a target without a slash", "DELETE items/<ID>?permanent=true HTTP/1.1"),
    line("a target of a host and a path", "DELETE x/items/<ID>?permanent=true HTTP/1.1"),
    line("* for another method than OPTIONS", "DELETE * HTTP/1.1"),
    line("*/ for OPTIONS", "OPTIONS */ HTTP/1.1"),
    line("CONNECT", "CONNECT example.com:443 HTTP/1.1"),
    line("CONNECT with a URL", "CONNECT http://x/items HTTP/1.1"),
    line("the authority form for another method", "DELETE example.com:443 HTTP/1.1"),
    line("a URL with a user", "DELETE http://user@x/items/<ID>?permanent=true HTTP/1.1"),
    line("a URL without a host", "DELETE http:///items/<ID>?permanent=true HTTP/1.1"),
    line("a URL with a port alone", "DELETE http://:80/items/<ID>?permanent=true HTTP/1.1"),
    line("a URL with a wrong port", "DELETE http://x:99999/items/<ID>?permanent=true HTTP/1.1"),
    line("a URL of another scheme", "DELETE ftp://x/items/<ID>?permanent=true HTTP/1.1"),
    line("a URL with one slash", "DELETE http:/x/items/<ID>?permanent=true HTTP/1.1"),
    line("a comma in the method", "DEL,ETE /items/<ID>?permanent=true HTTP/1.1"),
    line("a colon in the method", "DELETE: /items/<ID>?permanent=true HTTP/1.1"),
    line("a byte above ASCII in the method", "D\xc9LETE /items/<ID>?permanent=true HTTP/1.1"),
    line("a NUL before the method", f"<NUL>{DELETE} HTTP/1.1"),
    line("a method of 33 letters", f"{'M' * 33} / HTTP/1.1"),
    line("a target of 17,000 bytes", f"{DELETE}&{'a' * 17_000} HTTP/1.1", 414),
    line("a target of 100,000 bytes", f"{DELETE}&{'a' * 100_000} HTTP/1.1", 414),
    line("a method in small letters", "delete /items/<ID>?permanent=true HTTP/1.1", 405, 200),
    line("an unknown method", "FOOBAR /items/<ID> HTTP/1.1", 405, 200),
    line("OPTIONS *", "OPTIONS * HTTP/1.1", 204, 200),
    line("OPTIONS of a URL without a path", "OPTIONS http://x HTTP/1.1", 204, 200),
    line("OPTIONS of a URL with a path", "OPTIONS http://x/ HTTP/1.1", 404, 200),
    line("an encoded slash", "DELETE /items%2F<ID>?permanent=true HTTP/1.1", 404, 200),
    line(
        "an encoded slash in small letters",
        "DELETE /items%2f<ID>?permanent=true HTTP/1.1",
        404,
        200,
    ),
    line("an encoded slash at the end", "DELETE /items/<ID>%2F?permanent=true HTTP/1.1", 404, 200),
    line("an encoded NUL in the id", "DELETE /items/<ID>%00?permanent=true HTTP/1.1", 422, 200),
    line("what is no UTF-8 in the id", "DELETE /items/<ID>%FF?permanent=true HTTP/1.1", 422, 200),
    line("half of an encoded byte", "DELETE /items/<ID>%3?permanent=true HTTP/1.1", 422, 200),
    line("dots in the path", "DELETE /users/../items/<ID>?permanent=true HTTP/1.1", 404, 200),
    line("encoded dots in the path", "DELETE /users/%2e%2e/items/<ID> HTTP/1.1", 404, 200),
    line("two slashes in front", "DELETE //items/<ID>?permanent=true HTTP/1.1", 404, 200),
    line("encoded twice", "DELETE /items/%2531?permanent=true HTTP/1.1", 422, 200),
    good("a URL", line="DELETE http://x/items/<ID>?permanent=true HTTP/1.1"),
    good(
        "a URL with a port, in capitals",
        line="DELETE HTTP://X:80/items/<ID>?permanent=true HTTP/1.1",
    ),
    good("an encoded letter", line="DELETE /%69tems/<ID>?permanent=true HTTP/1.1"),
    good("a higher minor version", line=f"{DELETE} HTTP/1.2"),
    good("empty lines in front", line=f"\n\n{DELETE} HTTP/1.1"),
    line("a target of 9,000 bytes", f"{DELETE}&{'a' * 9_000} HTTP/1.1", 422, 200),
]

HEADERS = [
    bad("a header without a colon", "X\n"),
    bad("a header without a name", ": a\n"),
    bad("a space in a header's name", "Bad Header: a\n"),
    bad("a space before a colon", "X : a\n"),
    bad("a tab before a colon", "X\t: a\n"),
    bad("a space before a header", " X: a\n"),
    bad("a folded header", "X: a\n b\n"),
    bad("a header folded by a tab", "X: a\n\tb\n"),
    bad("an empty line of spaces", "X: a\n \n"),
    bad("a bracket in a header's name", "Bad[: x\n"),
    bad("a NUL in a header's name", "X<NUL>: a\n"),
    bad("a byte above ASCII in a header's name", "X\xe4: a\n"),
    bad("a CR in a header's name", "X<CR>: a\n"),
    bad("a NUL in a header", "X: a<NUL>b\n"),
    bad("a CR in a header", "X: a<CR>b\n"),
    bad("an LF in a header", "X: a<LF>b\n"),
    bad("a header after a bare LF", "X: a<LF>Y: b\n"),
    bad("a control character in a header", "X: a\x01b\n"),
    bad("DEL in a header", "X: a\x7fb\n"),
    bad("lines that end in LF", "X: a<LF><LF>"),
    bad("lines that end in CR", "X: a<CR><CR>"),
    bad("a header of 70,000 bytes", f"X: {'a' * 70_000}\n", 431),
    bad("a header of 200,000 bytes", f"X: {'a' * 200_000}\n", 431),
    bad("a header name of 70,000 bytes", f"{'X' * 70_000}: a\n", 431),
    bad("300 headers", "X: a\n" * 300, 431),
    bad("10,000 headers", "X: a\n" * 10_000, 431),
    bad("Expect: something", "Expect: something\n", 417),
    bad("Expect: 100-continue and more", "Expect: 100-continue, something\n", 417),
    bad("Expect: something before a second", "Expect: something\nExpect: 100-continue\n", 417),
    bad("Expect: 100-continue twice", "Expect: 100-continue\nExpect: 100-continue\n", 417),
    good("a header without a value", "X:\n"),
    good("a header above ASCII", "X: \xe4\xff\n"),
    good("200 headers", "X: a\n" * 200),
    good("a header of 30,000 bytes", f"X: {'a' * 30_000}\n"),
    good("every letter that a name may have", "!#$%&'*+-.^_`|~09azAZ: a\n"),
    good("an expectation in HTTP/1.1 without a body", "Expect: 100-continue\n"),
    Vector(
        "Connection: close",
        (204,),
        f"{DELETE} HTTP/1.1\nHost: x\nConnection: close\n\n",
        deletes=True,
    ),
    Vector(
        "Connection: close in capitals, in a list",
        (204,),
        f"{DELETE} HTTP/1.1\nHost: x\nConnection: Keep-Alive, CLOSE\n\n",
        deletes=True,
    ),
    Vector(
        "HTTP/1.0 that expects to be asked",
        (204,),
        f"{DELETE} HTTP/1.0\nExpect: 100-continue\nContent-Length: 2\n\nhi",
        deletes=True,
    ),
]

CHUNKS = [
    chunks("a chunk without a size", "\nhello\n0\n\n"),
    chunks("a chunk of size Z", "Z\nhello\n0\n\n"),
    chunks("a chunk of size 0x5", "0x5\nhello\n0\n\n"),
    chunks("a chunk of size +5", "+5\nhello\n0\n\n"),
    chunks("a chunk of size -1", "-1\nhello\n0\n\n"),
    chunks("a chunk of size 5 and a space", "5 \nhello\n0\n\n"),
    chunks("a space before a chunk's size", " 5\nhello\n0\n\n"),
    chunks("a tab behind a chunk's size", "5\t\nhello\n0\n\n"),
    chunks("a space before an extension", "5 ;a\nhello\n0\n\n"),
    chunks("a chunk of size 5_0", "5_0\nhello\n0\n\n"),
    chunks("a chunk of 17 digits", f"{'0' * 16}5\nhello\n0\n\n"),
    chunks("a chunk of the size of 2^64", f"1{'0' * 16}\nhello\n0\n\n"),
    chunks("a chunk longer than it says", "4\nhello\n0\n\n"),
    chunks("a chunk shorter than it says", "6\nhello\n0\n\n"),
    chunks("a chunk without its end", "5\nhello0\n\n"),
    chunks("a chunk that ends in LF", "5\nhello<LF>0\n\n"),
    chunks("a chunk that ends in CR", "5\nhello<CR>0\n\n"),
    chunks("a chunk's size that ends in LF", "5<LF>hello\n0\n\n"),
    chunks("a chunk's size that ends in CR", "5<CR>hello\n0\n\n"),
    chunks("a last chunk that ends in LF", "5\nhello\n0<LF><LF>"),
    chunks("an LF in a chunk's extension", "5;a<LF>b\nhello\n0\n\n"),
    chunks("a CR in a chunk's extension", "5;a<CR>b\nhello\n0\n\n"),
    chunks("a NUL in a chunk's extension", "5;a<NUL>b\nhello\n0\n\n"),
    chunks("an extension without a name", "5;\nhello\n0\n\n"),
    chunks("an extension whose quotes stay open", '5;a="b\nhello\n0\n\n'),
    chunks("a space in a chunk's extension", "5;a b\nhello\n0\n\n"),
    chunks("a byte above ASCII in a chunk's extension", "5;\xe4\nhello\n0\n\n"),
    chunks("an extension of 2,000 bytes", f"5;{'a' * 2000}\nhello\n0\n\n"),
    chunks("200 extensions of 1,000 bytes", f"1;{'a' * 1000}\nx\n" * 200 + "0\n\n"),
    chunks("70,000 chunks of one byte", "1\nx\n" * 70_000 + "0\n\n"),
    chunks("a broken trailer", "5\nhello\n0\nX\n\n"),
    chunks("a folded trailer", "5\nhello\n0\nX: a\n b\n\n"),
    chunks("a trailer of 10,000 bytes", f"5\nhello\n0\nX: {'a' * 10_000}\n\n", 431),
    chunks("trailers of 100,000 bytes", "5\nhello\n0\n" + f"X: {'a' * 1000}\n" * 100 + "\n", 431),
    chunks("chunks of all sizes", "5\nhello\n00F\n123456789012345\n1\nx\n0\n\n", 204, 200),
    chunks("a last chunk of several digits", "5\nhello\n0000\n\n", 204, 200),
    chunks("an extension", '5;a;b=c;d="e \\"f"\nhello\n0;x\n\n', 204, 200),
    chunks("Content-Length as a trailer", "5\nhello\n0\nContent-Length: 5\n\n"),
    chunks("Transfer-Encoding as a trailer", "5\nhello\n0\nTransfer-Encoding: chunked\n\n"),
    chunks("trailers", "5\nhello\n0\nX: a\nHost: y\nAuthorization: z\n\n", 204, 200),
    chunks("2,000 chunks of one byte", "1\nx\n" * 2000 + "0\n\n", 204, 200),
    Vector(
        "a broken chunk for a POST",
        (400,),
        f"POST /items HTTP/1.1\nHost: x\n{JSON}Transfer-Encoding: chunked\n\nc\n{ITEM}\nZ\n\n",
    ),
    Vector(
        "a broken chunk behind an answered request",
        (200, 400),
        "GET /health/live HTTP/1.1\nHost: x\n\n"
        f"{DELETE} HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\nZ\n",
    ),
]

ORDER = [
    Vector(
        "two requests before an unknown method",
        (200, 200, 405, 200),
        "GET /health/live HTTP/1.1\nHost: x\n\n" * 2 + "FOOBAR /items HTTP/1.1\nHost: x\n\n",
    ),
    Vector(
        "noise behind a request",
        (200, 400),
        "GET /health/live HTTP/1.1\nHost: x\n\n<NUL><NUL><NUL>\n\n",
    ),
    Vector(
        "a request behind a body",
        (200, 204),
        "GET /health/live HTTP/1.1\nHost: x\nContent-Length: 3\n\n"
        f"abc{DELETE} HTTP/1.1\nHost: x\nConnection: close\n\n",
        deletes=True,
    ),
    Vector(
        "a request in the place of a body",
        (200, 200),
        "GET /health/live HTTP/1.1\nHost: x\nContent-Length: <LENGTH>\n\n"
        f"{DELETE} HTTP/1.1\nHost: x\n\n",
    ),
    Vector("200 requests", (200,) * 201, "GET /health/live HTTP/1.1\nHost: x\n\n" * 200),
    Vector(
        "two requests before 2 MB for no path",
        (200, 200, 404, 200),
        "GET /health/live HTTP/1.1\nHost: x\n\n" * 2
        + f"POST /nothing HTTP/1.1\nHost: x\nContent-Length: 2000000\n\n{'x' * 2_000_000}",
    ),
    Vector(
        "a HEAD that is refused",
        (400,),
        "HEAD /items HTTP/1.1\nHost: x\nBad[: x\n\n",
    ),
    Vector("TLS", (400,), "\x16\x03\x01\x02<NUL>\x01<NUL>\x01\xfc\x03\x03" + "<NUL>" * 32),
    Vector("a line of noise", (400,), "hello there\n\n"),
]

VECTORS = [*CODED, *LENGTHS, *HOSTS, *LINES, *HEADERS, *CHUNKS, *ORDER]
