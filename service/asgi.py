"""For any ASGI server: `granian --interface asgi service.asgi:app`, `uvicorn service.asgi:app`."""

from service.app import create_app
from service.settings import Settings

app = create_app(Settings.load())
