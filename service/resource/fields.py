"""The fields of a Struct, for its table, queries and responses."""

from collections.abc import Iterable
from datetime import date, datetime
from decimal import Decimal
from types import NoneType
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints
from uuid import UUID

from msgspec import NODEFAULT, Meta, Struct, structs

from service.db.statement import RefusedError

ID = Annotated[int, Meta(ge=1, le=2**63 - 1)]
Time = Annotated[datetime, Meta(tz=True)]

# Types with a column; a subclass, such as your own price type, counts as its base.
# bool before int, because it is a subclass of int.
KINDS: tuple[type, ...] = (str, bool, int, float, Decimal, datetime, date, UUID)


class Field(NamedTuple):
    """A field of a Struct.

    Args:
        name: name of the field, the column and the bind.
        hint: the annotation.
        kind: the base type, one of KINDS.
        own: the annotated subclass of `kind`, or `kind` itself.
        null: whether it may be null.
        required: whether it has no default.
        default: the default, if it has one.
        meta: msgspec's rules and examples; an empty Meta without any.
        choices: the values of a Literal.
    """

    name: str
    hint: Any
    kind: type
    own: type
    null: bool
    required: bool
    default: Any
    meta: Meta
    choices: tuple[Any, ...] = ()

    @property
    def some(self) -> Any:
        """Return the annotation without null."""
        if not self.null:
            return self.hint
        if get_origin(self.hint) is Annotated:
            inner, *metas = get_args(self.hint)
            return Annotated[_without_null(inner), *metas]
        return _without_null(self.hint)

    @property
    def shown(self) -> Any:
        """Return the annotation in a response: without rules, which apply to input only."""
        if self.kind is datetime:
            plain: Any = Time
        elif self.choices:
            plain = self.some
        else:
            plain = self.kind
        return plain | None if self.null else plain


def fields(struct: type[Struct]) -> dict[str, Field]:
    """Return the fields of a Struct by name, in their order.

    Raises:
        RefusedError: a field has a type that no column can be made for.
    """
    hints = get_type_hints(struct, include_extras=True)
    return {one.name: _field(struct, one, hints[one.name]) for one in structs.fields(struct)}


def kind_of(struct: type[Struct], name: str, own: Any) -> type:
    """Return the base type of a type, one of KINDS.

    Raises:
        RefusedError: the type has no base in KINDS.
    """
    found = next((k for k in KINDS if isinstance(own, type) and issubclass(own, k)), None)
    if found is None:
        raise RefusedError(
            f"{struct.__name__}.{name} is {own}: use one of"
            f" {', '.join(kind.__name__ for kind in KINDS)}, or a subclass of one"
        )
    return found


def _field(struct: type[Struct], info: structs.FieldInfo, hint: Any) -> Field:
    inner, null, meta, choices = _parts(hint)
    kind = kind_of(struct, info.name, type(choices[0]) if choices else inner)
    return Field(
        name=info.name,
        hint=hint,
        kind=kind,
        own=inner if isinstance(inner, type) else kind,
        null=null,
        required=info.required,
        default=None if info.default is NODEFAULT else info.default,
        meta=meta or Meta(),
        choices=choices,
    )


def _parts(hint: Any) -> tuple[Any, bool, Meta | None, tuple[Any, ...]]:
    """Return the type of an annotation, whether it may be null, its Meta, and Literal values."""
    null, meta = False, None
    while True:
        if get_origin(hint) is Annotated:
            hint, *metas = get_args(hint)
            meta = meta or next((one for one in metas if isinstance(one, Meta)), None)
        elif get_origin(hint) is Literal:
            return hint, null, meta, get_args(hint)
        elif NoneType in get_args(hint):
            null = True
            hint = _without_null(hint)
        else:
            return hint, null, meta, ()


def _without_null(hint: Any) -> Any:
    parts: Iterable[Any] = (part for part in get_args(hint) if part is not NoneType)
    found: Any = None
    for part in parts:
        found = part if found is None else found | part
    return found
