"""The built-in application, whose leases and pauses are short, for test_webhooks.py."""

from service.asgi import built_in
from service.jobs import loop
from service.settings import Settings
from service.webhooks import sender

loop.LEASE_SECONDS, loop.IDLE_SECONDS = 1.5, 1.0
sender.TIMES = sender.Times(first=0.1, longest=0.4, save=0.2, check=2.0, ending=0.5)
app = built_in(Settings.load())
