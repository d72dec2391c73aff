"""The names under which PostgreSQL knows the product. Migrations have two of them: keep them.

Applications that share a database share them too: docs/decisions/applications-on-one-database.md.
"""

# The application_name of connections whose writes the trigger does not report (migration 0005):
# their process invalidates its cache and, over Redis, those of other workers. Only connections of a
# pool may have it, because cache/coherence.py must see them. Other writes are reported.
SILENT = "swiftlet"
# Other connections of the service.
AUDIBLE = "swiftlet-audible"
# The connection on which a worker hears of writes.
LISTENER = "swiftlet-cache"
# The channel of NOTIFY.
CHANNEL = "swiftlet"
