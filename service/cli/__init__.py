"""The commands: each a few lines over functions that the routes and tests use too."""

from service.cli import files, schema, serving
from service.cli.group import main

__all__ = ["files", "main", "schema", "serving"]
