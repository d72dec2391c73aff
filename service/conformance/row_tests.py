"""Tests of one row: create, read, replace, change, delete, preconditions, cache."""

from typing import Any

import httpx
import pytest

from service.conformance import values
from service.conformance.base import Base, versioned, where
from service.conformance.served import Served, statements_run
from service.resource import Resource

NO_ID = 2**62


class RowTests(Base):
    """The operations on one row."""

    @where("create", "read")
    def test_a_new_row_is_returned_and_can_be_read(self, served: Served, of: Resource[Any]) -> None:
        new = served.new(of)
        made = served.client.post(of.path, json=new)
        assert made.status_code == 201, made.text
        row = made.json()
        assert made.headers["location"] == f"{of.path}/{row['id']}"
        assert statements_run(made) == 1
        assert list(row) == list(of.row.__struct_fields__)
        assert {name: row[name] for name in new} == new
        read = served.client.get(made.headers["location"])
        assert (read.status_code, read.json()) == (200, row)
        assert made.headers.get("etag") == read.headers.get("etag") == _etag(of, row)
        head = served.client.head(made.headers["location"])
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers.get("etag") == read.headers.get("etag")

    @where("create")
    def test_a_create_with_a_key_is_done_once(self, served: Served, of: Resource[Any]) -> None:
        new, key = served.new(of), {"Idempotency-Key": f"{of.name}-{served.next(of)}"}
        first = served.client.post(of.path, json=new, headers=key)
        again = served.client.post(of.path, json=new, headers=key)
        assert (first.status_code, "idempotency-replayed" in first.headers) == (201, False)
        assert (again.status_code, again.headers["idempotency-replayed"]) == (201, "true")
        assert again.content == first.content
        assert again.headers["location"] == first.headers["location"]
        assert again.headers.get("etag") == first.headers.get("etag")
        other = served.client.post(of.path, json=served.new(of), headers=key)
        assert other.status_code == 422, other.text

    @where("create")
    def test_missing_fields_take_their_defaults(self, served: Served, of: Resource[Any]) -> None:
        parents = served.parents(of)
        needed = {name: one for name, one in parents.items() if of.fields[name].required}
        body = values.least(of, served.next(of)) | needed
        made = served.client.post(of.path, json=body)
        assert made.status_code == 201, made.text
        shown = {name: made.json()[name] for name in values.defaults(of)}
        assert shown == values.defaults(of)

    @where("create")
    def test_every_missing_required_field_is_named(self, served: Served, of: Resource[Any]) -> None:
        refused = served.client.post(of.path, json={})
        named = {error["field"] for error in refused.json().get("errors", [])}
        assert named == {name for name, field in of.fields.items() if field.required}

    @where("create", "replace", "change", also=lambda of: bool(of.unique))
    def test_a_unique_value_can_be_used_once(self, served: Served, of: Resource[Any]) -> None:
        for field in of.unique:
            row, other = served.create(of), served.create(of)
            taken = values.upper(row[field]) if field in of.folded else row[field]
            path = f"{of.path}/{other['id']}"
            for refused in (
                served.client.post(of.path, json=served.new(of, **{field: taken})),
                served.client.put(path, json=served.new(of, **{field: taken})),
                served.client.patch(path, json={field: taken}),
            ):
                assert refused.status_code == 409, refused.text
                (error,) = refused.json()["errors"]
                assert error["field"] == field
            # A row does not conflict with itself, also in other case.
            same = served.client.patch(f"{of.path}/{row['id']}", json={field: taken})
            assert (same.status_code, same.json()[field]) == (200, taken)

    @where("create", "change", also=lambda of: bool(of.references))
    def test_a_parent_must_exist(self, served: Served, of: Resource[Any]) -> None:
        for field in of.references:
            path = f"{of.path}/{served.create(of)['id']}"
            for refused in (
                served.client.post(of.path, json=served.new(of, **{field: NO_ID})),
                served.client.patch(path, json={field: NO_ID}),
            ):
                assert refused.status_code == 409, refused.text
                (error,) = refused.json()["errors"]
                assert error["field"] == field

    @where("create", also=lambda of: bool(of.references))
    def test_a_parent_with_rows_can_not_be_deleted(self, served: Served, of: Resource[Any]) -> None:
        for field, parent in of.references.items():
            path = f"{parent.path}/{served.create(of)[field]}"
            query = {"permanent": "true"} if parent.soft_delete else {}
            refused = served.client.delete(path, params=query)
            assert refused.status_code == 409, refused.text
            (error,) = refused.json()["errors"]
            assert error["field"] == of.table.name
            assert served.client.get(path).status_code == 200

    @where("read", "replace", "change", "delete")
    def test_a_missing_row_is_not_found(self, served: Served, of: Resource[Any]) -> None:
        path, new = f"{of.path}/{NO_ID}", served.new(of)
        for answer in (
            served.client.get(path),
            served.client.put(path, json=new),
            served.client.patch(path, json=new),
            served.client.patch(path, json={}),
            served.client.delete(path),
            served.client.delete(path, params={"permanent": "true"} if of.soft_delete else {}),
        ):
            assert (answer.status_code, statements_run(answer)) == (404, 1)
        assert served.client.get(f"{of.path}/{2**70}").status_code == 404
        assert served.client.get(f"{of.path}/one").status_code == 422

    @where("create", "replace", "read")
    def test_a_row_is_replaced_as_a_whole(self, served: Served, of: Resource[Any]) -> None:
        row = served.create(of)
        parents = {name: row[name] for name in of.references if of.fields[name].required}
        body = values.least(of, served.next(of)) | parents
        done = served.client.put(f"{of.path}/{row['id']}", json=body)
        assert done.status_code == 200, done.text
        assert statements_run(done) == 1
        expected = values.defaults(of) | body
        assert {name: done.json()[name] for name in expected} == expected
        self._is_next(of, row, done.json())
        assert served.client.get(f"{of.path}/{row['id']}").json() == done.json()

    @where("create", "change", "read")
    def test_a_change_sets_given_fields_and_null_clears(
        self, served: Served, of: Resource[Any]
    ) -> None:
        row = served.create(of)
        path = f"{of.path}/{row['id']}"
        other = served.new(of)
        for name, field in of.fields.items():
            for value in (other[name], *((None,) if field.null else ())):
                before = served.client.get(path).json()
                done = served.client.patch(path, json={name: value})
                assert done.status_code == 200, done.text
                same = {one: before[one] for one in of.fields if one != name}
                assert {one: done.json()[one] for one in same} == same
                assert done.json()[name] == value
                assert statements_run(done) == 1
                self._is_next(of, before, done.json())
                assert served.client.get(path).json() == done.json()

    @where("create", "change")
    def test_an_empty_change_changes_nothing(self, served: Served, of: Resource[Any]) -> None:
        row = served.create(of)
        done = served.client.patch(f"{of.path}/{row['id']}", json={})
        assert (done.status_code, done.json()) == (200, row)

    @where("create", "delete", "read", also=lambda of: of.soft_delete)
    def test_a_soft_delete_keeps_the_row_and_can_be_repeated(
        self, served: Served, of: Resource[Any]
    ) -> None:
        row = served.create(of, **{of.active: True})
        path = f"{of.path}/{row['id']}"
        gone = served.client.delete(path)
        assert (gone.status_code, gone.json()[of.active]) == (200, False)
        self._is_next(of, row, gone.json())
        assert served.client.get(path).json() == gone.json()
        assert served.client.delete(path).json() == gone.json()

    @where("create", "delete", "read")
    def test_a_row_can_be_deleted_permanently(self, served: Served, of: Resource[Any]) -> None:
        path = f"{of.path}/{served.create(of)['id']}"
        assert served.client.get(path).status_code == 200
        query = {"permanent": "true"} if of.soft_delete else {}
        gone = served.client.delete(path, params=query)
        assert (gone.status_code, gone.content) == (204, b"")
        assert served.client.get(path).status_code == 404
        assert served.client.delete(path, params=query).status_code == 404

    @where("create", "read", also=versioned)
    def test_the_current_version_of_the_client_gives_304(
        self, served: Served, of: Resource[Any]
    ) -> None:
        row = served.create(of)
        path, tag = f"{of.path}/{row['id']}", str(_etag(of, row))
        for condition in (tag, f"W/{tag}", f'"99", {tag}', f'"x",W/{tag}', "*"):
            read = served.client.get(path, headers={"if-none-match": condition})
            assert (read.status_code, read.headers["etag"], read.content) == (304, tag, b"")
            assert read.headers["cache-control"] == "private, no-cache"
        for condition in ('"99"', tag.strip('"'), "garbage", '"11"', ""):
            read = served.client.get(path, headers={"if-none-match": condition})
            assert (read.status_code, read.headers["etag"], read.json()) == (200, tag, row)

    @pytest.mark.parametrize("how", ("PUT", "PATCH", "PATCH {}", "DELETE", "DELETE for good"))
    @where("create", "read", "replace", "change", "delete", also=versioned)
    def test_a_write_obeys_its_preconditions(
        self, served: Served, of: Resource[Any], how: str
    ) -> None:
        new = served.new(of)

        def write(row_id: int, name: str, value: str) -> httpx.Response:
            method = how.split(maxsplit=1)[0]
            body = None if method == "DELETE" else {} if how == "PATCH {}" else new
            query = {"permanent": "true"} if how == "DELETE for good" and of.soft_delete else {}
            path = f"{of.path}/{row_id}"
            headers = {name: value}
            return served.client.request(method, path, json=body, params=query, headers=headers)

        row = served.create(of, **({of.active: True} if of.soft_delete else {}))
        tag = str(_etag(of, row))
        for name, value in (
            ("if-match", '"99"'),
            ("if-match", f"W/{tag}"),
            ("if-match", '"x"'),
            ("if-match", '"01"'),
            ("if-none-match", tag),
            ("if-none-match", "*"),
        ):
            refused = write(row["id"], name, value)
            assert (refused.status_code, statements_run(refused)) == (412, 1), (name, value)
        assert write(row["id"], "if-match", "1").status_code == 400
        assert served.client.get(f"{of.path}/{row['id']}").json() == row
        done = write(row["id"], "if-match", f'"99", {tag}')
        assert (done.status_code in {200, 204}, statements_run(done)) == (True, 1)
        if how != "PATCH {}":
            assert write(row["id"], "if-match", tag).status_code in {404, 412}
        new = served.new(of)
        assert write(served.create(of)["id"], "if-match", "*").status_code in {200, 204}
        assert write(NO_ID, "if-match", '"1"').status_code == 404
        assert write(NO_ID, "if-match", "*").status_code == 412

    @where("create", "read", "change", also=lambda of: not versioned(of))
    def test_without_a_version_there_is_no_etag_and_no_precondition(
        self, served: Served, of: Resource[Any]
    ) -> None:
        row = served.create(of)
        path = f"{of.path}/{row['id']}"
        read = served.client.get(path, headers={"if-none-match": "*"})
        assert (read.status_code, "etag" in read.headers) == (200, False)
        change = {next(iter(of.fields)): row[next(iter(of.fields))]}
        done = served.client.patch(path, json=change, headers={"if-match": '"99"'})
        assert (done.status_code, "etag" in done.headers) == (200, False)

    @where("create", "read", "change")
    def test_a_read_is_cached_and_a_write_invalidates_it(
        self, served: Served, of: Resource[Any]
    ) -> None:
        row = served.create(of)
        path = f"{of.path}/{row['id']}"
        first = served.client.get(path)
        again = served.client.get(path)
        assert again.json() == first.json() == row
        if first.headers["x-cache"] != "BYPASS":  # with SERVICE_CACHE=off
            assert (first.headers["x-cache"], again.headers["x-cache"]) == ("MISS", "HIT")
            assert (statements_run(first), statements_run(again)) == (1, 0)
        other = served.new(of)
        name = next(iter(of.fields))
        served.client.patch(path, json={name: other[name]})
        assert served.client.get(path).json()[name] == other[name]

    def _is_next(self, of: Resource[Any], before: dict[str, Any], after: dict[str, Any]) -> None:
        """The version of a row has grown by one."""
        if of.version is not None:
            assert after[of.version] == before[of.version] + 1


def _etag(of: Resource[Any], row: dict[str, Any]) -> str | None:
    return None if of.version is None else f'"{row[of.version]}"'
