"""Sample data of an application, for `swiftlet seed`."""

from collections.abc import Callable, Mapping
from typing import Protocol


class Seed(Protocol):
    """Sample data, for `swiftlet seed`. `rows` has the default number of rows for each table."""

    @property
    def rows(self) -> Mapping[str, int]: ...

    async def write(
        self, url: str, rows: Mapping[str, int], progress: Callable[[str, int], None]
    ) -> Mapping[str, int]:
        """Write a number of rows of each table, and return how many of them are new.

        `progress` is called with a table and the number of its rows written so far.
        """
