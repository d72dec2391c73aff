"""Metrics of a worker, kept where the other workers can read them; see slots.Store."""

from pathlib import Path

from service.logs import logger
from service.metrics.counting import Metrics
from service.metrics.slot_folder import shared_folder
from service.metrics.slots import Store

__all__ = ["Metrics", "Store", "opened", "shared_folder"]


def opened(setting: str) -> Metrics | None:
    """Return the metrics of this process, as SERVICE_METRICS says; None if they are off.

    When its slot can't be made, the process counts for itself alone; that is logged.
    """
    if setting == "off":
        return None
    if setting != "on":
        try:
            return Metrics(Store(Path(setting)))
        except OSError as error:
            logger.error(
                "each worker shows its own metrics alone: its file can't be made",
                extra={"fields": {"error": str(error)}},
            )
    return Metrics(Store())
