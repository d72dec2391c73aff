"""Subscribers with the same filters are one group: each change is matched once for all of them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from service.changes.change import Change, ChangeForm
from service.changes.matching import Matcher

if TYPE_CHECKING:
    from service.changes.subscriber import Subscriber


class Node:
    """Changes that come at the same time; with them it gets the `next` node, for those after.

    A subscriber keeps the node that it takes next. So what all have taken is freed.
    """

    __slots__ = ("_events", "changes", "next")

    def __init__(self) -> None:
        self.changes: Sequence[Change] = ()
        self.next: Node | None = None
        self._events = b""

    @property
    def events(self) -> bytes:
        """All of them as server-sent events; every subscriber gets the same bytes."""
        if not self._events:
            self._events = b"".join([change.event for change in self.changes])
        return self._events


class Group:
    """Subscribers with the same filters.

    Attributes:
        pending: changes that match, and are not in a node yet.
        tail: the node for the next changes.
    """

    __slots__ = ("matcher", "pending", "subscribers", "tail")

    def __init__(self, matcher: Matcher) -> None:
        self.matcher = matcher
        self.pending: list[Change] = []
        self.tail = Node()
        self.subscribers: set[Subscriber] = set()

    def push(self) -> None:
        """Give the pending changes to the subscribers."""
        tail = self.tail
        tail.changes, self.pending = self.pending, []
        tail.next = self.tail = Node()
        for one in self.subscribers:
            one.wake()


class Topic:
    """The groups of one resource."""

    def __init__(self, form: ChangeForm) -> None:
        self.form = form
        self._groups: dict[object, Group] = {}
        # Groups with an equality, by its field and value; and those without one.
        self._indexed: dict[str, dict[Any, list[Group]]] = {}
        self._scanned: list[Group] = []

    def __bool__(self) -> bool:
        return bool(self._groups)

    def join(self, subscriber: "Subscriber") -> Group:
        """Add a subscriber to its group."""
        matcher = subscriber.matcher
        group = self._groups.get(matcher.key)
        if group is None:
            group = self._groups[matcher.key] = Group(matcher)
            if matcher.first is None:
                self._scanned.append(group)
            else:
                by_value = self._indexed.setdefault(matcher.first.field, {})
                by_value.setdefault(matcher.first.value, []).append(group)
        group.subscribers.add(subscriber)
        return group

    def leave(self, group: Group, subscriber: "Subscriber") -> None:
        """Remove a subscriber, and its group after the last one."""
        group.subscribers.discard(subscriber)
        matcher = group.matcher
        if group.subscribers or self._groups.get(matcher.key) is not group:
            return
        del self._groups[matcher.key]
        if matcher.first is None:
            self._scanned.remove(group)
            return
        by_value = self._indexed[matcher.first.field]
        alike = by_value[matcher.first.value]
        alike.remove(group)
        if not alike:
            del by_value[matcher.first.value]
        if not by_value:
            del self._indexed[matcher.first.field]

    def match(self, change: Change, touched: set[Group]) -> None:
        """Add a change to the groups that it matches."""
        for field, by_value in self._indexed.items():
            for group in by_value.get(getattr(change.row, field), ()):
                if group.matcher.rest(change):
                    group.pending.append(change)
                    touched.add(group)
        for group in self._scanned:
            if group.matcher.matches(change):
                group.pending.append(change)
                touched.add(group)
