"""Read the file `.env`: lines of `NAME=value`, parsed like a shell does."""

import re
from pathlib import Path

NAME = re.compile(r"(?:export\s+)?([^\s=#'\"]+)\s*=")
DOUBLE_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
SINGLE_QUOTED = re.compile(r"'([^']*)'")
ESCAPE = re.compile(r'\\(["\\$`])')
# Only a "#" after a space begins a comment, because a password may contain one.
COMMENT = re.compile(r"(?<=\s)#.*$")


class DotenvError(Exception):
    """A line of a file is wrong; the message does not show it, because it may have a password."""


def read_dotenv(path: Path) -> dict[str, str]:
    """Return the variables of a file, none without a file; the last one of a name counts.

    In a quoted value # and spaces are text; in double quotes a backslash escapes " $ ` and itself.
    A value has one line. $NAME is not expanded.

    Raises:
        DotenvError: the file can't be read, or a line is not NAME=value.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise DotenvError(f"{path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DotenvError(f"{path} can't be read: it is not UTF-8") from None
    values: dict[str, str] = {}
    for number, line in enumerate(re.split("\r\n|\n|\r", text), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        try:
            name, value = _assignment(stripped)
        except ValueError as error:
            raise DotenvError(f"{path}, line {number}: {error}") from None
        values[name] = value
    return values


def _assignment(line: str) -> tuple[str, str]:
    found = NAME.match(line)
    if found is None:
        raise ValueError("expected NAME=value")
    if "\0" in line:
        raise ValueError("there is a NUL character")
    name, rest = found[1], line[found.end() :]
    value = rest.lstrip()
    if value[:1] not in {'"', "'"}:
        return name, COMMENT.sub("", rest).strip()
    quoted = (DOUBLE_QUOTED if value[0] == '"' else SINGLE_QUOTED).match(value)
    if quoted is None:
        raise ValueError(f"the closing {value[0]} is missing")
    if COMMENT.sub("", value[quoted.end() :]).strip():
        raise ValueError(f"there is text after the closing {value[0]}")
    return name, ESCAPE.sub(r"\1", quoted[1]) if value[0] == '"' else quoted[1]
