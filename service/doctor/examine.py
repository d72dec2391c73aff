"""Run checks one after the other, each within its time; whatever one does, there is a line."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

import asyncpg
from redis.exceptions import ResponseError

from service.cache.client import redis_errors
from service.db.access import first_line
from service.doctor.check import Check, Finding, fail, skip, warn
from service.doctor.subject import Skipped, Subject

Result = TypeVar("Result")
# A check that is given up is cancelled so many times, since each await in a `finally` may hang too.
CANCELLATIONS = 5
CANCELLING_SECONDS = 0.2
STORES = {"database": "PostgreSQL", "redis": "Redis"}


async def examine(
    subject: Subject, checks: Iterable[Check]
) -> AsyncIterator[tuple[Check, Finding]]:
    """Yield each check with its finding; the connections are closed at the end."""
    try:
        for check in checks:
            yield check, await _bounded(check, subject)
    finally:
        await subject.close()


async def _bounded(check: Check, subject: Subject) -> Finding:
    task = asyncio.ensure_future(check.examine(subject))
    done, _ = await asyncio.wait({task}, timeout=check.seconds)
    if not done:
        subject.give_up(check.store)
        for _ in range(CANCELLATIONS):
            task.cancel()
            if (await asyncio.wait({task}, timeout=CANCELLING_SECONDS))[0]:
                break
        else:
            task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        who = STORES.get(check.store or "", "it")
        return fail(
            f"{who} did not answer within {check.seconds:g} s",
            f"see the log and the load of {who}" if check.store else "try again",
        )
    try:
        return task.result()
    except Skipped as why:
        return skip(str(why))
    except asyncpg.InsufficientPrivilegeError as error:
        return skip(f"the role may not ask: {first_line(error)}")
    except Exception as error:  # noqa: BLE001 - a wrong check must not hide the others
        return _failed(check, error)


def _failed(check: Check, error: Exception) -> Finding:
    what = f"{type(error).__name__}: {first_line(error)}".removesuffix(": ")
    match error:
        case asyncpg.PostgresConnectionError() | asyncpg.InterfaceError() if check.store:
            return fail("the connection to PostgreSQL was lost", "see its log, and try again")
        case asyncpg.PostgresError() if check.store:
            return warn(f"PostgreSQL refused the question: {first_line(error)}", "see its log")
        case ResponseError():
            return skip(f"Redis refused the question: {first_line(error)}")
        case _ if check.store == "redis" and isinstance(error, redis_errors()):
            return fail(f"Redis did not answer: {what}", "see its log, and try again")
    return fail(f"this check has a bug: {what}", "report it, with this line")
