"""Statements in the log while an operator looks for a fault: SERVICE_LOG_STATEMENTS."""

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from service.logs import logger

if TYPE_CHECKING:
    from service.db.statement import Statement

# After the name of a statement: show its values too.
VALUES = "+values"
# Arguments that are never shown, by their names.
HIDDEN = re.compile("secret|hash|token|password")
# Characters of a value; a statement for many rows has long arrays.
LONGEST = 200


class ShownStatements:
    """Which statements are logged, each time that one runs.

    Args:
        setting: `on`, or names with commas between them. `*` in a name is any text. A name that
            ends with `+values` has no `*`: values may be personal data, so they are asked for by
            the exact name.
    """

    def __init__(self, setting: str) -> None:
        names = ["*"] if setting == "on" else setting.split(",")
        self.with_values = {one.removesuffix(VALUES) for one in names if one.endswith(VALUES)}
        patterns = (re.escape(one.removesuffix(VALUES)).replace(r"\*", ".*") for one in names)
        self._names = re.compile("|".join(patterns))
        self._found: dict[str, bool] = {}

    @classmethod
    def of(cls, setting: str) -> "ShownStatements | None":
        """Return what a setting says; None if nothing is shown."""
        return None if setting == "off" else cls(setting)

    def log(
        self,
        statement: "Statement[Any]",
        args: Sequence[object],
        seconds: float,
        rows: int,
        error: BaseException | None = None,
    ) -> None:
        """Log a statement, if it is to be shown.

        Args:
            statement: that ran.
            args: its arguments.
            seconds: on its connection.
            rows: number of records.
            error: why it failed.
        """
        name = statement.name
        if name not in self._found and len(self._found) < 1000:
            self._found[name] = self._names.fullmatch(name) is not None
        if not self._found.get(name, False):
            return
        fields: dict[str, object] = {"statement": name, "rows": rows, "seconds": round(seconds, 6)}
        if error is not None:
            fields["error"] = type(error).__name__
        if name in self.with_values:
            fields["values"] = dict(_values(statement, args))
        logger.info("statement", extra={"fields": fields})


def _values(statement: "Statement[Any]", args: Sequence[object]) -> Iterator[tuple[str, str]]:
    for name, value in zip(statement.names, args, strict=False):
        text = "(hidden)" if HIDDEN.search(name) else repr(value)
        yield name, text if len(text) <= LONGEST else text[:LONGEST] + "…"
