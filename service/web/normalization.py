"""Check whether the strings of a body, nested ones too, are stripped and without NUL."""

from typing import Any, get_args, get_type_hints

from msgspec import Struct


class Strings:
    """The string fields of a Struct and of the Structs nested in it."""

    def __init__(self, struct: type[Struct]) -> None:
        hints = get_type_hints(struct)
        self._names = tuple(name for name, kind in hints.items() if str in (kind, *get_args(kind)))
        self._nested = tuple(
            (name, Strings(part)) for name, kind in hints.items() for part in structs_of(kind)
        )

    def are_normal(self, value: Struct) -> bool:
        """Return whether every string is stripped and has no NUL."""
        for name in self._names:
            text = getattr(value, name)
            if isinstance(text, str) and (text.strip() != text or "\0" in text):
                return False
        for name, strings in self._nested:
            part = getattr(value, name)
            for one in part if isinstance(part, list) else (part,):
                if not strings.are_normal(one):
                    return False
        return True


def structs_of(kind: Any) -> list[type[Struct]]:
    """Return the Struct of a field, or of the elements of its list; else an empty list."""
    if isinstance(kind, type) and issubclass(kind, Struct):
        return [kind]
    return [struct for part in get_args(kind) for struct in structs_of(part)]
