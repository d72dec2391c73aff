"""The commands: each a few lines over functions that the routes and tests use too."""

from service.cli import describing, files, migrating, seeding, serving
from service.cli.group import main

__all__ = ["describing", "files", "main", "migrating", "seeding", "serving"]
