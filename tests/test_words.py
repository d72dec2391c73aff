"""Names and phrases that must not come back: the project has one plain vocabulary.

The names belong to an earlier version of the code, which used private words in place of the usual
ones. The phrases are hard to read for people who have learned English as a second language.
CONTRIBUTING.md describes the style.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

from conftest import ROOT

# Old identifiers, and the words that replace them.
NAMES = {
    "Lane": "Batcher",
    "Coalesce": "BatchLoader",
    "Apart": "DedicatedConnection",
    "Spoiled": "RejectedRow",
    "keyless": "without_key",
    "in_the_way": "conflict_locators or conflicting_rows",
    "Epochs": "generations",
    "Facets": "cache tags",
    "unsure": "outcome_unknown",
    "unsaid": "pending",
    "recall": "get_or_load",
    "TOLD": "MAX_REPORTED",
    "Exchange": "RequestCycle",
    "deaf": "discarding",
    "WHOLE_BODY": "full_body",
    "Site": "DataDirectory",
    "_outlive": "wait_for_predecessor",
}
# Old phrases as patterns, and what to write.
PHRASES = {
    r"\b(to|can|can't|cannot|could) be had\b": "is available, can't be bound, can't be loaded",
    r"\bgoes over\b|\bwent over\b": "is written, is moved, is merged",
    r"\bwhoever\b|\bwho asks\b": "the client, any process, every request",
    r"\bwhat stands\b|\bwho stands\b|\bstands in the way\b": "the current state, conflicts with",
    r"\bnobody('s)?\b|\bsomebody('s)?\b": "no client, no process, another user",
    r"\bmeanwhile\b": "during, at the same time",
    r"\bin vain\b": "without success, a miss",
    r"\bfor ever\b": "without an end",
    r"\blet alone\b": "and not",
    r"\b(is|are|was|were) told of\b|\btells of\b": "is reported, reports",
    r"\banew\b": "again",
}
# `nobody` is also a user of the operating system: in backticks, or after "as" and "user".
SYSTEM_USER = re.compile(r"(`|'|\"|\bas |\buser )nobody\b")

FOLDERS = ("service", "tests", "bench", "docs", "examples")
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
FILES = sorted(
    path
    for folder in FOLDERS
    for path in (ROOT / folder).rglob("*")
    if path.suffix in {".py", ".md"} and path != Path(__file__) and "node_modules" not in path.parts
) + [ROOT / page for page in PAGES]


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text is not None:
                yield node.body[0].lineno, text


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Yield comments, docstrings and test names of a module, or lines of a page, with numbers."""
    source = path.read_text()
    if path.suffix == ".md":
        yield from enumerate(source.split("\n"), 1)
        return
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
        elif token.type == tokenize.NAME and token.string.startswith("test_"):
            yield token.start[0], token.string.replace("_", " ")
    yield from docstrings(ast.parse(source))


def test_prose_is_plain_english() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {match[0]!r} is hard to read; use for example: {plain}"
        for path in FILES
        for line, text in prose(path)
        for pattern, plain in PHRASES.items()
        for match in re.finditer(pattern, SYSTEM_USER.sub("", text), re.IGNORECASE)
    ]
    assert not found, "\n".join(found)


def test_old_names_are_not_used() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{token.start[0]}: {token.string} is an old private word;"
        f" the usual one is {NAMES[token.string]}"
        for path in FILES
        if path.suffix == ".py"
        for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
        if token.type == tokenize.NAME and token.string in NAMES
    ]
    assert not found, "\n".join(found)
