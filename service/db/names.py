"""The names under which PostgreSQL knows the product. Migrations have two of them: keep them.

Applications that share a database share them too: docs/decisions/applications-on-one-database.md.
"""

from typing import Any

# The application_name of connections whose writes the trigger does not report (migration 0005):
# their process invalidates its cache and, over Redis, those of other workers. Only connections of a
# pool may have it, because cache/coherence.py must see them. Other writes are reported.
SILENT = "swiftlet"
# Other connections of the service.
AUDIBLE = "swiftlet-audible"
# The connection on which a worker hears of writes.
LISTENER = "swiftlet-cache"
# The connection on which a worker listens for jobs and changes.
HEARER = "swiftlet-listener"
# The channel of NOTIFY.
CHANNEL = "swiftlet"
# The channels of NOTIFY for queued jobs, and for changed rows.
JOBS_CHANNEL = "swiftlet-jobs"
CHANGES_CHANNEL = "swiftlet-changes"
# `info` of a table that only the library reads and writes: no response depends on it alone.
INTERNAL: dict[Any, Any] = {"internal": True}
