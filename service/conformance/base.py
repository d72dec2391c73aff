"""The base class of all tests: it loads the application and starts the server."""

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, ClassVar, TypeVar

import pytest

from service.conformance.served import Served, serving
from service.resource import Resource
from service.server.loading import load

Test = TypeVar("Test", bound=Callable[..., None])
Condition = Callable[[Resource[Any]], bool]


def where(*operations: str, also: Condition = lambda _: True) -> Callable[[Test], Test]:
    """Run a test for resources that serve all these operations and meet a condition.

    The test skips a resource that replaces one of them by its own handler.
    """

    def meets(of: Resource[Any]) -> bool:
        ours = (of.serves(name) and name not in of.handlers for name in operations)
        return all(ours) and also(of)

    def mark(test: Test) -> Test:
        vars(test)["condition"] = meets
        return test

    return mark


def versioned(of: Resource[Any]) -> bool:
    """Whether its rows have an ETag."""
    return of.version is not None


@cache
def resources(app: str) -> tuple[Resource[Any], ...]:
    """Return the resources of an application."""
    return load(app).resources


class Base:
    """Tests for each resource of an application.

    Set `app` to `MODULE:NAME`, and `environ` to settings of the server, such as
    `DATABASE_URL`.
    """

    app: ClassVar[str]
    environ: ClassVar[Mapping[str, str]] = {}

    @pytest.fixture(scope="class")
    @classmethod
    def served(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
        """Serve the application on its own stores."""
        with serving(cls.app, tmp_path_factory.mktemp("conformance"), **cls.environ) as one:
            yield one

    @classmethod
    def pytest_generate_tests(cls, metafunc: pytest.Metafunc) -> None:
        """Parametrize each test with the resources that meet its condition."""
        if "of" in metafunc.fixturenames:
            condition = getattr(metafunc.function, "condition", lambda _: True)
            found = [one for one in resources(cls.app) if condition(one)]
            metafunc.parametrize("of", found, ids=[one.name for one in found])
