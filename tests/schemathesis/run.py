"""Run all checks of schemathesis against the service: without keys, as an admin, as a user.

`just schemathesis` does it on embedded stores; options go on, as in `--max-examples 200`.
"""

import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.server import free_port

HERE = Path(__file__).parent
SCHEMATHESIS = ("uv", "tool", "run", "schemathesis==4.32.5")
SERVICE = (sys.executable, "-m", "service")
START_SECONDS = 60
# Both ways to send a key. With one of them only, a made-up key is sent in the other one.
AUTH = """
[auth.openapi]
bearer = { bearer = "${KEY}" }
apiKey = { api_key = "${KEY}" }
"""


@contextmanager
def served(data: str, **environ: str) -> Iterator[str]:
    """Serve on embedded stores, and return the address."""
    port = str(free_port("127.0.0.1"))
    address = f"http://127.0.0.1:{port}"
    command = [*SERVICE, "serve", "--port", port, "--data", data]
    variables = {**os.environ, "SERVICE_LOG": "off", **environ}
    process = subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{address}/health/live").close()
            except OSError:
                time.sleep(0.1)
            else:
                yield address
                return
        raise SystemExit("the service does not start")
    finally:
        process.terminate()
        process.wait()


def made(data: str, *command: str) -> str:
    """Run a command of the service on the same stores, and return what it prints."""
    environ = {**os.environ, "SERVICE_DATA": data}
    ended = subprocess.run(
        [*SERVICE, *command], env=environ, check=True, capture_output=True, text=True
    )
    return ended.stdout


def checked(address: str, options: list[str], key: str = "", user: str = "") -> bool:
    """Run schemathesis, and return whether it found nothing."""
    with tempfile.TemporaryDirectory() as place:  # it writes reports and a cache there
        config = Path(place, "schemathesis.toml")
        config.write_text((HERE / "schemathesis.toml").read_text() + (AUTH if key else ""))
        ended = subprocess.run(
            [
                *(*SCHEMATHESIS, "--config-file", str(config), "run", f"{address}/openapi.json"),
                *("--checks", "all", "--phases", "examples,coverage,fuzzing,stateful"),
                *("--max-examples", "30", "--no-color", *options),
            ],
            check=False,
            env={
                **os.environ,
                "SCHEMATHESIS_HOOKS": str(HERE / "hooks.py"),
                "OWN_USER": user,
                "KEY": key,
            },
            cwd=place,
        )
    return ended.returncode == 0


def main(options: list[str]) -> int:
    """Run it three times; return 1 if a run found something."""
    passed: list[bool] = []
    accounts: list[tuple[str, str]] = []
    with tempfile.TemporaryDirectory() as data:
        with served(data, SERVICE_AUTH="off") as address:
            passed.append(checked(address, options))
            for name, role in (("root", "admin"), ("ada", "user")):
                email = f"{name}@schemathesis.example"
                printed = made(
                    data, "users", "create", email, f"{name}.schemathesis", "--role", role
                )
                user = printed.removeprefix("user ").partition(":")[0]
                accounts.append((made(data, "keys", "create", "--user", email).strip(), user))
        with served(data, SERVICE_AUTH="on") as address:
            passed += [checked(address, options, key, user) for key, user in accounts]
    print(f"schemathesis: {sum(passed)} of {len(passed)} runs without a failure")
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
