"""The README is true: its session runs, its settings exist, its commands are there."""

import re
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest
from conftest import ROOT, Service

from service.cli import main
from service.settings import Settings

README = (ROOT / "README.md").read_text()
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


def session() -> list[tuple[str, str]]:
    """Each command of the sessions with what it prints."""
    blocks = "".join(part.split("```")[0] for part in README.split("```console\n")[1:])
    parts = re.split(r"^\$ ", blocks, flags=re.MULTILINE)[1:]
    return [(command, printed) for command, _, printed in (part.partition("\n") for part in parts)]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not here")
def test_the_session_with_curl_prints_what_the_readme_shows(
    client: httpx.Client, service: Service, tmp_path: Path
) -> None:
    commands = session()
    assert len(commands) >= 8
    for command, expected in commands:
        here = command.replace("http://127.0.0.1:8000", service.url)
        found = subprocess.run(
            here, shell=True, check=True, capture_output=True, text=True, cwd=tmp_path
        )
        printed = TIME.sub("TIME", found.stdout.rstrip("\n"))
        assert printed == TIME.sub("TIME", expected.rstrip("\n")), command


def test_every_setting_is_listed_with_its_default() -> None:
    table = README.split("## Settings")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", table, re.MULTILINE))
    assert set(rows) == {Settings.variable(field) for field in Settings.__struct_fields__}
    defaults = Settings()
    for field in Settings.__struct_fields__:
        value = getattr(defaults, field)
        if value is not None:
            assert rows[Settings.variable(field)].strip("`") == str(value)


def test_every_command_is_listed() -> None:
    table = README.split("## Commands")[1].split("\n## ")[0]
    for name in main.commands:
        assert f"`swiftlet {name}" in table


def test_every_file_of_the_picture_is_there() -> None:
    picture = README.split("service/\n")[1].split("```")[0]
    for name in re.findall(r"\b\w+\.(?:py|sql)\b", picture):
        assert list((ROOT / "service").rglob(name)) or (ROOT / "sql" / name).exists(), name
