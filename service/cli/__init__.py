"""The commands: each a few lines over functions that the routes and tests use too."""

from service.cli import files, migrating, schema, seeding, serving
from service.cli.group import main

__all__ = ["files", "main", "migrating", "schema", "seeding", "serving"]
