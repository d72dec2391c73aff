# Every recipe works from a fresh clone: uv makes the environment. Without `just`: `uv run just`.

# List the recipes
default:
    @{{ just_executable() }} --list --unsorted

# Serve on embedded stores; options go on to `swiftlet serve`
run *options:
    uv run swiftlet serve {{ options }}

# The same under granian
serve-granian *options:
    uv run swiftlet serve --server granian {{ options }}

# Run the tests; arguments go on to pytest
test *arguments:
    uv run pytest {{ arguments }}

# Lint, and see that everything is formatted
lint:
    uv run ruff check
    uv run ruff format --check

# Check the types, those of the programs that the benchmark compares with too
types:
    uv run --group bench mypy

# Look for insecure calls; `just audit` looks for vulnerable packages
bandit:
    uv run bandit --quiet --configfile pyproject.toml --recursive service examples sql

# Ask for published vulnerabilities of the locked packages, where there is a network
audit:
    uv run python tests/audit.py

# All checks of schemathesis, without keys and with; options go on, as in `--max-examples 200`
schemathesis *options:
    uv run python tests/schemathesis/run.py {{ options }}

# Lint, types and tests
check: lint types test

# Renew the listing of all statements
sql:
    uv run swiftlet statements > sql/statements.sql

# Renew docs/reference from the settings and the help texts
docs:
    uv run python tests/references.py

# Take the OpenAPI document of today as the released one, with which later ones are compared
openapi-release:
    uv run swiftlet openapi --complete docs/reference/openapi.json

# Lint the OpenAPI documents with spectral and redocly, and try the generated clients (npm)
openapi-lint:
    uv run pytest -m '' -n 0 tests/test_clients.py

# Show the plan of a named statement, as in `just explain items.by_id --analyze`
explain name *options:
    uv run swiftlet explain {{ quote(name) }} {{ options }}

# Measure everyone, for about 35 minutes; `just bench quick` for 6; options go on
bench *options:
    uv run --group bench python -m bench measure {{ replace_regex(options, '^quick\b', '--quick') }}

# Hold a result to bench/budgets.toml; without FILE measure what it compares, for 4 minutes
bench-check *file:
    uv run --group bench python -m bench check {{ file }}

# Draw a result as a page, as in `just bench-report bench/results/2026-11-21-full.json page.html`
bench-report file html:
    uv run --group bench python -m bench report {{ quote(file) }} {{ quote(html) }}

# What the cache promises, under load: delays between two workers, broken promises, memory
bench-promises *options:
    uv run --group bench python -m bench promises {{ options }}

# The fault run of the feed of changes: what is lost, or comes twice
bench-feed *options:
    uv run --group bench python -m bench feed {{ options }}

# The load of the Rinha de Backend 2023-Q3 on examples/rinha, with 1.5 CPUs, as in `just bench-rinha --ramp 20`
bench-rinha *options:
    uv run --group bench python -m bench rinha {{ options }}

# Files of a million items in and out, against psql; upserts; memory, and what others notice
bench-files *options:
    uv run --group bench python -m bench files {{ options }}

# Our service against itself with one thing changed, as in `just bench-trials server totals`
bench-trials *names:
    uv run --group bench python -m bench trials {{ names }}

# The tables of README.md and docs/performance.md, from the newest committed full result
bench-table:
    @uv run --group bench python -m bench table

# Take the newest versions: renews requirements.lock, and the constraints in pyproject.toml
lock:
    #!/usr/bin/env -S uv run --no-project python
    import pathlib, re, subprocess, tempfile

    project, lock = pathlib.Path("pyproject.toml"), pathlib.Path("requirements.lock")
    block = re.compile(r"(?<=^constraint-dependencies = \[\n).*?(?=^\])", re.DOTALL | re.MULTILINE)
    text = project.read_text()

    def export(*options: str) -> str:
        command = ["uv", "export", "--quiet", "--project", place, "--no-header", "--no-annotate"]
        command += ["--no-emit-project", "--format", "requirements-txt", *options]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    # In a place apart, where the constraints of today hold nothing back.
    with tempfile.TemporaryDirectory() as place:
        pathlib.Path(place, project).write_text(block.sub("", text, count=1))
        subprocess.run(["uv", "lock", "--quiet", "--project", place], check=True)
        hashed, exact = export("--no-dev"), export("--all-groups", "--no-hashes")
    lock.write_text(f"# For `pip install --require-hashes -r`. Renewed by `just lock`.\n{hashed}")
    lines = "".join(f'    "{line.strip()}",\n' for line in exact.splitlines())
    project.write_text(block.sub(lambda _: lines, text, count=1))
