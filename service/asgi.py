"""The built-in application with items and users, for any ASGI server.

`granian --interface asgi service.asgi:app`, `uvicorn service.asgi:app`.
"""

import sys
from pathlib import Path

from service.app import Application, create_app
from service.dashboard.routes import dashboard
from service.items import items
from service.items.seed import samples
from service.keys import api_keys, keys
from service.notifications import notifications
from service.notifications.delivery import deliver
from service.notifications.imports import import_ended
from service.notifications.welcome import welcome
from service.settings import Settings, SettingsError
from service.users import users

PACKAGE = Path(__file__).parent
# In a checkout beside the package; in a wheel inside it (see pyproject.toml).
MIGRATIONS = next(
    path
    for path in (PACKAGE.parent / "sql" / "migrations", PACKAGE / "sql" / "migrations")
    if path.is_dir()
)


def built_in(settings: Settings) -> Application:
    """Return the application of items and users, with these settings."""
    return create_app(
        settings,
        resources=(items, users, keys, notifications),
        routes=(dashboard,),
        migrations=MIGRATIONS,
        title="Swiftlet",
        description="Items and Users over HTTP.",
        info={"contact": {"name": "Swiftlet"}, "license": {"name": "MIT", "identifier": "MIT"}},
        seed=samples,
        auth=api_keys,
        jobs=(welcome, deliver),
        after_import=import_ended,
    )


try:
    settings = Settings.load()
except SettingsError as error:
    # Exit here: the server would print a traceback.
    sys.exit(f"swiftlet: {error}")
app = built_in(settings)
