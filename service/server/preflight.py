"""Combinations of settings that `serve` refuses before it starts anything."""

from service.settings import Settings


def refused_cache(settings: Settings) -> str | None:
    """Return why the setting of the cache does not fit the number of workers; None if it does."""
    if settings.cache != "local" or settings.workers == 1:
        return None
    return (
        f"SERVICE_CACHE=local is for one worker, and SERVICE_WORKERS={settings.workers}:"
        " several workers need SERVICE_CACHE=on and REDIS_URL"
    )
