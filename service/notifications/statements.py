"""The table of notifications, and the statements beside those that the declaration derives."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    ForeignKeyConstraint,
    Identity,
    Index,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    bindparam,
    false,
    func,
    literal_column,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB, insert

from service.db.statement import Statement, columns
from service.notifications.structs import FoundNotification, Notification, PostedNotification
from service.users import users

# Notifications that one request marks as read: 1,000 take 60 ms on a busy machine.
MAX_READ = 1000

table = Table(
    "notifications",
    MetaData(),
    Column("id", BigInteger, Identity(always=True), nullable=False),
    # Null if it is for no user; it is still posted to SERVICE_NOTIFY_URL.
    Column("user_id", BigInteger),
    Column("kind", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("data", JSONB, nullable=False, server_default=text("'{}'")),
    Column("unread", Boolean, nullable=False, server_default=text("true")),
    Column("read_at", DateTime(timezone=True)),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    # What caused it, as `job 17`: a job that runs twice makes it once.
    Column("source", Text),
    PrimaryKeyConstraint("id", name="notifications_pkey"),
    UniqueConstraint("source", name="notifications_source_key"),
    ForeignKeyConstraint(
        ["user_id"], [users.table.c.id], name="notifications_user_id_fkey", ondelete="CASCADE"
    ),
    postgresql_with={"fillfactor": "90"},
)
Index("notifications_created_at_idx", table.c.created_at, table.c.id)
Index("notifications_user_id_idx", table.c.user_id, table.c.id)
Index(
    "notifications_unread_idx",
    table.c.user_id,
    table.c.id,
    postgresql_where=text("unread"),
)

_given = ("user_id", "kind", "message", "data", "source")
add = Statement(
    "notifications.add",
    Notification,
    insert(table)
    .values({name: bindparam(name, type_=table.c[name].type) for name in _given})
    .on_conflict_do_nothing(index_elements=[table.c.source])
    .returning(*columns(Notification, table)),
    order=_given,
    prepare=False,
)

# The row is as it was before. Of two requests at the same time the second one waits, finds that the
# notification is not unread any more, and changes nothing.
_this = (
    table.c.id == bindparam("id", type_=BigInteger),
    table.c.user_id == bindparam("user_id", type_=BigInteger),
)
_marked = (
    update(table)
    .values(unread=false(), read_at=func.now())
    .where(*_this, table.c.unread)
    .returning(table.c.id)
    .cte("marked")
)
mark_read = Statement(
    "notifications.mark_read",
    FoundNotification,
    select(*columns(FoundNotification, table)).where(*_this).add_cte(_marked),
    order=("id", "user_id"),
    prepare=False,
)

# The oldest first, so that two requests lock the rows in one order.
_unread = (
    select(table.c.id)
    .where(
        table.c.user_id == bindparam("user_id", type_=BigInteger),
        table.c.unread,
        table.c.id <= bindparam("up_to", type_=BigInteger),
    )
    .order_by(table.c.id)
    .limit(literal_column(str(MAX_READ)))
    .with_for_update()
    .cte("chosen")
)
mark_all_read = Statement(
    "notifications.mark_all_read",
    FoundNotification,
    update(table)
    .values(unread=false(), read_at=func.now())
    .where(table.c.id == _unread.c.id)
    .returning(*columns(FoundNotification, table)),
    order=("user_id", "up_to"),
    prepare=False,
)

posted = Statement(
    "notifications.posted",
    PostedNotification,
    select(*columns(PostedNotification, table)).where(table.c.id == bindparam("id")),
    order=("id",),
    prepare=False,
)

statements: tuple[Statement[Any], ...] = (add, mark_read, mark_all_read, posted)
