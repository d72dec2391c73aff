"""States of the database as a whole: logged once, however many requests meet them."""

import asyncpg

from service.logs import logger


class Condition:
    """A state of the database that lasts; one log line when it begins and one when it ends.

    Args:
        began: the line when it begins.
        ended: the line when it ends.
    """

    __slots__ = ("active", "began", "ended")

    def __init__(self, began: str, ended: str) -> None:
        self.active = False
        self.began = began
        self.ended = ended

    def begin(self, error: BaseException | None = None) -> None:
        """The state begins, if it has not; `error` is how we know."""
        if not self.active:
            self.active = True
            fields = {} if error is None else {"error": cause(error)}
            logger.error(self.began, extra={"fields": fields})

    def end(self) -> bool:
        """The state ends; returns whether it was active until now."""
        was = self.active
        if was:
            self.active = False
            logger.info(self.ended)
        return was


def cause(error: BaseException) -> str:
    """The error for the log: its class, and its text if that can't contain a part of a URL."""
    name = type(error).__name__
    if isinstance(error, (asyncpg.PostgresError, OSError)) and str(error):
        return f"{name}: {str(error).splitlines()[0]}"
    return name
