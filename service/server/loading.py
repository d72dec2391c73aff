"""The application that a command or a worker serves, by its name."""

import importlib
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.app import Application


class ApplicationError(Exception):
    """There is no application of this name; the message says why in one line."""


def load(name: str) -> "Application":
    """Import `MODULE:NAME`, and return the application; the current directory is importable.

    Raises:
        ApplicationError: no such module, no such name, a declaration that can't be served, or
            something else than an application.
    """
    from service.app import Application
    from service.db.statement import RefusedError

    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise ApplicationError(f"--app {name}: give MODULE:NAME, as notes:app")
    place = os.getcwd()  # noqa: PTH109 - as text, as Python has it
    # For an application of ours nothing may come from a directory that happens to be the current.
    if not module_name.startswith("service.") and place not in sys.path:
        sys.path.insert(0, place)
    try:
        module = importlib.import_module(module_name)
    except RefusedError as error:
        frames = traceback.extract_tb(error.__traceback__)
        ours = str(Path(__file__).parent.parent)
        frame = next((one for one in reversed(frames) if not one.filename.startswith(ours)), None)
        at = "" if frame is None else f" {Path(frame.filename).name}, line {frame.lineno}:"
        raise ApplicationError(f"--app {name}:{at} {error}") from None
    except ModuleNotFoundError as error:
        # A module that it imports may be the one that is missing.
        missing = error.name or module_name
        wanted = f"{module_name}.".startswith(f"{missing}.")
        why = f"and {place} has none" if wanted else f"which {module_name} imports"
        raise ApplicationError(f"--app {name}: there is no module {missing}, {why}") from None
    found = getattr(module, attribute, None)
    if found is None:
        raise ApplicationError(f"--app {name}: {module_name} has no name {attribute}")
    if not isinstance(found, Application):
        kind = type(found).__name__
        raise ApplicationError(
            f"--app {name}: this is of the type {kind}; give what create_app returns"
        )
    return found
