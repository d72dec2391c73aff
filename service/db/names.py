"""The names under which PostgreSQL knows the product. Migrations have two of them: keep them.

Applications that share a database share them too: docs/decisions/applications-on-one-database.md.
"""

# The application_name of connections whose writes the trigger does not tell (migration 0005): their
# process tells its caches and, over Redis, those of the others. Only held connections may have it:
# cache/coherence.py must be able to see them. Writes under any other name are told.
SILENT = "swiftlet"
# Other connections of the service.
AUDIBLE = "swiftlet-audible"
# The connection on which a worker hears of writes.
LISTENER = "swiftlet-cache"
# The channel of NOTIFY.
CHANNEL = "swiftlet"
