"""The table of notifications."""

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
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from service.users import users

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
