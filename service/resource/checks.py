"""Check a declaration; each message names the resource and the place, and says what to write."""

import re
from collections.abc import Collection, Iterable, Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct, structs

from service.db.schema import ACTIVE
from service.db.statement import RefusedError
from service.resource.fields import Field
from service.web.codec import parse_number
from service.web.normalization import check

if TYPE_CHECKING:
    from service.resource.declaration import Resource

RANGES = (int, float, Decimal, datetime, date)
# Columns that statements add to those of a row.
OWN_COLUMNS = {"id", "sort_key", "total"}
# Rows of a child that each parent may show: as many as a page has at most.
MAX_NEWEST = 100


def check_names(name: str, path: str) -> None:
    """Check the name and the path of a resource.

    Raises:
        RefusedError: the name can't name a table, or the path is not valid.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise RefusedError(
            f"{name!r} can't be the name of a resource: use a-z, 0-9 and _, such as order_lines"
        )
    if not re.fullmatch(r"(/[A-Za-z0-9_.~-]+)+", path):
        raise RefusedError(f"{name}: the path {path!r} must be like /v1/{name.replace('_', '-')}")


def check_struct(name: str, new: type[Struct], given: Mapping[str, Field]) -> None:
    """Check the Struct that a client sends.

    Raises:
        RefusedError: it has no fields, or options or types that can't be served.
    """
    where = f"{name}: {new.__name__}"
    if not given:
        raise RefusedError(f"{where} has no fields")
    config = new.__struct_config__
    for option in ("array_like", "frozen"):
        if getattr(config, option):
            raise RefusedError(f"{where} can't be {option}: leave out {option}=True")
    if config.tag is not None:
        raise RefusedError(f"{where} can't have a tag: leave out `tag`")
    for one in structs.fields(new):
        if one.encode_name != one.name:
            raise RefusedError(
                f"{where}.{one.name} is renamed to {one.encode_name!r}: a field must have the same"
                " name in JSON and in the table"
            )
    try:
        msgspec.json.Decoder(new, dec_hook=parse_number)
    except TypeError as error:
        raise RefusedError(f"{where}: {error}") from None
    for field in given.values():
        _check_field(where, field)


def _check_field(where: str, field: Field) -> None:
    if field.name in OWN_COLUMNS:
        raise RefusedError(
            f"{where}.{field.name}: lists already have a column of this name; use another name"
        )
    if not all(isinstance(value, str) for value in field.choices):
        raise RefusedError(f"{where}.{field.name}: all values of a Literal must be strings")
    if field.name == ACTIVE and (field.kind is not bool or field.null):
        raise RefusedError(f"{where}.{ACTIVE} must be `bool`: a soft delete sets it to false")
    try:
        check(field.default)
    except ValueError as error:
        raise RefusedError(f"{where}.{field.name}: the default {error}") from None


def check_stamps(name: str, given: Mapping[str, Field], stamps: Iterable[str]) -> None:
    """Check that no field has the name of a column that the database sets.

    Raises:
        RefusedError: a field has such a name.
    """
    for stamp in stamps:
        if stamp in given:
            option = "versioned" if stamp == "version" else "stamped"
            raise RefusedError(
                f"{name}: the table already has a column {stamp!r}; give the field another name, or"
                f" set {option}=False"
            )


def check_uses(of: "Resource[Any]", sorts: Collection[str], kept: Collection[str]) -> None:
    """Check the arguments that name fields.

    Raises:
        RefusedError: a field does not exist, or its type is wrong for the argument.
    """
    name, given = of.name, of.fields
    for argument, names in {
        "key": [of.key] if of.key else [],
        "unique": of.unique,
        "folded": of.folded,
        "search": of.search,
        "references": of.references,
        "sorts": [one for one in sorts if one not in kept],
        "filters": [one if one in given else _bounded(one) for one in of.filters],
    }.items():
        for one in names:
            if one not in given:
                known = ", ".join(given)
                raise RefusedError(f"{name}: {one!r} is not a field; the fields are: {known}")
            field = given[one]
            text = argument in {"key", "folded", "search"}
            if text and (field.kind is not str or field.choices):
                raise RefusedError(f"{name}: {one!r} in `{argument}` must be a string field")
    for one in of.filters:
        if one not in given and (given[_bounded(one)].kind not in RANGES):
            raise RefusedError(
                f"{name}: the filter {one!r} needs a number or time field: filter by"
                f" {_bounded(one)!r}"
            )
    _check_parents(of)


def _check_parents(of: "Resource[Any]") -> None:
    name, given = of.name, of.fields
    for one, parent in of.references.items():
        if not hasattr(parent, "table"):
            raise RefusedError(f"{name}: references[{one!r}] must be a Resource")
        if given[one].kind is not int:
            raise RefusedError(f"{name}: {one!r} in `references` must be a field of type ID")
    for one in of.under:
        if one not in of.references:
            raise RefusedError(f"{name}: {one!r} in `under` must be in `references` too")
        if one not in of.filters:
            raise RefusedError(f"{name}: {one!r} in `under` must be in `filters` too")
    if not 0 <= of.newest <= MAX_NEWEST:
        raise RefusedError(f"{name}: `newest` must be 0 to {MAX_NEWEST}")
    for one in of.include:
        if f"{one}_id" not in of.references:
            raise RefusedError(f"{name}: include[{one!r}] needs {one + '_id'!r} in `references`")


def sequence(name: str, argument: str, given: Collection[str]) -> tuple[str, ...]:
    """Return the names in an argument.

    Raises:
        RefusedError: the argument is a string instead of a sequence.
    """
    if isinstance(given, str):
        raise RefusedError(f'{name}: {argument} must be a tuple: {argument}=("{given}",)')
    return tuple(given)


def _bounded(filter_: str) -> str:
    return filter_[4:] if filter_.startswith(("min_", "max_")) else filter_
