"""Threads for calls that block."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")


async def in_thread(work: Callable[[], Result]) -> Result:
    """Run what may block (DNS, a network disk) in a thread that delays no exit of the process."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def tell(setter: Callable[[Any], None], value: object) -> None:
        def set_it() -> None:
            if not future.done():
                setter(value)

        try:
            loop.call_soon_threadsafe(set_it)
        except RuntimeError:  # the caller has given up, and the loop is closed
            return

    def run() -> None:
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 - it is raised where the result is awaited
            tell(future.set_exception, error)
        else:
            tell(future.set_result, result)

    threading.Thread(target=run, daemon=True).start()
    found: Result = await future
    return found
