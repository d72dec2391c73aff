"""The environment of a run: machine, versions, settings of the stores."""

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import redis

from bench.contestants import FASTIFY, ROOT
from bench.stage import SHOWN, StagingTable, sql

PACKAGES = (
    *("starlette", "msgspec", "sqlalchemy", "asyncpg", "granian", "uvicorn", "uvloop", "httptools"),
    *("fastapi", "pydantic", "orjson", "litestar", "blacksheep", "redis"),
)


def machine() -> dict[str, str]:
    """Describe the hardware and system, without the machine's name."""
    cpu = re.search(r"model name\s*: (.*)", _read("/proc/cpuinfo"))
    memory = re.search(r"MemTotal:\s*(\d+)", _read("/proc/meminfo"))
    return {
        "processor": cpu[1] if cpu else platform.processor(),
        "cores": str(os.cpu_count()),
        "memory": f"{int(memory[1]) / 2**20:.0f} GiB" if memory else "?",
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "python": sys.version.split()[0],
    }


def versions(on: StagingTable) -> dict[str, str]:
    """Return the versions of all programs."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    found["PostgreSQL"] = sql(on, "SHOW server_version")[0][0].split()[0]
    with redis.Redis.from_url(on.redis_url) as client:
        told = client.info("server")
    found["Valkey"] = str(told.get("valkey_version", told["redis_version"]))
    found["wrk"] = _said("wrk", "-v").split()[1:2][0]
    if shutil.which("node"):
        found["Node.js"] = _said("node", "--version").strip().lstrip("v")
        for package in ("fastify", "postgres"):
            text = _read(FASTIFY / "node_modules" / package / "package.json")
            if version := re.search(r'"version": "([^"]+)"', text):
                found[package] = version[1]
    return found


def commit() -> str:
    """Return the commit of this checkout, with `-dirty` if files differ; empty without git."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude", "*"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


def settings(on: StagingTable) -> dict[str, str]:
    """Return the settings of PostgreSQL and Redis, the same for all contestants."""
    found = {f"postgresql {name}": sql(on, f"SHOW {name}")[0][0] for name in SHOWN}
    with redis.Redis.from_url(on.redis_url) as client:
        for name in ("save", "appendonly", "maxmemory"):
            found[f"redis {name}"] = str(client.config_get(name).get(name, "")) or "off"
    return found


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _said(*command: str) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return done.stdout + done.stderr
