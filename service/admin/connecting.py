"""A connection of its own for a plan: not one of the pool, which has to serve."""

from service.admin.explain import Explained, Question, explain
from service.db.access import connect
from service.db.pooled_connection import SESSION

# Of a command, whose user waits and may end it.
COMMAND_SECONDS = 60


async def explain_once(url: str, asked: Question) -> Explained:
    """Explain a statement for a command; see explain.explain.

    Raises:
        DatabaseError: no connection.
    """
    timeout = str(COMMAND_SECONDS * 1000)
    connection = await connect(url, **SESSION, lock_timeout=timeout, statement_timeout=timeout)
    try:
        return await explain(connection, asked)
    finally:
        await connection.close()
