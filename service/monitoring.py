"""`GET /metrics`: what all workers have counted."""

from service.errors import NotFound
from service.metrics.exposition import exposition
from service.web.codec import Reply
from service.web.endpoint import Operation
from service.web.request import Request

TEXT = b"text/plain; version=0.0.4; charset=utf-8"


async def metrics(request: Request) -> Reply:
    """Return the metrics of all workers, for Prometheus."""
    found = request.state["metrics"]
    if found is None:
        raise NotFound("metrics are off: SERVICE_METRICS=off")
    return Reply(exposition(found.store.slots()).encode(), content_type=TEXT)


def routes() -> list[Operation]:
    """Return the operation."""
    return [
        Operation(
            "GET",
            "/metrics",
            metrics,
            "The metrics of all workers",
            media=("text/plain",),
            errors=(NotFound,),
            stored=False,
            access="open",
            limit="off",
        )
    ]
