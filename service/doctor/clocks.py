"""The difference between two clocks."""

from service.doctor.check import Finding, fail, ok, warn

WARN_SECONDS, FAIL_SECONDS = 1.0, 60.0


def skewed(seconds: float, store: str) -> Finding:
    """Return the finding for a clock that differs by these seconds; negative for none."""
    advice = "synchronize both machines with NTP"
    if seconds <= WARN_SECONDS:
        return ok(f"that of {store} and ours differ by less than {WARN_SECONDS:g} s")
    told = f"that of {store} and ours differ by {seconds:.1f} s: keys and logs have wrong times"
    return (fail if seconds > FAIL_SECONDS else warn)(told, advice)
