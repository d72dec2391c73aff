"""Errors of the database as a whole: logged once, however many requests meet them."""

from time import monotonic

import asyncpg

from service.logs import logger

# The same error is logged again after this long.
AGAIN_SECONDS = 60.0


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


class Seldom:
    """Errors that may come with every request: each is logged once a minute."""

    def __init__(self) -> None:
        self._logged: dict[str, float] = {}

    def log(self, message: str, error: BaseException, **fields: str) -> None:
        """Log the error, unless the same one was logged less than AGAIN_SECONDS ago."""
        text, now = cause(error), monotonic()
        if now - self._logged.get(text, -AGAIN_SECONDS) < AGAIN_SECONDS:
            return
        if len(self._logged) >= 100:
            self._logged.clear()
        self._logged[text] = now
        logger.error(message, extra={"fields": {**fields, "error": text}})


def cause(error: BaseException) -> str:
    """The error for the log: its class, and its text if that can't contain a part of a URL."""
    name = type(error).__name__
    if isinstance(error, (asyncpg.PostgresError, OSError)) and str(error):
        return f"{name}: {str(error).splitlines()[0]}"
    return name
