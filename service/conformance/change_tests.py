"""Tests of the feed of changes."""

from typing import Any

from service.conformance.base import Base, where
from service.conformance.served import Served
from service.resource import Resource

ROWS = 3


class ChangeTests(Base):
    """The changes of a resource."""

    @where("create", "read", "changes")
    def test_the_feed_has_each_change_once_in_the_form_of_a_read(
        self, served: Served, of: Resource[Any]
    ) -> None:
        path, member = f"{of.path}/changes", of.words.one
        start = served.client.get(path).json()["position"]
        made = served.several(of, ROWS)
        read = [served.client.get(f"{of.path}/{row['id']}").json() for row in made]
        found = served.client.get(path, params={"after": start}).json()
        assert [one[member] for one in found["changes"]] == read
        assert [one["kind"] for one in found["changes"]] == ["created"] * ROWS
        places = [one["position"] for one in found["changes"]]
        headers = {"Last-Event-ID": str(places[0])}
        again = served.client.get(path, headers=headers).json()
        assert again["changes"] == found["changes"][1:]
        if not of.derives("delete"):
            return
        gone = f"{of.path}/{made[0]['id']}{'?permanent=true' if of.soft_delete else ''}"
        assert served.client.delete(gone).status_code == 204
        after = found["position"]
        last = served.client.get(path, params={"after": after}).json()["changes"]
        assert [(one["kind"], one[member]) for one in last] == [("deleted", read[0])]
        places.append(last[0]["position"])
        assert places == sorted(set(places))
