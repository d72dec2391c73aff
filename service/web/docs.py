"""`/openapi.json` and `/docs`: the API on one page, which loads nothing from other hosts."""

import asyncio
from functools import lru_cache

import msgspec

from service.threads import in_thread
from service.web import pages
from service.web.codec import JSON, Reply
from service.web.endpoint import Operation
from service.web.openapi_texts import NO_CHECKS, About, Checks
from service.web.request import Request


def routes(operations: list[Operation], about: About) -> list[Operation]:
    """Return both operations. Their responses are built at the first request, per URL prefix.

    Building takes 0.1 s of CPU and 3 MiB, which most workers never need.

    Args:
        operations: the operations to describe.
        about: the application.
    """

    def make(root: str, checks: Checks) -> tuple[pages.Fixed, pages.Fixed]:
        from service.web import docs_page
        from service.web.openapi import document

        described = document(everything, about, root, checks)
        as_json = pages.Fixed(msgspec.json.encode(described), JSON)
        return as_json, pages.html(docs_page.page(described, root))

    @lru_cache(pages.ROOTS)
    def making(root: str, checks: Checks) -> asyncio.Task[tuple[pages.Fixed, pages.Fixed]]:
        # In a thread, so that requests for other things do not wait for it.
        task = asyncio.ensure_future(in_thread(lambda: make(root, checks)))
        task.add_done_callback(forget_failed)
        return task

    def forget_failed(task: asyncio.Task[tuple[pages.Fixed, pages.Fixed]]) -> None:
        if task.cancelled() or task.exception() is not None:
            making.cache_clear()  # the next request tries again

    async def built(request: Request) -> tuple[pages.Fixed, pages.Fixed]:
        return await asyncio.shield(making(request.root, checks_of(request)))

    async def openapi(request: Request) -> Reply:
        """The OpenAPI 3.1 document of this service: operations, schemas, errors."""
        return (await built(request))[0].reply(request)

    async def docs(request: Request) -> Reply:
        """The documentation as HTML; it loads nothing from other hosts."""
        return (await built(request))[1].reply(request)

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
    return own


def checks_of(request: Request) -> Checks:
    """Return what is checked before the operations of this process run."""
    guard = request.state["guard"]
    if guard is None:
        return NO_CHECKS
    return Checks(guard.principals is not None, guard.limiter is not None)
