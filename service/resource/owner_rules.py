"""What a principal that is not an admin may read and write of a resource.

Whose row it is, is decided by the statements: the owner is part of their WHERE, see
db/ownership.py. The rules here are about values of a request, before a statement runs.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import UNSET, Struct, UnsetType, defstruct

from service.db.ownership import Owner
from service.db.statement import RefusedError
from service.errors import FieldError, Forbidden
from service.resource.fields import Field
from service.web.request import Request

if TYPE_CHECKING:
    from service.resource.declaration import Resource

ANOTHER = "only an admin can set another user"
ADMIN_ONLY = "only an admin can set this"


class OwnerRules:
    """The rules of one resource. All of them are for a principal with `Request.owner`.

    Args:
        of: the resource.
        owner: the field with the owner of a row; None if its rows have no owner.
        private: whether reads too are limited to own rows.
        admin_fields: fields that only an admin can set.
    """

    def __init__(
        self,
        of: "Resource[Any]",
        owner: str | None,
        admin_fields: tuple[str, ...],
        *,
        private: bool,
    ) -> None:
        self.field = owner
        # The field in a body; the id is in none.
        self.sent = None if owner == "id" else owner
        self.private = private
        self.admin_fields = admin_fields
        self.defaults = {name: of.fields[name].default for name in admin_fields}

    @property
    def of_new(self) -> str:
        """What the OpenAPI document says of a new row; empty without rules."""
        parts = []
        if self.sent is not None:
            parts.append(
                f"With authentication, `{self.sent}` is the user of the key; only an admin can set"
                " another one."
            )
        if self.admin_fields:
            names = " and ".join(f"`{name}`" for name in self.admin_fields)
            parts.append(f"With authentication, only an admin can set {names}.")
        return "".join(f" {part}" for part in parts)

    @property
    def of_write(self) -> str:
        """The same of a write of a row that exists."""
        if self.field is None:
            return ""
        told = " With authentication, a row of another user is 404, except for an admin."
        return f"{told}{self.of_new}"

    def owns(self, owner: int | None, row: Struct) -> bool:
        """Whether the row belongs to this user; True if the principal is not limited."""
        return owner is None or self.field is None or getattr(row, self.field) == owner

    def visible(self, owner: int | None, rows: dict[Any, Any]) -> dict[Any, Any]:
        """The rows that the principal may read, of rows by their keys."""
        if not self.private or owner is None:
            return rows
        return {key: row for key, row in rows.items() if self.owns(owner, row)}

    def check_new(self, owner: int, row: Any, place: str = "") -> None:
        """Make a new row, or a replacement, the owner's.

        Args:
            owner: the user.
            row: the Struct from the body; its owner is set if it is absent or null.
            place: of the row in the body, such as `items[2].`.

        Raises:
            Forbidden: it sets another owner, or a field for admins to another value than its
                default.
        """
        wrong = self.claim(owner, row)
        if wrong is not None:
            raise _forbidden(place, *wrong)

    def check_many(self, owner: int, rows: Iterable[Any]) -> None:
        """As `check_new`, for each row of a list `items`."""
        for n, row in enumerate(rows):
            self.check_new(owner, row, f"items[{n}].")

    def claim(self, owner: int, row: Any) -> tuple[str, str] | None:
        """As `check_new`; return the field that is wrong and why, or None."""
        for name, default in self.defaults.items():
            if getattr(row, name) != default:
                return name, ADMIN_ONLY
        if self.sent is not None:
            given = getattr(row, self.sent)
            if given is None or given is UNSET:
                setattr(row, self.sent, owner)
            elif given != owner:
                return self.sent, ANOTHER
        return None

    def line_error(self, owner: int | None, row: Any) -> str | None:
        """As `claim`, for a line of a file."""
        wrong = None if owner is None else self.claim(owner, row)
        return None if wrong is None else f"{wrong[0]}: {wrong[1]}"

    def check_bulk_change(self, owner: int, change: Any) -> None:
        """Check a change of many rows.

        Raises:
            Forbidden: it sets another owner, or a field for admins.
        """
        for name in self.admin_fields:
            if getattr(change, name, UNSET) is not UNSET:
                raise _forbidden("set.", name, ADMIN_ONLY)
        self._check_owner(owner, change, "set.")

    async def check_replacement(self, request: Request, owner: int, new: Any, by_id: Any) -> None:
        """Check a replacement, whose fields for admins may be UNSET; its row stays the owner's.

        Raises:
            Forbidden: it sets another owner, or changes a field for admins.
        """
        if self.sent is not None and getattr(new, self.sent) is None:
            setattr(new, self.sent, owner)
        await self.check_change(request, owner, new, by_id)

    async def check_change(self, request: Request, owner: int, change: Any, by_id: Any) -> None:
        """Check a change of the row whose id is in the path.

        A field for admins may have the value that the row has: what a client has read it can send
        back. The statement does not set it, so it does not matter if it changes in between.

        Raises:
            Forbidden: it sets another owner, or changes a field for admins.
        """
        self._check_owner(owner, change, "")
        given = {
            name: value
            for name in self.admin_fields
            if (value := getattr(change, name, UNSET)) is not UNSET
        }
        if not given:
            return
        row = await by_id.get(request.db, request.row_id())
        if row is None or not self.owns(owner, row):
            return  # the write finds no row
        for name, value in given.items():
            if getattr(row, name) != value:
                raise _forbidden("", name, ADMIN_ONLY)

    def _check_owner(self, owner: int, change: Any, place: str) -> None:
        if self.sent is not None and getattr(change, self.sent, UNSET) not in {UNSET, owner}:
            raise _forbidden(place, self.sent, ANOTHER)


def owner_rules(
    of: "Resource[Any]", owner: str | None, admin_fields: tuple[str, ...], *, private: bool
) -> OwnerRules:
    """Return the rules of a resource.

    Raises:
        RefusedError: an argument of the declaration is wrong.
    """
    name, given = of.name, of.fields
    if owner is None and (private or admin_fields):
        raise RefusedError(f"{name}: private and admin_fields need `owner`, the field of the owner")
    if owner is not None and owner != "id" and (owner not in given or given[owner].kind is not int):
        raise RefusedError(f"{name}: owner={owner!r} must be `id`, or a field of type ID")
    if private and owner != "id" and owner not in {*of.references, *of.filters}:
        raise RefusedError(
            f"{name}: private lists need an index: {owner!r} must be in `references` or `filters`"
        )
    for one in admin_fields:
        if one not in given or given[one].required:
            raise RefusedError(f"{name}: {one!r} in `admin_fields` must be a field with a default")
    if given.keys() <= {*admin_fields}:
        raise RefusedError(f"{name}: `admin_fields` leave no field for an owner")
    if owner == "id":
        made = ("create", "bulk_create", "upsert", "import")
        for one in made:
            if of.serves(one) and one not in of.handlers and one not in of.admin_only:
                raise RefusedError(
                    f"{name}: owner='id', so only an admin can create rows: add {one!r} to"
                    " `admin_only` or `without`"
                )
    return OwnerRules(of, owner, admin_fields, private=private)


def owner_column(of: "Resource[Any]") -> Owner | None:
    """Return the owner for the statements of a resource.

    Raises:
        RefusedError: a Struct of the declaration lacks a field that is compared with the owner.
    """
    rules = of.rules
    shown = [(of.row, (rules.field, *rules.admin_fields))] if rules.field else []
    for name, struct in of.include.items():
        parent = of.references[f"{name}_id"].rules
        if parent.private and parent.field is not None:
            shown.append((struct, (parent.field,)))
    for struct, names in shown:
        for one in names:
            if one not in struct.__struct_fields__:
                raise RefusedError(f"{of.name}: {struct.__name__} needs the field {one!r}")
    if rules.field is None:
        return None
    return Owner(of.table.c[rules.field], frozenset(rules.admin_fields))


def replacement(
    new: type[Struct], given: Mapping[str, Field], admin_fields: Sequence[str]
) -> type[Struct]:
    """Return the Struct of a PUT by an owner, in which the fields for admins may be absent."""
    if not admin_fields:
        return new
    absent = [(name, given[name].hint | UnsetType, UNSET) for name in admin_fields]
    return defstruct(f"{new.__name__}ByOwner", absent, bases=(new,), kw_only=True)


def _forbidden(place: str, field: str, message: str) -> Forbidden:
    return Forbidden(f"{place}{field}: {message}", FieldError(f"{place}{field}", message))
