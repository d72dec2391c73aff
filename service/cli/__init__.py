"""The commands: short functions that call the same code as the routes and the tests."""

from service.cli import (
    accounts,
    clients,
    describing,
    diagnosing,
    files,
    migrating,
    retrying,
    seeding,
    serving,
    webhook_commands,
    working,
)
from service.cli.group import main

__all__ = [
    "accounts",
    "clients",
    "describing",
    "diagnosing",
    "files",
    "main",
    "migrating",
    "retrying",
    "seeding",
    "serving",
    "webhook_commands",
    "working",
]
