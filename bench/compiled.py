"""Trial: what the modules that every request runs gain from mypyc and Cython.

Each compiler that is installed compiles them in copies of this checkout:
`uv run --group bench --with setuptools --with cython python -m bench trials compiled`.
It needs a C compiler. A folder that can't be compiled or imported then is told on stderr, and left
out. Not in the list are `web/cached.py`, since mypyc refuses classes with __slots__, and
`web/routing.py`, since Application inherits from a class of it.
"""

import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from bench.contestants import PYTHON, ROOT
from bench.inprocess import Inside, measured, table_of
from bench.stage import StagingTable

FOLDERS = {
    "http1": ("parser", "head", "headers", "request_cycle", "connection"),
    "web": ("hits", "prebuilt", "endpoint"),
    "db": ("batcher", "batch"),
    "cache": ("local", "generations"),
}
_SETUP = """
import sys
from setuptools import setup
{}
setup(name="compiled", packages=[], py_modules=[], ext_modules=made,
      script_args=["--quiet", "build_ext", "--inplace"])
"""
COMPILERS = {
    "mypyc": _SETUP.format(
        "from mypyc.build import mypycify\n"
        "made = mypycify(['--ignore-missing-imports', *sys.argv[1:]], opt_level='3')"
    ),
    # Annotations are for mypy: Cython's reading of them is stricter than Python's.
    "Cython": _SETUP.format(
        "from Cython.Build import cythonize\n"
        "made = cythonize(sys.argv[1:], language_level=3, quiet=True,\n"
        "                 compiler_directives={'annotation_typing': False})"
    ),
}


def table(on: StagingTable) -> str:
    """Return a table in Markdown: requests without sockets, by what is compiled."""
    with tempfile.TemporaryDirectory(prefix="compiled-") as place:
        variants = [Inside("Python", tree=_copy(Path(place, "python")))]
        for name, program in COMPILERS.items():
            if not find_spec("setuptools") or not find_spec(name):
                print(f"{name} or setuptools is not installed: left out", file=sys.stderr)
                continue
            whole = _copy(Path(place, name))
            for folder, modules in FOLDERS.items():
                tree = _copy(Path(place, f"{name}-{folder}"))
                paths = [f"service/{folder}/{module}.py" for module in modules]
                if _compile(f"{name}, {folder}", program, tree, paths):
                    variants.append(Inside(f"{name}, {folder}", tree=tree))
                    for made in tree.rglob("*.so"):
                        shutil.copy(made, whole / made.relative_to(tree))
            variants.append(Inside(f"{name}, all of these", tree=whole))
        found = measured(on, variants, ("hot", "read", "create"))
    return table_of("**What do compiled modules save?** (`compiled`)", found)


def _copy(tree: Path) -> Path:
    for folder in ("bench", "service", "sql"):
        shutil.copytree(ROOT / folder, tree / folder, ignore=shutil.ignore_patterns("node_modules"))
    return tree


def _compile(what: str, program: str, tree: Path, paths: list[str]) -> bool:
    done = subprocess.run(
        [PYTHON, "-c", program, *paths], cwd=tree, check=False, capture_output=True, text=True
    )
    shutil.rmtree(tree / "build", ignore_errors=True)
    if not done.returncode:
        done = subprocess.run(
            [PYTHON, "-c", "import service.asgi"],
            cwd=tree,
            check=False,
            capture_output=True,
            text=True,
        )
    if done.returncode:
        print(f"{what}: left out:\n{(done.stdout + done.stderr)[-2000:]}", file=sys.stderr)
    return not done.returncode
