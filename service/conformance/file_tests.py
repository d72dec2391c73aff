"""Tests of files: an export can be imported again, and wrong lines are named."""

import csv
import io
import json
from typing import Any

import httpx
import pytest

from service.conformance import values
from service.conformance.base import Base, where
from service.conformance.served import Served
from service.resource import Resource

ROWS = 5
MEDIA = {"ndjson": "application/x-ndjson", "csv": "text/csv"}


class FileTests(Base):
    """Import and export."""

    @pytest.mark.parametrize("kind", ("ndjson", "csv"))
    @where("import", "list")
    def test_an_import_creates_rows_in_the_order_of_the_file(
        self, served: Served, of: Resource[Any], kind: str
    ) -> None:
        given = self._new(served, of)
        done = self._import(served, of, _file(given, kind), kind)
        assert self._counts(done) == {"read": ROWS, "created": ROWS}
        rows = sorted(served.all(of, sort="-id")[:ROWS], key=lambda row: row["id"])
        shown = [{name: row[name] for name in new} for row, new in zip(rows, given, strict=True)]
        assert shown == given

    @where("import", also=lambda of: of.key is not None)
    def test_an_import_updates_rows_with_an_existing_key(
        self, served: Served, of: Resource[Any]
    ) -> None:
        key: Any = of.key
        given = self._new(served, of)
        self._import(served, of, _file(given, "ndjson"), "ndjson")
        assert self._counts(self._import(served, of, _file(given, "csv"), "csv")) == {
            "read": ROWS,
            "unchanged": ROWS,
        }
        given[1] = served.new(of, **{key: given[1][key]})
        given.append(served.new(of))
        done = self._import(served, of, _file(given, "ndjson"), "ndjson")
        assert self._counts(done) == {
            "read": ROWS + 1,
            "unchanged": ROWS - 1,
            "updated": 1,
            "created": 1,
        }

    @where("import", "list")
    def test_wrong_lines_abort_the_import_or_are_skipped_as_requested(
        self, served: Served, of: Resource[Any]
    ) -> None:
        before = len(served.all(of))
        lines = _file(self._new(served, of), "ndjson").splitlines(keepends=True)
        body = b"".join([*lines[:2], b"{}\n", b"no JSON\n", *lines[2:]])
        refused = self._import(served, of, body, "ndjson")
        assert refused.status_code == 422, refused.text
        assert [error["line"] for error in refused.json()["errors"]] == [3, 4]
        assert len(served.all(of)) == before
        done = self._import(served, of, body, "ndjson", on_error="skip")
        assert self._counts(done) == {"read": ROWS + 2, "created": ROWS, "failed": 2}
        assert len(served.all(of)) == before + ROWS

    @where("export", "create", "list")
    def test_an_export_has_every_row_in_the_same_form_as_the_list(
        self, served: Served, of: Resource[Any]
    ) -> None:
        served.several(of, ROWS)
        rows = served.all(of)
        exported = served.client.get(f"{of.path}/export")
        assert [json.loads(line) for line in exported.text.splitlines()] == rows
        table = served.client.get(f"{of.path}/export", params={"format": "csv"})
        shown = list(csv.DictReader(io.StringIO(table.text)))
        assert [row["id"] for row in shown] == [str(row["id"]) for row in rows]
        assert list(shown[0]) == list(of.row.__struct_fields__)
        for name in of.filter_names:
            if name in of.fields:
                value = rows[-1][name]
                asked = {name: str(value).lower() if isinstance(value, bool) else value}
                found = served.client.get(f"{of.path}/export", params=asked).text.splitlines()
                assert len(found) == len([row for row in rows if row[name] == value])

    @pytest.mark.parametrize("kind", ("ndjson", "csv"))
    @where("export", "import", "bulk_delete", "list", also=lambda of: not of.referenced)
    def test_an_export_can_be_imported_again(
        self, served: Served, of: Resource[Any], kind: str
    ) -> None:
        served.several(of, ROWS)
        before = served.all(of)
        file = served.client.get(f"{of.path}/export", params={"format": kind}).content
        permanent = {"permanent": True} if of.soft_delete else {}
        for start in range(0, len(before), 1000):
            ids = [row["id"] for row in before[start : start + 1000]]
            served.client.post(f"{of.path}/bulk/delete", json={"ids": ids, **permanent})
        done = self._import(served, of, file, kind)
        assert self._counts(done) == {"read": len(before), "created": len(before)}
        same = [{name: row[name] for name in of.fields} for row in before]
        assert [{name: row[name] for name in of.fields} for row in served.all(of)] == same

    def _new(self, served: Served, of: Resource[Any]) -> list[dict[str, Any]]:
        parents = served.parents(of)
        return [values.row(of, served.next(of), parents) for _ in range(ROWS)]

    def _import(
        self, served: Served, of: Resource[Any], body: bytes, kind: str, on_error: str = "abort"
    ) -> httpx.Response:
        return served.client.post(
            f"{of.path}/import",
            content=body,
            params={"on_error": on_error},
            headers={"content-type": MEDIA[kind]},
        )

    def _counts(self, done: httpx.Response) -> dict[str, int]:
        """Return the counts of an import that are not 0."""
        assert done.status_code == 200, done.text
        return {name: n for name, n in done.json().items() if name != "errors" and n}


def _file(rows: list[dict[str, Any]], kind: str) -> bytes:
    if kind == "ndjson":
        return b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    text = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, names)
    writer.writeheader()
    writer.writerows(
        {n: str(v).lower() if isinstance(v, bool) else v for n, v in row.items()} for row in rows
    )
    return text.getvalue().encode()
