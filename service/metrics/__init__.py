"""Metrics of a worker, kept where the other workers can read them; see slots.Store."""

from pathlib import Path

from service.logs import logger
from service.metrics.counting import Metrics
from service.metrics.slots import Store

__all__ = ["Metrics", "Store", "opened"]


def opened(setting: str) -> Metrics | None:
    """Return the metrics of this process, as SERVICE_METRICS says; None if they are off."""
    if setting == "off":
        return None
    if setting == "on":
        return Metrics(Store())
    try:
        return Metrics(Store(Path(setting)))
    except OSError as error:
        fields = {"error": str(error)}
        logger.error(
            "each worker shows its own metrics alone: free space in TMPDIR",
            extra={"fields": fields},
        )
        return Metrics(Store())
