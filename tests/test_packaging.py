"""Checks of the image, compose.yaml and the wheel that need no container engine."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from conftest import HEAD, ROOT

from service.server import DRAIN_SECONDS

Services = dict[str, dict[str, Any]]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
# Parsed like the engine does: without comments, with continuation lines joined.
INSTRUCTIONS = re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE).replace("\\\n", " ")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    parsed: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return parsed


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> Services:
    found: Services = compose["services"]
    assert found.keys() == {"service", "postgres", "redis"}
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("no uv here to build the wheel with")
    place = tmp_path_factory.mktemp("wheel")
    subprocess.run([uv, "build", "--quiet", "--wheel", "--out-dir", place], cwd=ROOT, check=True)
    return zipfile.ZipFile(next(place.glob("*.whl")))


def seconds(duration: str) -> int:
    found = re.fullmatch(r"(\d+)s", duration)
    assert found, duration
    return int(found[1])


def test_every_service_has_a_health_check_that_others_wait_for(services: Services) -> None:
    assert "\nHEALTHCHECK " in INSTRUCTIONS, "the image has the health check of the service"
    for name in ("postgres", "redis"):
        assert services[name]["healthcheck"]["test"][0] == "CMD"
        assert services["service"]["depends_on"][name] == {"condition": "service_healthy"}


def test_no_service_is_root_or_can_become_root(services: Services) -> None:
    for name, service in services.items():
        uid, _, gid = service["user"].partition(":")
        assert int(uid) > 0, name
        assert int(gid) > 0, name
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "privileged" not in service, name


def test_every_store_has_a_pinned_major_version(services: Services) -> None:
    assert services["postgres"]["image"] == "postgres:17"
    assert services["redis"]["image"] == "redis:7"


def test_only_this_machine_reaches_the_service_and_no_port_leads_to_the_stores(
    services: Services,
) -> None:
    assert services["service"]["ports"] == ["127.0.0.1:8000:8000"]
    for name in ("postgres", "redis"):
        assert "ports" not in services[name]
        assert "network_mode" not in services[name]


def test_compose_says_why_there_is_no_authentication(
    services: Services,
) -> None:
    # Without quotes, YAML would parse a boolean.
    assert services["service"]["environment"]["SERVICE_AUTH"] == "off"
    before, _, _ = (ROOT / "compose.yaml").read_text().partition("SERVICE_AUTH:")
    assert before.splitlines()[-2].lstrip().startswith("#")
    assert "SERVICE_AUTH" not in INSTRUCTIONS


def test_the_database_is_migrated_before_the_service_starts(services: Services) -> None:
    command = services["service"]["command"]
    assert command == 'sh -c "swiftlet migrate up && exec swiftlet serve --host 0.0.0.0"'


def test_the_stop_timeout_of_the_engine_is_longer_than_the_drain(services: Services) -> None:
    assert seconds(services["service"]["stop_grace_period"]) > DRAIN_SECONDS


def test_what_must_last_is_on_volumes(compose: dict[str, Any], services: Services) -> None:
    assert services["postgres"]["volumes"] == ["postgres:/var/lib/postgresql/data"]
    assert services["service"]["volumes"] == ["data:/data"]
    assert "ENV SERVICE_DATA=/data\n" in INSTRUCTIONS
    assert "--owner=10001 --group=10001 --mode=0700 /data\n" in INSTRUCTIONS
    assert compose["volumes"].keys() == {"data", "postgres"}


def test_passwords_are_defaults_that_the_environment_overrides(services: Services) -> None:
    password = services["postgres"]["environment"]["POSTGRES_PASSWORD"]
    assert re.fullmatch(r"\$\{POSTGRES_PASSWORD:-\w+\}", password)
    assert f":{password}@postgres:" in services["service"]["environment"]["DATABASE_URL"]


def test_docker_compose_accepts_the_file() -> None:
    docker = shutil.which("docker")
    if (
        docker is None
        or subprocess.run(
            [docker, "compose", "version"], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("no docker compose here")
    told = subprocess.run(
        [docker, "compose", "config", "--quiet"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stderr


def test_the_image_installs_the_tested_versions_and_runs_without_root() -> None:
    build, final = re.findall(r"^FROM .+?(?=^FROM |\Z)", INSTRUCTIONS, re.MULTILINE | re.DOTALL)
    for stage in (build, final):
        assert re.match(r"FROM python:3\.\d+-slim\b", stage)
    assert re.search(
        r"^RUN pip install --require-hashes .*-r requirements\.lock$", build, re.MULTILINE
    )
    assert re.search(r"^RUN pip install --no-deps \.$", build, re.MULTILINE)
    assert "pip install" not in final
    found = re.search(r"^USER (\d+):\d+$", final, re.MULTILINE)
    assert found
    assert int(found[1]) > 0
    assert f"--uid {found[1]} " in final
    assert "\nEXPOSE 8000\n" in final
    assert "/health/ready" in final
    assert '\nCMD ["swiftlet", "serve", "--host", "0.0.0.0"]\n' in final


def test_the_health_check_of_the_image_is_a_program_that_runs() -> None:
    found = re.search(
        r'^HEALTHCHECK .*\bCMD \["python", "-c", "(.+)"\]$', INSTRUCTIONS, re.MULTILINE
    )
    assert found
    # Usually nothing answers on that port, and the exit code shows it.
    program = found[1].replace(":8000/", ":1/")
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert told.returncode == 1
    assert "Connection refused" in told.stderr


def test_the_dockerignore_excludes_nothing_that_the_image_copies() -> None:
    allowed = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copied = {
        source
        for words in re.findall(r"^COPY (?!--from)(.+) \S+$", INSTRUCTIONS, re.MULTILINE)
        for source in words.split()
    }
    assert copied == allowed
    assert all((ROOT / source).exists() for source in copied)


def test_the_wheel_contains_the_service_and_its_migrations(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    for migration in (ROOT / "sql/migrations").glob("*.py"):
        assert f"service/sql/migrations/{migration.name}" in names
    assert any(name.startswith("service/sql/migrations/0001") for name in names)
    for module in (ROOT / "service").rglob("*.py"):
        assert module.relative_to(ROOT).as_posix() in names
    for file in (ROOT / "service" / "web" / "pages").rglob("*"):
        if file.suffix in {".css", ".html", ".js", ".svg"}:
            assert file.relative_to(ROOT).as_posix() in names
    assert "service/py.typed" in names, "mypy reads the types of an application's imports"
    strangers = {name for name in names if not name.startswith(("service/", "swiftlet-"))}
    assert strangers == set()


@pytest.mark.slow
def test_the_wheel_migrates_without_a_checkout(
    wheel: zipfile.ZipFile, tmp_path: Path, new_database: Callable[[], str]
) -> None:
    wheel.extractall(tmp_path)
    url = new_database()
    for action, answer in (
        ("up", ""),
        ("status", f"revision {HEAD}, newest {HEAD}\n"),
        ("check", "the database, the migrations and the tables in code agree\n"),
    ):
        told = subprocess.run(
            [sys.executable, "-m", "service", "migrate", action],
            cwd=tmp_path,
            env=os.environ | {"DATABASE_URL": url},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (told.returncode, told.stderr) == (0, "")
        assert answer in told.stdout


def test_the_github_workflow_runs_the_ci_script() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    (job,) = workflow["jobs"].values()
    assert job["container"] == "debian:12", "as the first lines of .ci/run say"
    assert job["steps"][-1]["run"] == ".ci/run"
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
