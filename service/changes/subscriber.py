"""One client that is subscribed to changes."""

import asyncio
from time import monotonic
from typing import Any

from service.changes.change import Change, ChangeForm
from service.changes.feed import Feed
from service.changes.groups import Group, Node
from service.changes.matching import Matcher

# A heartbeat has the position up to which nothing else was found.
HEARTBEAT_SECONDS = 15.0
# A client that takes nothing for so long is dropped; and at a stop.
SLOW_SECONDS, LAST_SECONDS = 30.0, 1.0
# Of one write to a client, and changes of one page of the past.
WRITE_BYTES, PAGE_CHANGES = 65_536, 500


class Subscriber:
    """Changes after a position that match: first those of the past, then each as it comes.

    Attributes:
        position: all changes up to it have been taken.
        ended: nothing more comes.
        beat: a heartbeat is due.
        sending_since: since when the client has not taken what was written; None if it has.
        drop: called if it takes nothing.
    """

    def __init__(self, feed: Feed, form: ChangeForm, matcher: Matcher, after: int) -> None:
        self.feed = feed
        self.form = form
        self.matcher = matcher
        self.position = after
        self.ended = feed.stopping
        self.beat = False
        self.sending_since: float | None = None
        self.task: asyncio.Task[Any] | None = None
        self.dropped = False
        self._beat_at = monotonic() + HEARTBEAT_SECONDS
        self._group: Group | None = None
        self._node: Node | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def past(self, limit: int = PAGE_CHANGES) -> list[Change] | None:
        """Return a page of the changes that were committed before; None after the last one.

        A page may be empty: `position` has moved. Then it has joined its group. Nothing is awaited
        between the look at the position of the feed and that, so no change is lost or comes twice.

        Raises:
            Problem: 410, 503 or 504.
        """
        feed = self.feed
        position = await feed.position()
        if self.ended:
            return None
        if self.position >= position:
            self._group = feed.topics[self.form.name].join(self)
            self._node = self._group.tail
            return None
        matches = self.matcher.matches
        found, self.position = await feed.page(self.form, matches, self.position, limit)
        return found

    def take(self, limit: int) -> list[Change]:
        """Return the changes that have come, at most `limit`, and move the position."""
        found: list[Change] = []
        while (node := self._node) is not None and node.next is not None:
            new = [one for one in node.changes if one.position > self.position]
            room = limit - len(found)
            if len(new) > room:
                found += new[:room]
                self.position = found[-1].position
                return found
            found += new
            self._node = node.next
        self.position = max(self.position, self.feed.end)
        return found

    def take_events(self) -> bytes:
        """Return the changes that have come as events, at most about WRITE_BYTES."""
        parts: list[bytes] = []
        size = 0
        while (node := self._node) is not None and node.next is not None:
            changes = node.changes
            if changes[0].position > self.position:
                parts.append(node.events)
                self.feed.sent += len(changes)
            else:  # some were found in the past
                new = [one for one in changes if one.position > self.position]
                parts += [one.event for one in new]
                self.feed.sent += len(new)
            self._node = node.next
            size += len(parts[-1]) if parts else 0
            if size >= WRITE_BYTES:
                self.position = max(self.position, changes[-1].position)
                return b"".join(parts)
        self.position = max(self.position, self.feed.end)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def wait(self) -> None:
        """Wait until there are changes, a heartbeat is due, or it has ended."""
        if self.ended or self.beat or (self._node is not None and self._node.next is not None):
            return
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def wake(self) -> None:
        """Let `wait` return."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def end(self) -> None:
        """Let nothing more come."""
        self.ended = True
        self.wake()

    def look_after(self, now: float) -> None:
        """Called once a second: let it send a heartbeat, or drop it."""
        if self.dropped:
            return
        if self.sending_since is not None:
            lost = False
            if (node := self._node) is not None and node.next is not None:
                lost = node.changes[0].position < self.feed.start
            patience = LAST_SECONDS if self.feed.stopping else SLOW_SECONDS
            if lost or now - self.sending_since > patience:
                self.feed.dropped += 1
                self.dropped = True
                self.end()
                if self.task is not None:
                    self.task.cancel()
        elif now >= self._beat_at:
            self._beat_at = now + HEARTBEAT_SECONDS
            self.beat = True
            self.wake()

    def leave(self) -> None:
        """Leave its group."""
        self.ended = True
        self.feed.remove(self)
        if self._group is not None:
            self.feed.topics[self.form.name].leave(self._group, self)
            self._group = None
        self._node = None
