"""Ask for published vulnerabilities of the locked packages: `just audit`.

It needs a network. Without one it says so and ends with 0: no result is not a bad result.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

LOCK = Path(__file__).parent.parent / "requirements.lock"
AUDIT = ("uv", "tool", "run", "pip-audit==2.10.1")
# The lock has all packages with hashes, so nothing is installed to find them.
OPTIONS = ("--disable-pip", "--require-hashes", "--progress-spinner", "off", "--format", "json")
SECONDS = 120


def asked() -> list[dict[str, Any]]:
    """Return the answer for each package; none without a network."""
    command = [*AUDIT, *OPTIONS, "--requirement", str(LOCK)]
    try:
        ended = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=SECONDS
        )
        answer: dict[str, list[dict[str, Any]]] = json.loads(ended.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return []
    return [one for one in answer["dependencies"] if "skip_reason" not in one]


def main() -> int:
    """Print what is known; return 1 if a package has a vulnerability."""
    answers = asked()
    if not answers:
        print("skipped: no network")
        return 0
    found = [(one, vulnerability) for one in answers for vulnerability in one["vulns"]]
    for one, vulnerability in found:
        fixed = ", ".join(vulnerability["fix_versions"]) or "no version"
        print(f"{one['name']} {one['version']}: {vulnerability['id']}, fixed in {fixed}")
    print(f"{len(answers)} packages, {len(found)} known vulnerabilities")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
