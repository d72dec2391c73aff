"""An application that fails, waits and logs on request, for test_logs_served.py."""

import asyncio
import logging
import warnings

from guarded_app import Keys
from msgspec import Struct
from sqlalchemy import Float, bindparam, func, select

from service.app import create_app
from service.asgi import MIGRATIONS
from service.db.batch import single_flight
from service.db.statement import Statement
from service.items import items
from service.logs import FOREIGN, logger
from service.settings import Settings
from service.users import users
from service.web.codec import Query, Reply, encode
from service.web.endpoint import Operation
from service.web.request import Request

sleep = Statement(
    "test.sleep",
    tuple,
    select(func.pg_sleep(bindparam("seconds", type_=Float)).label("slept")),
    prepare=False,
)


class Wait(Struct):
    """For how long."""

    seconds: float = 0.1


wait = Query(Wait)


async def fails(_: Request) -> Reply:
    raise ValueError("a bug")


async def sleeps(request: Request) -> Reply:
    values = {"seconds": request.query(wait).seconds}
    await single_flight(request.db, sleep, values, len)
    return Reply(encode({}))


async def speaks(_: Request) -> Reply:
    for name in FOREIGN:
        if name != "py.warnings":
            logging.getLogger(name).warning("spoken by %s", name)
        logging.getLogger(name).info("whispered")
    warnings.warn("spoken by a warning", UserWarning, stacklevel=1)
    asyncio.get_running_loop().call_exception_handler({"message": "spoken by the loop"})
    logger.info("spoken by %s", "us")
    return Reply(encode({}))


keys = Keys()
keys.add("reader", "read", user=7)
app = create_app(
    Settings.load(),
    resources=(items, users),
    routes=[
        Operation("GET", "/fails/{id}", fails, "Raise an error"),
        Operation("GET", "/sleeps/{id}", sleeps, "Wait", query=Wait),
        Operation("GET", "/speaks", speaks, "Log", access="open"),
    ],
    migrations=MIGRATIONS,
    auth=keys,
)
