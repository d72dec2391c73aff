"""The strings of a body, however deep: whether they are stripped, and free of NUL."""

from typing import Any, get_args, get_type_hints

from msgspec import Struct


class Texts:
    """Where the strings of a Struct are: in its own fields, and in the Structs within it."""

    def __init__(self, struct: type[Struct]) -> None:
        hints = get_type_hints(struct)
        self._names = tuple(name for name, kind in hints.items() if str in (kind, *get_args(kind)))
        self._within = tuple(
            (name, Texts(part)) for name, kind in hints.items() for part in structs_of(kind)
        )

    def plain(self, value: Struct) -> bool:
        """Whether they can stay as they are."""
        for name in self._names:
            text = getattr(value, name)
            if isinstance(text, str) and (text.strip() != text or "\0" in text):
                return False
        for name, texts in self._within:
            part = getattr(value, name)
            for one in part if isinstance(part, list) else (part,):
                if not texts.plain(one):
                    return False
        return True


def structs_of(kind: Any) -> list[type[Struct]]:
    """The Struct that a field is, or that its list is of; none where it is neither."""
    if isinstance(kind, type) and issubclass(kind, Struct):
        return [kind]
    return [struct for part in get_args(kind) for struct in structs_of(part)]
