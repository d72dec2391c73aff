"""A hash of everything that determines the responses of an application."""

import hashlib
import sys
from pathlib import Path

import asyncpg
import msgspec

PACKAGE = Path(__file__).parents[1]


def fingerprint(secret: str, place: Path) -> str:
    """The hash of the code, the libraries, and the secret that signs cursors.

    It is part of every key in Redis, so a new version finds no responses of an older one.

    Args:
        secret: signs the cursors.
        place: the folder of the application; what is imported from it is its code.
    """
    versions = (sys.version, msgspec.__version__, asyncpg.__version__)
    found = hashlib.sha256("\0".join((secret, *versions)).encode())
    for path in sorted({*PACKAGE.rglob("*.py"), *_imported(place)}):
        found.update(path.read_bytes())
    return found.hexdigest()[:12]


def _imported(place: Path) -> set[Path]:
    """The imported files below a folder, without the libraries in it."""
    files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    paths = {Path(file) for file in files if file and file.endswith(".py")}
    return {
        path
        for path in paths
        if path.is_relative_to(place) and "site-packages" not in path.parts and path.exists()
    }
