"""Image and development use the tested versions of packages."""

import re
import tomllib
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pytest
from conftest import ROOT

LOCK = (ROOT / "requirements.lock").read_text()
PINNED = re.compile(r"^([a-z0-9-]+)==([0-9][^\s;]*)", re.MULTILINE)


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def pins(lines: str) -> dict[str, str]:
    return dict(PINNED.findall(lines))


def test_lock_and_constraints_agree(project: dict[str, Any]) -> None:
    constraints = project["tool"]["uv"]["constraint-dependencies"]
    locked, constrained = pins(LOCK), pins("\n".join(constraints))
    assert len(constrained) == len(constraints), "each constraint is one exact version"
    assert locked.items() <= constrained.items()


def test_every_requirement_has_a_floor_and_a_pin(project: dict[str, Any]) -> None:
    runtime = project["project"]["dependencies"]
    for requirement in [*runtime, *project["dependency-groups"]["dev"]]:
        found = re.match(r"([a-z0-9-]+)(\[[a-z]+\])?>=[0-9.]+( *;.*)?$", requirement)
        assert found, f"{requirement} has no floor, or more than one"
        constraints = project["tool"]["uv"]["constraint-dependencies"]
        assert found[1] in pins("\n".join(constraints))
        assert found[1] in pins(LOCK) or requirement not in runtime


def test_every_locked_version_has_hashes() -> None:
    blocks = re.split(r"^(?=[a-z])", LOCK, flags=re.MULTILINE)[1:]
    assert len(blocks) == len(pins(LOCK))
    for block in blocks:
        first, *hashes = block.replace("\\\n", "\n").splitlines()
        assert hashes, f"{first} can't be verified"
        assert all(re.fullmatch(r" +--hash=sha256:[0-9a-f]{64} *", line) for line in hashes)


@pytest.mark.parametrize("name", ("requirements.lock", "pyproject.toml", "justfile"))
def test_no_file_names_a_package_registry(name: str) -> None:
    text = (ROOT / name).read_text()
    assert "://" not in text
    assert not re.search(r"\b(pypi|pythonhosted|index-url|find-links)\b", text)


def test_the_tests_run_on_the_locked_versions() -> None:
    for name, locked in pins(LOCK).items():
        try:
            installed = version(name)
        except PackageNotFoundError:
            continue  # a marker excludes it here
        assert installed == locked, f"{name}: run `uv sync` for the locked version"
