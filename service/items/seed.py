"""Sample users and items: the same rows at every run, through COPY, and none of them twice."""

import itertools
import random
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import asyncpg

from service.db.access import connect
from service.db.job_table import SWITCH

CHUNK = 10_000
START = datetime(2026, 1, 1, tzinfo=UTC)
ADJECTIVES = ("Brass", "Quiet", "Folding", "Spare", "Walnut", "Tiny", "Striped", "Heavy")
NOUNS = ("Widget", "Lamp", "Hinge", "Notebook", "Kettle", "Bracket", "Whistle", "Compass")
FIRST = ("Ada", "Grace", "Edsger", "Barbara", "Alan", "Margaret", "Donald", "Radia")
LAST = ("Lovelace", "Hopper", "Dijkstra", "Liskov", "Turing", "Hamilton", "Knuth", "Perlman")

# Rows go into a stage by COPY, then over in one statement that leaves out those that are there:
# a sample's email and sku are its identity.
STAGES = {
    "users": (
        (
            "CREATE TEMP TABLE users_stage (email text, username text, full_name text, role text,"
            " is_active boolean, created_at timestamptz) ON COMMIT DROP"
        ),
        (
            "INSERT INTO users (email, username, full_name, role, is_active, created_at)"
            " SELECT * FROM users_stage ON CONFLICT DO NOTHING"
        ),
    ),
    "items": (
        (
            "CREATE TEMP TABLE items_stage (sku text, name text, description text, price numeric,"
            " is_active boolean, owner text, created_at timestamptz) ON COMMIT DROP"
        ),
        (
            "INSERT INTO items (sku, name, description, price, is_active, owner_id, created_at)"
            " SELECT s.sku, s.name, s.description, s.price, s.is_active, u.id, s.created_at"
            " FROM items_stage s LEFT JOIN users u ON lower(u.email) = s.owner"
            " ON CONFLICT DO NOTHING"
        ),
    ),
}

# Told after each chunk: the table, and the rows of it done so far.
Progress = Callable[[str, int], None]


class Samples:
    """What `swiftlet seed` writes for the built-in application."""

    rows: Mapping[str, int] = {"users": 1000, "items": 10_000}

    async def write(self, url: str, rows: Mapping[str, int], progress: Progress) -> dict[str, int]:
        """Write so many users and items; run again, it goes on where rows are missing.

        Returns:
            How many of them are new.
        """
        samples = {
            "users": _users(rows["users"]),
            "items": _items(rows["items"], rows["users"]),
        }
        connection = await connect(url)
        try:
            new = {
                name: await _write(connection, name, some, progress)
                for name, some in samples.items()
            }
            # So that the planner knows the rows, and index-only scans find their pages all-visible.
            await connection.execute("VACUUM (ANALYZE) users, items")
        finally:
            await connection.close()
        return new


samples = Samples()


async def _write(
    connection: asyncpg.Connection,
    table: str,
    rows: Iterator[tuple[object, ...]],
    progress: Progress,
) -> int:
    create, insert = STAGES[table]
    done = new = 0
    while chunk := list(itertools.islice(rows, CHUNK)):
        async with connection.transaction():
            # Samples are not welcomed. For the transaction: a pooler gives the session to others.
            await connection.execute(f"SET LOCAL {SWITCH} = 'off'")
            await connection.execute(create)
            await connection.copy_records_to_table(f"{table}_stage", records=chunk)
            new += int((await connection.execute(insert)).rpartition(" ")[2])
        done += len(chunk)
        progress(table, done)
    return new


def _users(count: int) -> Iterator[tuple[object, ...]]:
    chance = random.Random(1)  # noqa: S311 - samples, not secrets
    for number in range(1, count + 1):
        first, last = chance.choice(FIRST), chance.choice(LAST)
        yield (
            f"user{number}@example.com",
            f"user{number}",
            None if number % 10 == 0 else f"{first} {last}",
            "admin" if number % 100 == 1 else "user",
            number % 20 != 0,
            START + timedelta(minutes=number),
        )


def _items(count: int, users: int) -> Iterator[tuple[object, ...]]:
    chance = random.Random(2)  # noqa: S311 - samples, not secrets
    for number in range(1, count + 1):
        owner = chance.randint(1, users) if users and number % 4 else 0
        yield (
            f"SAMPLE-{number:08}",
            f"{chance.choice(ADJECTIVES)} {chance.choice(NOUNS)} {number}",
            None if number % 5 == 0 else f"Sample number {number}, made by service seed",
            None if number % 50 == 0 else Decimal(chance.randint(1, 99_999)) / 100,
            number % 20 != 0,
            f"user{owner}@example.com" if owner else None,
            START + timedelta(seconds=number),
        )
