"""Metrics and traces: whether they can be kept and sent."""

import asyncio
import os
import shutil
import tempfile
from contextlib import suppress
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from service import tracing
from service.doctor.check import Check, Finding, fail, ok, warn
from service.doctor.subject import Subject
from service.metrics.slot_folder import MEMORY
from service.metrics.slots import SIZE
from service.settings import SettingsError
from service.threads import in_thread

# The variables with the address of the collector, and OpenTelemetry's default.
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
DEFAULT_ENDPOINT = "http://localhost:4318"
SECONDS = 2.0


async def metrics(subject: Subject) -> Finding:
    """Fail if the folder of SERVICE_METRICS can't be used; warn if no folder has enough space.

    Each worker would then show its own metrics alone.
    """
    setting, workers = subject.settings.metrics, subject.settings.workers
    if setting == "off":
        return ok("off")
    if setting != "on":
        if not await in_thread(partial(os.access, setting, os.W_OK | os.X_OK)):
            return fail(f"{setting} can't be written", "make the folder, or SERVICE_METRICS=on")
        return ok(f"in {setting}")
    needed = 2 * workers * SIZE
    places = (MEMORY, Path(tempfile.gettempdir()))
    for place in places:
        with suppress(OSError):
            if (await in_thread(partial(shutil.disk_usage, place))).free >= needed:
                return ok(f"summed over workers, in {place}")
    return warn(
        f"neither {places[0]} nor {places[1]} has {needed / 2**20:.0f} MiB: each worker shows its"
        " own metrics alone",
        "free some space, or set TMPDIR to another folder",
    )


async def traces(subject: Subject) -> Finding:
    """Fail if spans can't be recorded; warn if nothing listens at the address of the collector."""
    if subject.settings.traces == "off":
        return ok("off")
    try:
        await in_thread(partial(tracing.check, subject.settings.traces))
    except SettingsError as error:
        return fail(str(error), "or set SERVICE_TRACES=off")
    given = (os.environ.get(name) for name in ENDPOINTS)
    endpoint = next(filter(None, given), DEFAULT_ENDPOINT)
    try:
        parts = urlsplit(endpoint)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:  # its text may show a password
        return fail("the address of the collector can't be read", f"correct {ENDPOINTS[1]}")
    where = f"{parts.hostname}:{port}"  # a URL may have a password
    try:
        async with asyncio.timeout(SECONDS):
            _, writer = await asyncio.open_connection(parts.hostname, port)
    except OSError:
        return warn(f"no collector answers at {where}: spans are lost", f"see {ENDPOINTS[1]}")
    writer.close()
    return ok(f"sent to {where}")


CHECKS = (Check("metrics", metrics), Check("traces", traces))
