"""The statement of a dashboard: all of it in one round trip.

Its parts on a connection each were slower (`python -m bench trials dashboard`).
"""

from typing import Any

from msgspec import Struct
from sqlalchemy import BigInteger, ColumnElement, Select, bindparam, func, literal_column, select

from service.dashboard.structs import DashboardStats
from service.db.statement import Statement, columns
from service.items import items
from service.items.structs import Item
from service.notifications import notifications
from service.notifications.structs import Notification
from service.users import users
from service.users.structs import User

# Items and notifications shown.
RECENT, UNREAD = 10, 20

# In a subquery, so that the planner does not see the value: with it, PostgreSQL takes the plan for
# all values for a worse one than a plan for this user, and makes a plan at each use: 0.1 ms.
_id = select(bindparam("id", type_=BigInteger)).scalar_subquery()
item, notification = items.table.c, notifications.table.c


class Dashboard(Struct, frozen=True):
    """A user, the figures, the items that changed last, and the newest unread notifications."""

    user: User
    stats: DashboardStats
    recent: list[Item]
    notifications: list[Notification]


def stats() -> Select[Any]:
    """The figures, as a row of DashboardStats."""
    unread = select(func.count()).where(notification.user_id == _id, notification.unread)
    active_price = func.sum(item.price).filter(item.is_active)
    return select(
        func.count().label("items"),
        func.count().filter(item.is_active).label("active_items"),
        # Without zeros at the end, as each price is stored.
        func.trim_scale(func.coalesce(active_price, literal_column("0"))).label("total_price"),
        unread.scalar_subquery().label("unread_notifications"),
    ).where(item.owner_id == _id)


def recent() -> Select[Any]:
    """The items that changed last.

    All items of the user are read, as for the figures. An index in this order would have to be
    changed at each write of an item: docs/decisions/dashboard.md.
    """
    changed = func.coalesce(item.updated_at, item.created_at)
    return (
        select(*columns(Item, items.table))
        .where(item.owner_id == _id)
        .order_by(changed.desc(), item.id.desc())
        .limit(literal_column(str(RECENT)))
    )


def unread() -> Select[Any]:
    """The newest unread notifications."""
    return (
        select(*columns(Notification, notifications.table))
        .where(notification.user_id == _id, notification.unread)
        .order_by(notification.id.desc())
        .limit(literal_column(str(UNREAD)))
    )


def _rows(core: Select[Any]) -> ColumnElement[Any]:
    """The rows of a query as an array of records."""
    found = core.subquery()
    # The order of the query is kept: there is nothing else to read.
    return func.array(select(func.row(*found.c)).scalar_subquery())


def _dashboard(*values: Any) -> Dashboard:
    *user, figures, changed, told = values
    return Dashboard(
        User(*user),
        DashboardStats(*figures),
        [Item(*one) for one in changed],
        [Notification(*one) for one in told],
    )


_figures = stats().subquery("figures")
find: Statement[Dashboard] = Statement(
    "dashboard.find",
    _dashboard,
    select(
        *columns(User, users.table),
        select(func.row(*_figures.c)).scalar_subquery().label("stats"),
        _rows(recent()).label("recent"),
        _rows(unread()).label("notifications"),
    ).where(users.table.c.id == _id),
    order=("id",),
)
