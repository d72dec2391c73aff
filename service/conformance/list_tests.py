"""Tests of lists: pages, cursors, sorts, filters, totals, and the rows of a parent."""

from typing import Any

from service.conformance.base import Base, where
from service.conformance.served import Served, statements_run
from service.resource import Resource

ROWS = 7
PAGE = 3


class ListTests(Base):
    """The lists of a resource."""

    @where("create", "list")
    def test_pages_and_cursors_show_each_row_once_in_the_same_order(
        self, served: Served, of: Resource[Any]
    ) -> None:
        made = {row["id"] for row in served.several(of, ROWS)}
        total = len(served.all(of))
        size = min(-(-total // 3), 100)
        for sort in of.sorts:
            shown: dict[str, list[int]] = {}
            for sign in ("", "-"):
                asked: dict[str, Any] = {"sort": sign + sort, "per_page": size}
                by_cursor = [row["id"] for row in served.all(of, **asked)]
                assert len(by_cursor) == len(set(by_cursor)) == total
                assert made <= set(by_cursor)
                by_page: list[int] = []
                for number in range(1, -(-total // size) + 1):
                    page = served.client.get(of.path, params={**asked, "page": number})
                    assert statements_run(page) <= 1
                    assert page.json()["total"] == total
                    by_page += [row["id"] for row in page.json()["items"]]
                    if number == 2:  # a page has a cursor to the next one
                        following = {**asked, "cursor": page.json()["next_cursor"]}
                        third = served.client.get(of.path, params=following).json()
                assert by_page == by_cursor
                assert [row["id"] for row in third["items"]] == by_page[2 * size : 3 * size]
                shown[sign] = by_page
            assert shown["-"] == shown[""][::-1]

    @where("create", "list")
    def test_a_sort_orders_by_its_field(self, served: Served, of: Resource[Any]) -> None:
        served.several(of, ROWS)
        for sort in of.sorts:
            if sort in of.summary.__struct_fields__:
                shown = [row[sort] for row in served.all(of, sort=sort) if row[sort] is not None]
                assert shown == sorted(shown, key=_bytes)

    @where("create", "list")
    def test_a_page_has_its_number_and_the_number_of_pages(
        self, served: Served, of: Resource[Any]
    ) -> None:
        served.several(of, PAGE + 1)
        first = served.client.get(of.path, params={"per_page": PAGE})
        page = first.json()
        assert (page["page"], page["per_page"]) == (1, PAGE)
        assert page["pages"] == -(-page["total"] // PAGE)
        assert 'rel="next"' in first.headers["link"]
        assert list(page["items"][0]) == [
            name for name in of.summary.__struct_fields__ if name not in of.include
        ]
        behind = served.client.get(of.path, params={"page": page["pages"] + 1, "per_page": PAGE})
        assert (behind.json()["items"], behind.json()["total"]) == ([], page["total"])

    @where("create", "list")
    def test_a_total_is_exact_estimated_or_absent(self, served: Served, of: Resource[Any]) -> None:
        served.several(of, 1)
        total = len(served.all(of))
        for how, expected in (("exact", total), ("estimated", total), ("none", None)):
            page = served.client.get(of.path, params={"total": how}).json()
            assert page["total"] == expected
        start = served.client.get(of.path, params={"cursor": "", "total": "exact"}).json()
        assert start["total"] == total
        assert "total" not in served.client.get(of.path, params={"cursor": ""}).json()

    @where("create", "list", "read")
    def test_each_filter_finds_the_same_rows_as_a_search_of_all_rows(
        self, served: Served, of: Resource[Any]
    ) -> None:
        made = served.several(of, ROWS)
        rows = self._whole(served, of)
        asked = [(name, _value(of, name, made[ROWS // 2])) for name in of.filter_names]
        asked += [("q", str(made[0][column])[:-1].swapcase()) for column in of.search[1:]]
        for name, value in asked:
            expected = {row["id"] for row in rows if _matches(of, name, value, row)}
            assert expected
            for sort in of.sorts:
                found = [row["id"] for row in served.all(of, sort=sort, **{name: value})]
                assert (len(found), set(found)) == (len(expected), expected), (name, sort)
            query = {name: value, "per_page": 100}
            assert served.client.get(of.path, params=query).json()["total"] == len(expected)

    @where("create", "list", "read", also=lambda of: len(of.filter_names) > 1)
    def test_filters_can_be_combined(self, served: Served, of: Resource[Any]) -> None:
        made = served.several(of, ROWS)
        rows = self._whole(served, of)
        query = {name: _value(of, name, made[1]) for name in of.filter_names}
        expected = {
            row["id"]
            for row in rows
            if all(_matches(of, name, value, row) for name, value in query.items())
        }
        for sort in of.sorts:
            assert {row["id"] for row in served.all(of, sort=f"-{sort}", **query)} == expected

    @where("create", "list")
    def test_a_cursor_belongs_to_its_sort_and_filters(
        self, served: Served, of: Resource[Any]
    ) -> None:
        served.several(of, PAGE + 1)
        cursor = served.client.get(of.path, params={"cursor": "", "per_page": PAGE}).json()
        following: dict[str, Any] = {"cursor": cursor["next_cursor"], "per_page": PAGE}
        assert served.client.get(of.path, params=following).status_code == 200
        for wrong in (
            following | {"sort": "-id"},
            following | {"cursor": following["cursor"][:-2] + "AA"},
            {**following, "page": 1},
        ):
            assert served.client.get(of.path, params=wrong).status_code == 422

    @where("list")
    def test_an_unknown_parameter_of_a_list_is_named(
        self, served: Served, of: Resource[Any]
    ) -> None:
        refused = served.client.get(of.path, params={"colour": "red"})
        assert refused.status_code == 422
        assert [error["field"] for error in refused.json()["errors"]] == ["colour"]

    @where("create", "list", "change")
    def test_a_list_is_cached_and_a_write_invalidates_it(
        self, served: Served, of: Resource[Any]
    ) -> None:
        served.several(of, 1)
        query: dict[str, Any] = {"per_page": 2, "sort": "-id"}
        first = served.client.get(of.path, params=query)
        again = served.client.get(of.path, params=query)
        assert again.json() == first.json()
        if first.headers["x-cache"] != "BYPASS":  # with SERVICE_CACHE=off
            assert (again.headers["x-cache"], statements_run(again)) == ("HIT", 0)
        new = served.create(of)
        assert served.client.get(of.path, params=query).json()["items"][0]["id"] == new["id"]

    @where("create", "list", also=lambda of: bool(of.include))
    def test_included_parents_need_one_more_statement(
        self, served: Served, of: Resource[Any]
    ) -> None:
        made = served.several(of, PAGE)
        for name in of.include:
            query: dict[str, Any] = {"include": name, "sort": "-id", "per_page": PAGE}
            page = served.client.get(of.path, params=query)
            assert statements_run(page) == 2
            parents = [row[name]["id"] for row in page.json()["items"]]
            assert parents == [row[f"{name}_id"] for row in reversed(made)]

    @where("create", "list", also=lambda of: bool(of.under))
    def test_rows_of_a_parent_are_listed_and_created(
        self, served: Served, of: Resource[Any]
    ) -> None:
        for field in of.under:
            made = served.several(of, 2)
            parent = of.references[field]
            path = f"{parent.path}/{made[0][field]}/{of.segment}"
            new = {name: value for name, value in served.new(of).items() if name != field}
            added = served.client.post(path, json=new)
            assert (added.status_code, added.json()[field]) == (201, made[0][field])
            page = served.client.get(path).json()
            assert [row["id"] for row in page["items"]] == [
                *(row["id"] for row in made),
                added.json()["id"],
            ]
            empty = served.create(parent)["id"]
            assert served.client.get(f"{parent.path}/{empty}/{of.segment}").json()["total"] == 0
            for method in ("GET", "POST"):
                body = served.new(of) if method == "POST" else None
                missing_parent = f"{parent.path}/{2**62}/{of.segment}"
                assert served.client.request(method, missing_parent, json=body).status_code == 404

    @where("create", "list", also=lambda of: bool(of.under and of.newest))
    def test_a_parent_shows_its_newest_rows_with_one_more_statement(
        self, served: Served, of: Resource[Any]
    ) -> None:
        for field in of.under:
            made = served.several(of, of.newest + 1)
            parent = of.references[field]
            asked = {"include": of.name}
            fresh = {"Cache-Control": "no-cache"}
            path = f"{parent.path}/{made[0][field]}"
            rows = served.client.get(
                f"{path}/{of.segment}", params={"sort": "-id", "per_page": of.newest}
            ).json()["items"]
            answers = []
            if parent.derives("read"):
                answers.append(served.client.get(path, params=asked, headers=fresh))
            if parent.derives("list") and of.newest_in_lists:
                last: dict[str, Any] = {**asked, "sort": "-id", "per_page": 1}
                answers.append(served.client.get(parent.path, params=last, headers=fresh))
            for answer in answers:
                assert (answer.status_code, statements_run(answer)) == (200, 2)
                shown = answer.json()
                shown = shown["items"][0] if "per_page" in shown else shown
                assert shown["id"] == made[0][field]
                assert shown[of.name] == rows
                assert shown[f"{of.name}_total"] == len(made)

    def _whole(self, served: Served, of: Resource[Any]) -> list[dict[str, Any]]:
        """Return every row with all fields; a list may have fewer."""
        rows = served.all(of)
        if set(of.fields) <= set(of.summary.__struct_fields__):
            return rows
        return [served.client.get(f"{of.path}/{row['id']}").json() for row in rows]


def _bytes(value: Any) -> Any:
    return value.encode() if isinstance(value, str) else value


def _value(of: Resource[Any], name: str, row: dict[str, Any]) -> Any:
    """Return a value of the filter that matches this row."""
    if name == "q":
        text = row[of.search[0]]
        return text[-3:].swapcase()
    value = row[name if name in of.fields else name[4:]]
    return str(value).lower() if isinstance(value, bool) else value


def _matches(of: Resource[Any], name: str, value: Any, row: dict[str, Any]) -> bool:
    if name == "q":
        texts = [row[one] for one in of.search if row[one] is not None]
        return any(value.lower() in text.lower() for text in texts)
    if name in of.fields:
        shown = row[name]
        return bool((str(shown).lower() if isinstance(shown, bool) else shown) == value)
    shown = row[name[4:]]
    return shown is not None and bool(shown >= value if name.startswith("min_") else shown <= value)
