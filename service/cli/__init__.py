"""The commands: short functions that call the same code as the routes and the tests."""

from service.cli import accounts, describing, diagnosing, files, migrating, seeding, serving
from service.cli.group import main

__all__ = [
    "accounts",
    "describing",
    "diagnosing",
    "files",
    "main",
    "migrating",
    "seeding",
    "serving",
]
