"""Metrics of a worker, kept where the other workers can read them; see slots.Store."""

from pathlib import Path

from service.metrics.counting import Metrics
from service.metrics.slots import Store

__all__ = ["Metrics", "Store", "opened"]


def opened(setting: str) -> Metrics | None:
    """Return the metrics of this process, as SERVICE_METRICS says; None if they are off."""
    if setting == "off":
        return None
    return Metrics(Store(None if setting == "on" else Path(setting)))
