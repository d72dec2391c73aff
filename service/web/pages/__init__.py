"""The service's own pages: HTML, CSS and JavaScript of this folder, without another host.

A page is an HTML file (`console`) or made of data (`html`). The files that it loads are
below `/docs/`, because an application may have a resource named `pages` or `static`, and none named
`docs`. There is no build step: a browser gets the files as they are here.
"""

import hashlib
from functools import lru_cache
from html import escape
from pathlib import Path

from service.errors import NotFound
from service.web.codec import Header, Reply
from service.web.conditional import etag, not_modified
from service.web.endpoint import Operation
from service.web.request import Request

FOLDER = Path(__file__).parent
# In an HTML file, this is the URL prefix of the application, such as `/api`.
ROOT = "$ROOT"
TYPES = {
    ".css": b"text/css; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".svg": b"image/svg+xml",
}
# Scripts and styles are files of ours: no inline script runs, and no text becomes HTML by a script
# (Trusted Types), so a row's content can't become code. No other page may show this one in a
# frame; X-Frame-Options says so to old browsers.
POLICY: tuple[Header, ...] = (
    (
        b"content-security-policy",
        (
            b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
            b" connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
            b" require-trusted-types-for 'script'; trusted-types 'none'"
        ),
    ),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
)
# The same for every client; a browser revalidates it, so it is current after a deploy.
CACHE_CONTROL = b"no-cache"
# URL prefixes whose pages are kept: more than one only if the application is mounted twice.
ROOTS = 8


class Fixed:
    """A response that is the same for every client, with an ETag from its content.

    Args:
        body: the content.
        content_type: its media type.
        headers: beside the ETag.
    """

    def __init__(self, body: bytes, content_type: bytes, headers: tuple[Header, ...] = ()) -> None:
        # The headers too: a browser keeps those of the first response with a 304.
        digest = hashlib.sha256(b"%b%r" % (body, headers)).digest()
        self._version = int.from_bytes(digest[:8], "big") >> 1 | 1  # as a row's: 1 to 2**63 - 1
        headers = (*headers, (b"etag", etag(self._version)))
        encoded: dict[bytes, bytes] = {}
        self._whole = Reply(
            body,
            200,
            headers,
            content_type,
            encoded=encoded,
            keep=encoded.__setitem__,
            cache_control=CACHE_CONTROL,
        )
        self._unchanged = Reply(body, 304, headers, content_type, cache_control=CACHE_CONTROL)

    def reply(self, request: Request) -> Reply:
        """Return the response: 304 without a body if the client has the current content.

        Raises:
            Problem: a precondition fails, see conditional.not_modified.
        """
        return self._unchanged if not_modified(request, self._version) else self._whole


def html(text: str) -> Fixed:
    """Return the response of a page."""
    return Fixed(text.encode(), b"text/html; charset=utf-8", POLICY)


def console() -> Operation:
    """Return the operation of the console."""
    text = (FOLDER / "console" / "console.html").read_text()

    @lru_cache(ROOTS)
    def shown(root: str) -> Fixed:
        return html(text.replace(ROOT, escape(root)))

    async def read_console(request: Request) -> Reply:
        """A page with live figures of this service, and its rows to search and edit."""
        return shown(request.root).reply(request)

    return Operation(
        "GET",
        "/console",
        read_console,
        "Look at the service in a browser",
        media=("text/html",),
        fixed=True,
        stored=False,
        access="open",
        limit="off",
    )


def files(folder: str = "") -> Operation:
    """Return the operation of the files that the pages load.

    Args:
        folder: a folder within this one, whose files are below `/docs/<folder>/`.
    """
    kept = {
        path.name: Fixed(path.read_bytes(), TYPES[path.suffix])
        for path in sorted((FOLDER / folder).iterdir())
        if path.suffix in TYPES
    }

    async def file(request: Request) -> Reply:
        found = kept.get(request.scope["path_params"]["file"])
        if found is None:
            raise NotFound("there is no such file; /docs is the page of the API")
        return found.reply(request)

    path = f"/docs/{folder}/{{file}}" if folder else "/docs/{file}"
    summary = "A file of the pages"
    return Operation("GET", path, file, summary, stored=False, access="open", limit="off")
