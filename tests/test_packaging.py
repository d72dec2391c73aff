"""The image, compose.yaml and the wheel: what can be seen of them without a container engine."""

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
# As the engine reads it: without comments, a line that ends in a backslash goes on.
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


def test_every_service_tells_its_health_and_is_waited_for(services: Services) -> None:
    assert "\nHEALTHCHECK " in INSTRUCTIONS, "the service's own is in its image"
    for name in ("postgres", "redis"):
        assert services[name]["healthcheck"]["test"][0] == "CMD"
        assert services["service"]["depends_on"][name] == {"condition": "service_healthy"}


def test_no_service_is_root_or_may_become_it(services: Services) -> None:
    for name, service in services.items():
        uid, _, gid = service["user"].partition(":")
        assert int(uid) > 0, name
        assert int(gid) > 0, name
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "privileged" not in service, name


def test_the_stores_have_a_major_version_each(services: Services) -> None:
    assert services["postgres"]["image"] == "postgres:17"
    assert services["redis"]["image"] == "redis:7"


def test_only_this_machine_reaches_the_service_and_nobody_the_stores(services: Services) -> None:
    assert services["service"]["ports"] == ["127.0.0.1:8000:8000"]
    for name in ("postgres", "redis"):
        assert "ports" not in services[name]
        assert "network_mode" not in services[name]


def test_that_nobody_is_asked_for_a_key_is_said_in_compose_with_a_reason(
    services: Services,
) -> None:
    # Unquoted, YAML would read a boolean.
    assert services["service"]["environment"]["SERVICE_AUTH"] == "off"
    before, _, _ = (ROOT / "compose.yaml").read_text().partition("SERVICE_AUTH:")
    assert before.splitlines()[-2].lstrip().startswith("#")
    assert "SERVICE_AUTH" not in INSTRUCTIONS


def test_the_database_is_migrated_before_the_service_takes_its_place(services: Services) -> None:
    command = services["service"]["command"]
    assert command == 'sh -c "swiftlet migrate up && exec swiftlet serve --host 0.0.0.0"'


def test_what_is_under_way_may_finish_before_the_engine_kills(services: Services) -> None:
    assert seconds(services["service"]["stop_grace_period"]) > DRAIN_SECONDS


def test_the_database_is_on_a_volume(compose: dict[str, Any], services: Services) -> None:
    assert services["postgres"]["volumes"] == ["postgres:/var/lib/postgresql/data"]
    assert compose["volumes"].keys() == {"postgres"}


def test_a_password_is_a_default_that_the_environment_replaces(services: Services) -> None:
    password = services["postgres"]["environment"]["POSTGRES_PASSWORD"]
    assert re.fullmatch(r"\$\{POSTGRES_PASSWORD:-\w+\}", password)
    assert f":{password}@postgres:" in services["service"]["environment"]["DATABASE_URL"]


def test_compose_itself_accepts_the_file() -> None:
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


def test_the_image_installs_what_was_tested_and_runs_as_nobody_special() -> None:
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
    # Nothing answers there as a rule, and that it says by its exit code.
    program = found[1].replace(":8000/", ":1/")
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert told.returncode == 1
    assert "Connection refused" in told.stderr


def test_everything_the_image_copies_reaches_the_engine() -> None:
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


def test_the_wheel_holds_the_service_and_its_migrations(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    for migration in (ROOT / "sql/migrations").glob("*.py"):
        assert f"service/sql/migrations/{migration.name}" in names
    assert any(name.startswith("service/sql/migrations/0001") for name in names)
    for module in (ROOT / "service").rglob("*.py"):
        assert module.relative_to(ROOT).as_posix() in names
    assert "service/py.typed" in names, "mypy reads the types of an application's imports"
    strangers = {name for name in names if not name.startswith(("service/", "swiftlet-"))}
    assert strangers == set()


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


def test_github_runs_what_ci_runs() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    (job,) = workflow["jobs"].values()
    assert job["container"] == "debian:12", "as the first lines of .ci/run say"
    assert job["steps"][-1]["run"] == ".ci/run"
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
