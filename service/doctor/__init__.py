"""The checks of `swiftlet doctor`, in the order in which they run."""

from service.doctor import (
    change_checks,
    database_checks,
    job_checks,
    machine_checks,
    redis_checks,
    schema_checks,
    session_checks,
    settings_checks,
    telemetry_checks,
    webhook_checks,
)
from service.doctor.check import Check

AREAS: dict[str, tuple[Check, ...]] = {
    "Settings": (*settings_checks.CHECKS, *telemetry_checks.CHECKS),
    "Machine": machine_checks.CHECKS,
    "Database": (
        *database_checks.CHECKS,
        *session_checks.CHECKS,
        *schema_checks.CHECKS,
        *job_checks.CHECKS,
        *change_checks.CHECKS,
        *webhook_checks.CHECKS,
    ),
    "Redis": redis_checks.CHECKS,
}
