"""For any ASGI server: `granian --interface asgi service.asgi:app`, `uvicorn service.asgi:app`."""

import sys

from service.app import create_app
from service.settings import Settings, SettingsError

try:
    settings = Settings.load()
    _ = settings.required_database_url
except SettingsError as error:
    # The server would print a traceback around this one line.
    sys.exit(f"swiftlet: {error}")
app = create_app(settings)
