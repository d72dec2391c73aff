"""`/openapi.json` and `/docs`: the API on one page, which loads nothing from other hosts."""

from functools import lru_cache

import msgspec

from service.web import docs_page, pages
from service.web.codec import JSON, Reply
from service.web.endpoint import Operation
from service.web.openapi import document
from service.web.openapi_texts import NO_CHECKS, About, Checks
from service.web.request import Request


def routes(
    operations: list[Operation], about: About, checks: Checks = NO_CHECKS
) -> list[Operation]:
    """Return both operations. Their responses are built once per URL prefix.

    Args:
        operations: the operations to describe.
        about: the application.
        checks: what its settings say that is checked; the responses are about what is checked.
    """

    @lru_cache(pages.ROOTS)
    def fixed(root: str, checks: Checks) -> tuple[pages.Fixed, pages.Fixed]:
        described = document(everything, about, root, checks)
        as_json = pages.Fixed(msgspec.json.encode(described), JSON)
        return as_json, pages.html(docs_page.page(described, root))

    async def openapi(request: Request) -> Reply:
        """The OpenAPI 3.1 document of this service: operations, schemas, errors."""
        return fixed(request.root, checks_of(request))[0].reply(request)

    async def docs(request: Request) -> Reply:
        """The documentation as HTML; it loads nothing from other hosts."""
        return fixed(request.root, checks_of(request))[1].reply(request)

    own = [
        Operation(
            "GET",
            path,
            handler,
            summary,
            media=(media,),
            fixed=True,
            stored=False,
            access="open",
            limit="off",
        )
        for path, handler, summary, media in (
            ("/openapi.json", openapi, "Read the OpenAPI document", "application/json"),
            ("/docs", docs, "Read about the API on one page", "text/html"),
        )
    ]
    everything = [*operations, *own]
    fixed("", checks)  # build at the start, not in the first request
    return own


def checks_of(request: Request) -> Checks:
    """Return what is checked before the operations of this process run."""
    guard = request.state["guard"]
    if guard is None:
        return NO_CHECKS
    return Checks(guard.principals is not None, guard.limiter is not None)
