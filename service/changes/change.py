"""One change of a row, and how the changes of a resource are read from the log."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, get_args, get_type_hints

import msgspec
from msgspec import Struct, structs

from service.changes.log import Entry
from service.db.change_log import WIDTH
from service.logs import logger
from service.web.times import encode_each

# Positions of one entry.
SPAN = WIDTH
# How a row of an older table gets the fields that it lacks.
Defaults = Mapping[str, Any]


class Change:
    """A change of a row. It is encoded once, when a client is to get it.

    Attributes:
        position: in the order of the commits.
        kind: created, updated or deleted.
        row: after the change; for a deleted row, before it.
    """

    __slots__ = ("_data", "_event", "_form", "kind", "lowered", "position", "row")

    def __init__(self, form: "ChangeForm", position: int, kind: str, row: Any) -> None:
        self._form = form
        self.position = position
        self.kind = kind
        self.row = row
        self._data = b""
        self._event = b""
        # Its texts in lower case, by field, for the filter `q`.
        self.lowered: dict[str, str] | None = None

    @property
    def data(self) -> bytes:
        """The change as JSON."""
        if not self._data:
            form, row = self._form, self.row
            version = b"" if form.version is None else b'"version":%d,' % getattr(row, form.version)
            self._data = b'{"position":%d,"kind":"%b","id":%d,%b"%b":%b}' % (
                self.position,
                self.kind.encode(),
                row.id,
                version,
                form.member,
                encode_each([row])[0],
            )
        return self._data

    @property
    def event(self) -> bytes:
        """The change as a server-sent event."""
        if not self._event:
            self._event = b"id: %d\nevent: %b\ndata: %b\n\n" % (
                self.position,
                self.kind.encode(),
                self.data,
            )
        return self._event


class ChangeForm:
    """How the log has the rows of a resource.

    Args:
        name: of the resource.
        table: name of its table, as the log has it.
        member: name of the row in a change, such as `item`.
        row: Struct of a row.
        version: field with the version; None without one.
        defaults: of the fields that have one.
        columns: field by column, where they differ.
    """

    def __init__(
        self,
        name: str,
        table: str,
        member: str,
        row: type[Struct],
        *,
        version: str | None,
        defaults: Defaults,
        columns: Mapping[str, str],
    ) -> None:
        self.name = name
        self.table = table
        self.member = member.encode()
        self.row = row
        self.version = version
        self._defaults = defaults
        self._columns = columns
        self._decode: Callable[[str], list[Any]] = msgspec.json.Decoder(list[row]).decode  # type: ignore[valid-type]  # known only at run time
        self._times = [
            name
            for name, kind in get_type_hints(row).items()
            if datetime in (kind, *get_args(kind))
        ]

    def changes(self, entry: Entry) -> list[Change]:
        """The changes of an entry; one that can't be read is left out and logged."""
        changes = []
        for place, row in enumerate(self._rows(entry)):
            if row is not None:
                for name in self._times:
                    _to_utc(row, name)
                changes.append(Change(self, entry.position + place, entry.kind, row))
        return changes

    def _rows(self, entry: Entry) -> list[Any]:
        if not self._columns:
            try:
                return self._decode(entry.rows)
            except msgspec.MsgspecError:  # from before a migration, perhaps
                pass
        raw: list[dict[str, msgspec.Raw]] = msgspec.json.decode(
            entry.rows, type=list[dict[str, msgspec.Raw]]
        )
        return [self._row(entry, place, one) for place, one in enumerate(raw)]

    def _row(self, entry: Entry, place: int, raw: dict[str, msgspec.Raw]) -> Any:
        """A row by the names of its columns: a field that it lacks has its default, or null."""
        values: dict[str, Any] = {self._columns.get(name, name): raw[name] for name in raw}
        for field in structs.fields(self.row):
            if field.encode_name not in values:
                values[field.encode_name] = self._defaults.get(field.name)
        try:
            return msgspec.json.decode(msgspec.json.encode(values), type=self.row)
        except msgspec.MsgspecError as error:
            fields = {"table": entry.name, "position": entry.position + place, "error": str(error)}
            logger.error("a change can't be read: left out", extra={"fields": fields})
            return None


def _to_utc(row: Struct, name: str) -> None:
    """PostgreSQL writes a time into JSON with the offset of the session that changed the row."""
    time = getattr(row, name)
    if time is not None and time.tzinfo is not UTC:
        structs.force_setattr(row, name, time.astimezone(UTC))
