"""Tests of bulk requests: create, upsert, change and delete, all rows or none."""

from typing import Any

from service.conformance import values
from service.conformance.base import Base, where
from service.conformance.served import Served, statements_run
from service.resource import Resource

ROWS = 5
NO_ID = 2**62
NO_IDS = [NO_ID, 2**80, 0, -7]


class BulkTests(Base):
    """The bulk operations."""

    @where("bulk_create", "read")
    def test_new_rows_are_returned_whole_and_in_the_given_order(
        self, served: Served, of: Resource[Any]
    ) -> None:
        given = self._new(served, of)
        made = served.client.post(f"{of.path}/bulk", json={"items": given})
        assert made.status_code == 201, made.text
        assert statements_run(made) == 1
        rows = made.json()["items"]
        assert [
            {name: row[name] for name in new} for row, new in zip(rows, given, strict=True)
        ] == (given)
        assert [row["id"] for row in rows] == sorted(row["id"] for row in rows)
        assert served.client.get(f"{of.path}/{rows[-1]['id']}").json() == rows[-1]

    @where("bulk_create", "list")
    def test_one_bad_row_rejects_the_whole_request_and_is_named(
        self, served: Served, of: Resource[Any]
    ) -> None:
        given = self._new(served, of)
        before = len(served.all(of))
        for name, field in of.fields.items():
            if field.required:
                bad = {one: value for one, value in given[-1].items() if one != name}
                refused = served.client.post(f"{of.path}/bulk", json={"items": [*given, bad]})
                assert refused.status_code == 422, refused.text
                named = [error["field"] for error in refused.json()["errors"]]
                assert named == [f"items[{ROWS}].{name}"]
        assert len(served.all(of)) == before

    @where("bulk_create", "create")
    def test_a_conflict_names_the_positions_of_all_its_rows(
        self, served: Served, of: Resource[Any]
    ) -> None:
        for field in of.unique:
            given = self._new(served, of)
            twice = values.upper(given[0][field]) if field in of.folded else given[0][field]
            refused = served.client.post(
                f"{of.path}/bulk", json={"items": [*given, served.new(of, **{field: twice})]}
            )
            assert refused.status_code == 422, refused.text
            named = {error["field"] for error in refused.json()["errors"]}
            assert named == {f"items[0].{field}", f"items[{ROWS}].{field}"}
            given[1][field] = served.create(of)[field]
            taken = served.client.post(f"{of.path}/bulk", json={"items": given})
            assert taken.status_code == 409, taken.text
            assert [error["field"] for error in taken.json()["errors"]] == [f"items[1].{field}"]
        for field in of.references:
            given = self._new(served, of)
            given[2][field] = NO_ID
            missing = served.client.post(f"{of.path}/bulk", json={"items": given})
            assert missing.status_code == 409, missing.text
            assert [error["field"] for error in missing.json()["errors"]] == [f"items[2].{field}"]

    @where("upsert", "read")
    def test_an_upsert_creates_updates_and_keeps_unchanged_rows(
        self, served: Served, of: Resource[Any]
    ) -> None:
        key: Any = of.key
        given = self._new(served, of)
        made = self._upsert(served, of, given)
        assert [row["status"] for row in made["items"]] == ["created"] * ROWS
        assert [row[key] for row in made["items"]] == [row[key] for row in given]
        ids = [row["id"] for row in made["items"]]
        changed = served.new(of, **{key: given[1][key]})
        more = served.new(of)
        done = self._upsert(served, of, [given[0], changed, more])
        assert [row["status"] for row in done["items"]] == ["unchanged", "updated", "created"]
        assert (done["created"], done["updated"], done["unchanged"]) == (1, 1, 1)
        assert [row["id"] for row in done["items"]][:2] == ids[:2]
        shown = served.client.get(f"{of.path}/{ids[1]}").json()
        assert {name: shown[name] for name in changed} == changed
        if of.version is not None:
            assert [row["version"] for row in done["items"]] == [1, 2, 1]

    @where("upsert")
    def test_a_repeated_key_is_rejected(self, served: Served, of: Resource[Any]) -> None:
        key: Any = of.key
        given = self._new(served, of)
        again = values.upper(given[0][key]) if key in of.folded else given[0][key]
        refused = served.client.put(
            f"{of.path}/bulk", json={"items": [*given, served.new(of, **{key: again})]}
        )
        assert refused.status_code == 422, refused.text
        named = {error["field"] for error in refused.json()["errors"]}
        assert named == {f"items[0].{key}", f"items[{ROWS}].{key}"}

    @where("upsert", "create", also=lambda of: len(of.unique) > 1)
    def test_a_conflict_of_an_upsert_names_the_position_of_the_row(
        self, served: Served, of: Resource[Any]
    ) -> None:
        for field in of.unique:
            if field != of.key:
                given = self._new(served, of)
                given[3][field] = served.create(of)[field]
                refused = served.client.put(f"{of.path}/bulk", json={"items": given})
                assert refused.status_code == 409, refused.text
                named = [error["field"] for error in refused.json()["errors"]]
                assert named == [f"items[3].{field}"]

    @where("upsert", "read")
    def test_missing_fields_of_an_upsert_take_their_defaults(
        self, served: Served, of: Resource[Any]
    ) -> None:
        key: Any = of.key
        (whole, *_) = self._new(served, of)
        row_id = self._upsert(served, of, [whole])["items"][0]["id"]
        needed = {name for name, field in of.fields.items() if field.required} | {key}
        part = {name: whole[name] for name in needed}
        assert self._upsert(served, of, [part])["items"][0]["id"] == row_id
        shown = served.client.get(f"{of.path}/{row_id}").json()
        expected = values.defaults(of) | part
        assert {name: shown[name] for name in expected} == expected

    @where("bulk_change", "create", "read")
    def test_one_change_is_made_to_many_rows(self, served: Served, of: Resource[Any]) -> None:
        rows = served.several(of, ROWS)
        ids = [row["id"] for row in rows]
        other = served.new(of)
        name = next(one for one in of.fields if one not in of.unique)
        body = {"ids": [*ids[1:], *NO_IDS, ids[1], NO_ID], "set": {name: other[name]}}
        done = served.client.patch(f"{of.path}/bulk", json=body)
        assert (done.status_code, done.json()) == (200, {"updated": ROWS - 1, "missing": NO_IDS})
        assert statements_run(done) == 1
        shown = [served.client.get(f"{of.path}/{row_id}").json() for row_id in ids]
        assert shown[0] == rows[0]
        assert [row[name] for row in shown[1:]] == [other[name]] * (ROWS - 1)
        nothing = served.client.patch(f"{of.path}/bulk", json={"ids": [*ids, NO_ID], "set": {}})
        assert nothing.json() == {"updated": 0, "missing": [NO_ID]}
        assert [served.client.get(f"{of.path}/{row_id}").json() for row_id in ids] == shown

    @where("bulk_delete", "create", "read", also=lambda of: of.soft_delete)
    def test_a_bulk_soft_delete_can_be_repeated(self, served: Served, of: Resource[Any]) -> None:
        ids = [row["id"] for row in served.several(of, ROWS)]
        shown = []
        for _ in range(2):
            done = served.client.post(f"{of.path}/bulk/delete", json={"ids": [*ids, *NO_IDS]})
            assert (done.json(), statements_run(done)) == ({"deleted": ROWS, "missing": NO_IDS}, 1)
            shown.append([served.client.get(f"{of.path}/{row_id}").json() for row_id in ids])
        assert shown[0] == shown[1]
        assert not any(row[of.active] for row in shown[0])

    @where("bulk_delete", "create", "read")
    def test_bulk_deleted_rows_are_not_served_from_the_cache(
        self, served: Served, of: Resource[Any]
    ) -> None:
        ids = [row["id"] for row in served.several(of, ROWS)]
        for row_id in ids:
            assert served.client.get(f"{of.path}/{row_id}").status_code == 200
        body = {"ids": ids, **({"permanent": True} if of.soft_delete else {})}
        done = served.client.post(f"{of.path}/bulk/delete", json=body)
        assert (done.status_code, done.json()) == (200, {"deleted": ROWS, "missing": []})
        assert statements_run(done) == 1
        assert {served.client.get(f"{of.path}/{one}").status_code for one in ids} == {404}
        again = served.client.post(f"{of.path}/bulk/delete", json=body)
        assert again.json() == {"deleted": 0, "missing": ids}

    def _new(self, served: Served, of: Resource[Any]) -> list[dict[str, Any]]:
        parents = served.parents(of)
        return [values.row(of, served.next(of), parents) for _ in range(ROWS)]

    def _upsert(
        self, served: Served, of: Resource[Any], given: list[dict[str, Any]]
    ) -> dict[str, Any]:
        done = served.client.put(f"{of.path}/bulk", json={"items": given})
        assert done.status_code == 200, done.text
        assert statements_run(done) == 1
        answer: dict[str, Any] = done.json()
        return answer
