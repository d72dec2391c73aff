"""A Redis client from REDIS_URL, set so that a slow or absent Redis delays a request by 50 ms.

redis-py is imported at the first client: a worker without one needs neither its 0.1 s of CPU nor
its 8 MiB.
"""

import sys
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote, urlsplit

from service.threads import in_thread

if TYPE_CHECKING:
    from redis.asyncio import Redis, RedisCluster
    from redis.asyncio.connection import AbstractConnection

    Client = Redis | RedisCluster

SECONDS = 0.05
CONNECTIONS = 8
PORT, SENTINEL_PORT = 6379, 26_379


def redis_errors() -> tuple[type[Exception], ...]:
    """What is raised when Redis can't be used."""
    # A cluster's errors are not subclasses of RedisError.
    from redis.exceptions import RedisClusterException, RedisError

    return RedisError, RedisClusterException, OSError, TimeoutError


def load() -> None:
    """Import redis-py: before workers are forked, so that they share its memory."""
    import redis.asyncio  # noqa: F401 - see above


async def loaded() -> None:
    """Import redis-py, if it is not, in a thread: other requests do not wait."""
    if "redis.asyncio" not in sys.modules:
        await in_thread(load)


def client(url: str, seconds: float = SECONDS) -> "Client":
    """A client of a server, of a cluster, or of the master that sentinels name.

    redis-py's defaults are 5 s and ten tries: a stopped Redis would delay a request by a minute.
    It would also wait 10 s longer for a server that announces its maintenance.

    Args:
        url: as REDIS_URL: `redis://`, `rediss://`, `unix://`, `redis+cluster://host:port,host:port`
            or `redis+sentinel://host:port,host:port/name/db`, each with `user:password@` before.
        seconds: the timeout for connecting, and for each answer.
    """
    from redis import __version__
    from redis.asyncio import Redis, RedisCluster, Sentinel
    from redis.asyncio.cluster import ClusterNode
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.driver_info import DriverInfo
    from redis.maint_notifications import MaintNotificationsConfig

    options: dict[str, Any] = {
        "socket_timeout": seconds,
        "socket_connect_timeout": seconds,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 3,
        "max_connections": CONNECTIONS,
        # Otherwise each connection looks its version up in the installed packages.
        "driver_info": DriverInfo(lib_version=__version__),
    }
    quiet: dict[str, Any] = {"maint_notifications_config": MaintNotificationsConfig(enabled=False)}
    scheme = url.partition(":")[0]
    if scheme == "redis+cluster":
        places, login, _ = _parts(url, PORT)
        nodes = [ClusterNode(host, port) for host, port in places]
        return RedisCluster(startup_nodes=nodes, **login, **quiet, **options)
    if scheme == "redis+sentinel":
        places, login, path = _parts(url, SENTINEL_PORT)
        name, _, number = path.partition("/")
        asking = {**quiet, **options}
        sentinel = Sentinel(places, sentinel_kwargs=asking, **options)  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
        master = sentinel.master_for(
            name or "mymaster", db=int(number or 0), **login, **quiet, **options
        )
        return cast("Redis", master)
    made = Redis.from_url(url, **quiet, **options)
    # What the URL says comes first there, but `multiplexed.py` needs RESP3.
    made.connection_pool.connection_kwargs["protocol"] = options["protocol"]
    return made


async def connect(one: "Client", key: str) -> "AbstractConnection":
    """A new connection to the server that has this key; a cluster is asked again which one.

    Raises:
        RedisError, RedisClusterException, OSError, TimeoutError: there is none.
    """
    from redis.asyncio import RedisCluster
    from redis.exceptions import RedisClusterException

    if isinstance(one, RedisCluster):
        await one.aclose()
        await one.initialize()
        node = one.get_node_from_key(key)
        if node is None:
            raise RedisClusterException(f"no node of the cluster has the slot of {key}")
        made = node.connection_class(**node.connection_kwargs)
    else:
        made = one.connection_pool.make_connection()  # type: ignore[no-untyped-call]  # redis-py
    try:
        await made.connect()  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
    except BaseException:
        made._close()  # type: ignore[no-untyped-call]  # noqa: SLF001 - without it, redis-py warns
        raise
    return made


def _parts(url: str, port: int) -> tuple[list[tuple[str, int]], dict[str, Any], str]:
    """Hosts with their ports, the login, the path without its slash."""
    parts = urlsplit(url)
    login, _, hosts = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    places = []
    for place in hosts.split(","):
        host, colon, given = place.rpartition(":")
        if not colon or given.endswith("]"):  # no port, maybe an IPv6 address
            host, given = place, str(port)
        places.append((host.strip("[]"), int(given)))
    known = {"username": unquote(user), "password": unquote(password)}
    named = {name: value for name, value in known.items() if value}
    return places, named, parts.path.removeprefix("/")


def is_lost(error: Exception) -> bool:
    """Whether Redis can't be used."""
    if isinstance(error, RuntimeError):  # uvloop's, for a write to a connection just closed
        return "handler is closed" in str(error)
    return isinstance(error, redis_errors())
