"""The dashboard by one statement for each part, at the same time: a variant of bench/trials.py."""

import asyncio

from service.dashboard import statements
from service.dashboard.statements import Dashboard
from service.dashboard.structs import DashboardStats
from service.db.database import Database
from service.db.statement import Statement
from service.errors import TimedOut
from service.items.structs import Item
from service.notifications.structs import Notification
from service.users import users

STATS = Statement("dashboard.stats", DashboardStats, statements.stats(), order=("id",))
RECENT = Statement("dashboard.recent", Item, statements.recent(), order=("id",))
UNREAD = Statement("dashboard.unread", Notification, statements.unread(), order=("id",))
PREPARED = (STATS, RECENT, UNREAD)


async def find(db: Database, user_id: int) -> Dashboard | None:
    """Return the dashboard of a user, each part by a connection of its own, within one deadline.

    Raises:
        Problem: a part failed; the others are cancelled.
    """
    try:
        async with asyncio.timeout(db.statement_timeout), asyncio.TaskGroup() as tasks:
            user = tasks.create_task(users.by_id.get(db, user_id))
            stats = tasks.create_task(STATS.only(db, user_id))
            recent = tasks.create_task(db.fetch(RECENT, (user_id,)))
            unread = tasks.create_task(db.fetch(UNREAD, (user_id,)))
    except TimeoutError:
        raise TimedOut("the database took too long; nothing was changed") from None
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    found = user.result()
    if found is None:
        return None
    items = [Item(*record) for record in recent.result()]
    told = [Notification(*record) for record in unread.result()]
    return Dashboard(found, stats.result(), items, told)
