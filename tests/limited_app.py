"""An application whose operations have rate limits, for test_limits_served.py."""

from service.app import create_app
from service.cache.generations import Tags
from service.settings import Settings
from service.web.codec import Reply, encode
from service.web.endpoint import Operation
from service.web.request import Request


async def answer(_: Request) -> Reply:
    return Reply(encode({}))


def no_tags(_: Request) -> Tags:
    return ()


operations = [
    Operation("GET", "/read", answer, "Under the default limit", access="open"),
    Operation("GET", "/cached", answer, "The same", access="open", cache_tags=no_tags),
    Operation("POST", "/write", answer, "Under the limit of writes", access="open"),
    Operation("GET", "/second", answer, "Its own limit", access="open", limit="20/s"),
    Operation("GET", "/exempt", answer, "No limit", access="open", limit="off"),
]
app = create_app(Settings.load(), routes=operations)
