"""The parameter `include`: a comma-separated list of what a response has beside its rows."""

from collections.abc import Sequence
from typing import Any, ClassVar, Self


class Include(tuple[str, ...]):
    """What to add to each row, separated by commas."""

    __slots__ = ()
    ALLOWED: ClassVar[tuple[str, ...]] = ()
    SCHEMA: ClassVar[dict[str, Any]] = {}

    @classmethod
    def parse_text(cls, text: str) -> Self:
        """Return the names in the value of the parameter; `codec.Query` calls this.

        Raises:
            ValueError: a name is unknown, or is there twice.
        """
        names = text.split(",", len(cls.ALLOWED))
        if len(set(names)) < len(names) or not set(names) <= set(cls.ALLOWED):
            allowed = ", ".join(cls.ALLOWED)
            if len(cls.ALLOWED) == 1:
                raise ValueError(f"must be {allowed}")
            raise ValueError(f"must be one or more of {allowed}, each once, separated by commas")
        return cls(names)


def include_of(title: str, names: Sequence[str]) -> type[Include]:
    """Return the type of a parameter with these names; `title` names it in generated clients."""
    return type(
        "Include",
        (Include,),
        {
            "__doc__": Include.__doc__,
            "__slots__": (),
            "ALLOWED": tuple(names),
            "SCHEMA": {
                "type": "array",
                "items": {"title": title, "enum": list(names)},
                "minItems": 1,
                "uniqueItems": True,
            },
        },
    )
