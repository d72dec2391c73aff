"""The tables of webhooks: where changes are posted to, and what was not delivered."""

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    func,
)

from service.db.names import INTERNAL

metadata = MetaData()

webhooks = Table(
    "webhooks",
    metadata,
    Column("id", BigInteger, Identity(always=True), nullable=False),
    Column("url", Text, nullable=False),
    # The resource whose changes are posted.
    Column("resource", Text, nullable=False),
    # Every change up to it has been delivered, or is in webhook_failures.
    Column("position", BigInteger, nullable=False),
    # Why nothing gets through at present; null if it does.
    Column("error", Text),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    PrimaryKeyConstraint("id", name="webhooks_pkey"),
    info=INTERNAL,
    postgresql_with={"fillfactor": "50"},
)
webhook_failures = Table(
    "webhook_failures",
    metadata,
    Column("id", BigInteger, Identity(always=True), nullable=False),
    Column("webhook_id", BigInteger, nullable=False),
    Column("position", BigInteger, nullable=False),
    # What was posted, byte for byte. Null if changes were trimmed from the log before they could
    # be posted: those after `position` up to `lost_to`.
    Column("body", Text),
    Column("lost_to", BigInteger),
    Column("attempts", Integer, nullable=False),
    Column("error", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    PrimaryKeyConstraint("id", name="webhook_failures_pkey"),
    ForeignKeyConstraint(
        ["webhook_id"],
        [webhooks.c.id],
        name="webhook_failures_webhook_id_fkey",
        ondelete="CASCADE",
    ),
    info=INTERNAL,
)
Index(
    "webhook_failures_webhook_id_idx",
    webhook_failures.c.webhook_id,
    webhook_failures.c.position,
    unique=True,
)
TABLES = (webhooks, webhook_failures)
