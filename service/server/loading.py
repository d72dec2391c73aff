"""Load the application of a command or worker by its name."""

import gc
import importlib
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.app import Application


class ApplicationError(Exception):
    """The application can't be loaded; the message says why in one line."""


def load(name: str) -> "Application":
    """Import `MODULE:NAME` and return the application; the current directory is importable.

    Raises:
        ApplicationError: no such module, no such name, a declaration that can't be served, or
            something else than an application.
    """
    gc.disable()  # as __main__.py
    from service.app import Application
    from service.db.statement import RefusedError

    gc.freeze()
    gc.enable()

    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise ApplicationError(f"--app {name}: give MODULE:NAME, such as notes:app")
    place = os.getcwd()  # noqa: PTH109 - a str, as in sys.path
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
        # The missing module may be one that it imports.
        missing = error.name or module_name
        wanted = f"{module_name}.".startswith(f"{missing}.")
        why = f"and {place} has none" if wanted else f"which {module_name} imports"
        raise ApplicationError(f"--app {name}: there is no module {missing}, {why}") from None
    found = getattr(module, attribute, None)
    if found is None:
        raise ApplicationError(f"--app {name}: {module_name} has no name {attribute}")
    if not isinstance(found, Application):
        kind = type(found).__name__
        raise ApplicationError(f"--app {name}: its type is {kind}; give the result of create_app")
    return found
