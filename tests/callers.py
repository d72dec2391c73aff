"""The callers of test_authorization.py, and the requests of authorization.txt."""

import asyncio
import hashlib
import json
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import asyncpg
import httpx
from conftest import Service, check_answer

from service.asgi import app
from service.db import change_log
from service.db.schema import totals
from service.keys.key_format import new_key, parse
from service.web.principal_cache import WRONG_SECONDS

GOLDEN = Path(__file__).parent / "authorization.txt"
WRITES = ("POST", "PUT", "PATCH", "DELETE")
# No row has this id.
NONE = 999_999
# What no response and no log line may have.
NEVER = ("secret_hash",)
# Triggers write the totals and the log of changes. Others refer to users.
WRITTEN = {totals, *change_log.TABLES}
TABLES = sorted((one.name for one in app.tables if one not in WRITTEN), key="users".__ne__)

NO_NAMES: Mapping[str, str] = MappingProxyType({})

Rows = dict[str, dict[str, dict[str, Any]]]


class Asked(NamedTuple):
    """A row of the golden file.

    Args:
        cells: by the name of a caller, the status, with `=` if nothing changes.
        method: of the request.
        target: path and query, with names of rows such as `<item>`.
        body: the same; empty without one.
    """

    cells: dict[str, str]
    method: str
    target: str
    body: str

    @property
    def path(self) -> str:
        """The path, without the query."""
        return self.target.partition("?")[0]

    @property
    def name(self) -> str:
        """As it is in the file."""
        return f"{self.method} {self.target} {self.body}".strip()

    @property
    def content_type(self) -> str:
        """The media type of the body."""
        return "application/x-ndjson" if self.path.endswith("/import") else "application/json"


def golden() -> tuple[list[str], list[Asked]]:
    """Return the callers and the rows of the file."""
    lines = [line for line in GOLDEN.read_text().splitlines() if line and line[0] != "#"]
    callers = lines[0].split()
    rows = []
    for line in lines[1:]:
        *cells, request = line.split(maxsplit=len(callers))
        assert len(cells) == len(callers), f"{GOLDEN.name}: a row has too few cells: {line}"
        method, target, *body = request.split(" ", 2)
        rows.append(Asked(dict(zip(callers, cells, strict=True)), method, target, "".join(body)))
    return callers, rows


CALLERS, ROWS = golden()
# Those whose key is never valid.
REFUSED = {"none", "malf", "unkn", "rev", "exp", "inac"}


class Caller(NamedTuple):
    """Who sends a request.

    Args:
        key: the API key; empty without one.
        user_id: the user whose rows it may use; 0 for none.
        admin: whether it may use all.
    """

    key: str
    user_id: int = 0
    admin: bool = False


class Account(NamedTuple):
    """A user with a key."""

    user_id: int
    key_id: int
    key: str


class World:
    """A database with rows of each kind of user, and the callers."""

    def __init__(self, url: str) -> None:
        self.loop = asyncio.new_event_loop()
        self.database = self.loop.run_until_complete(asyncpg.connect(url))
        # `restore` writes users again, which must queue no jobs.
        self.sql("SET swiftlet.queue_jobs = off")
        both, all_three = ["read", "write"], ["read", "write", "admin"]
        self.people = {
            "own": self.account("own", both),
            "other": self.account("other", both),
            "inac": self.account("inac", both, is_active=False),
            "demo": self.account("demo", all_three),
            "plain": self.account("plain", both, role="admin"),
            "admin": self.account("admin", all_three, role="admin"),
        }
        user = self.people["own"].user_id
        self.keys = {
            "rev": self.key(user, both),
            "exp": self.key(user, both),
            "read": self.key(user, ["read"]),
            "write": self.key(user, ["write"]),
            "spare": self.key(user, both),
        }
        self.sql("DELETE FROM keys WHERE id = $1", self.keys["rev"].key_id)
        past = "created_at = now() - interval '9 s', expires_at = now() - interval '1 s'"
        self.sql(f"UPDATE keys SET {past} WHERE id = $1", self.keys["exp"].key_id)
        self.callers = {
            "none": Caller(""),
            "malf": Caller("svc_live_x"),
            "unkn": Caller(new_key()),
            "rev": Caller(self.keys["rev"].key),
            "exp": Caller(self.keys["exp"].key),
            "inac": Caller(self.people["inac"].key),
            "read": Caller(self.keys["read"].key, user),
            "write": Caller(self.keys["write"].key, user),
            **{
                name: Caller(self.people[name].key, self.people[name].user_id, name == "admin")
                for name in ("own", "other", "demo", "plain", "admin")
            },
        }
        assert [*self.callers] == CALLERS
        # For explain: a failure of a webhook refers to one.
        webhook = "('http://127.0.0.1:9/', 'items', 0)"
        self.sql(f"INSERT INTO webhooks (url, resource, position) VALUES {webhook}")
        self.sql("INSERT INTO items (name, sku) VALUES ('Lamp of no one', 'sku-none')")
        free = self.sql("SELECT id FROM items WHERE sku = 'sku-none'")[0]["id"]
        item = self.sql("SELECT id FROM items WHERE sku = 'sku-own'")[0]["id"]
        told = "INSERT INTO notifications (user_id, kind, message) VALUES ($1, 'test', $2)"
        for name, one in self.people.items():
            self.sql(told, one.user_id, f"For person {name}")
        notification = self.sql("SELECT id FROM notifications WHERE user_id = $1", user)[0]["id"]
        failed = "INSERT INTO jobs (kind, argument, state, user_id, finished_at)"
        self.sql(f"{failed} VALUES ('welcome', '{{}}', 'failed', $1, now())", user)
        job = self.sql("SELECT id FROM jobs")[0]["id"]
        self.names = {
            "<job>": str(job),
            "<item>": str(item),
            "<free>": str(free),
            "<sku>": "sku-own",
            "<key>": str(self.keys["spare"].key_id),
            "<notification>": str(notification),
            "<user>": str(user),
            "<another>": str(self.people["other"].user_id),
            "<file>": "base.css",
            "<script>": "console.js",
        }
        self.sql("CREATE SCHEMA before")
        for table in TABLES:
            self.sql(f"CREATE TABLE before.{table} AS TABLE {table}")
        self._restore = ";".join(
            (
                *(f"DELETE FROM {table}" for table in TABLES[::-1]),
                *(
                    f"INSERT INTO {table} OVERRIDING SYSTEM VALUE TABLE before.{table}"
                    for table in TABLES
                ),
            )
        )
        self.marks = self._marks()
        self.state = self.checksum()

    def account(
        self, name: str, scopes: list[str], *, role: str = "user", is_active: bool = True
    ) -> Account:
        """Make a user with a key and an item."""
        user: int = self.sql(
            "INSERT INTO users (email, username, full_name, role, is_active)"
            " VALUES ($1, $2, $3, $4, $5) RETURNING id",
            *(*marks_of(name), role, is_active),
        )[0]["id"]
        self.sql(
            "INSERT INTO items (name, sku, owner_id) VALUES ($1, $2, $3)",
            *(f"Lamp of {name}", f"sku-{name}", user),
        )
        return self.key(user, scopes)

    def key(self, user: int, scopes: list[str]) -> Account:
        """Make a key of a user."""
        text = new_key()
        parsed = parse(text.encode())
        assert parsed is not None
        made: int = self.sql(
            "INSERT INTO keys (user_id, name, prefix, secret_hash, scopes)"
            " VALUES ($1, 'test', $2, $3, $4) RETURNING id",
            *(user, parsed.public_id, parsed.secret_hash, scopes),
        )[0]["id"]
        return Account(user, made, text)

    def close(self) -> None:
        """Close the connection."""
        self.loop.run_until_complete(self.database.close())
        self.loop.close()

    def sql(self, text: str, *args: object) -> list[asyncpg.Record]:
        """Run SQL; several statements if there are no arguments."""
        if args or text.startswith("SELECT"):
            return self.loop.run_until_complete(self.database.fetch(text, *args))
        self.loop.run_until_complete(self.database.execute(text))
        return []

    def checksum(self) -> str:
        """A digest of all rows; without the times at which the keys were last used."""
        each = (
            f"(SELECT string_agg(md5((to_jsonb(t) - 'last_used_at')::text), '' ORDER BY"
            f" to_jsonb(t)::text) FROM {table} t)"
            for table in TABLES
        )
        found: str = self.sql(f"SELECT md5(concat_ws('|', {', '.join(each)})) AS sum")[0]["sum"]
        return found

    def rows(self) -> Rows:
        """All rows, by their table and id."""
        return {
            table: {
                str(row.get("id", place)): row
                for place, (text,) in enumerate(self.sql(f"SELECT to_jsonb(t) FROM {table} t"))
                if (row := json.loads(text))
            }
            for table in TABLES
        }

    def restore(self) -> None:
        """Make all rows as they were at the start."""
        self.sql(self._restore)

    def fill(self, text: str, caller: Caller, names: Mapping[str, str] = NO_NAMES) -> str:
        """Replace the names of rows; `names` come before those of the world."""
        for name, value in {**self.names, "<self>": str(caller.user_id or 1), **names}.items():
            text = text.replace(name, value)
        return text

    def ask(
        self,
        client: httpx.Client,
        asked: Asked,
        name: str,
        *,
        other_header: bool = False,
        headers: Mapping[str, str] = NO_NAMES,
        names: Mapping[str, str] = NO_NAMES,
    ) -> httpx.Response:
        """Send a request of the golden file as one of the callers, and look for leaks."""
        caller = self.callers[name]
        headers = {**({"Content-Type": asked.content_type} if asked.body else {}), **headers}
        if caller.key and other_header:
            headers["X-API-Key"] = caller.key
        elif caller.key:
            headers["Authorization"] = f"Bearer {caller.key}"
        for last in (False, True):
            response = client.request(
                asked.method,
                self.fill(asked.target, caller, names),
                content=self.fill(asked.body, caller, names).replace("\\n", "\n").encode() or None,
                headers=headers,
            )
            if response.status_code != 401 or name in REFUSED or last:
                break
            # A worker remembers that a key was not valid, as after a request that sets its user
            # inactive, until the rows are restored.
            time.sleep(WRONG_SECONDS)
        check_answer(response)
        self.look_for_leaks(response, caller)
        return response

    def look_for_leaks(self, response: httpx.Response, caller: Caller) -> None:
        """Check that a response has no secret, and nothing of a user that is private."""
        text = f"{response.headers}\n{response.text}"
        for mark, owner in self.marks.items():
            may = owner is not None and (caller.admin or owner == caller.user_id)
            assert may or mark not in text, f"{mark!r} is not for {caller.user_id}: {text}"

    def _marks(self) -> dict[str, int | None]:
        """What a response may show to the user with the id alone; None: to no one."""
        found: dict[str, int | None] = dict.fromkeys(NEVER)
        for one in (*self.people.values(), *self.keys.values()):
            found |= dict.fromkeys(forms_of(one.key))
        for name, one in self.people.items():
            found |= dict.fromkeys(marks_of(name), one.user_id)
        return found


def forms_of(key: str) -> Iterator[str]:
    """Yield the secret of a key, and its hash as text."""
    yield key[18:]
    yield key[18:50]
    digest = hashlib.sha256(key[18:50].encode()).digest()
    yield digest.hex()
    yield b64encode(digest).decode()[:-1]
    yield repr(digest)[2:-1]


def marks_of(name: str) -> tuple[str, str, str]:
    """Return the email, username and full name of a user."""
    return f"mail-of-{name}@example.com", f"name-of-{name}", f"Person {name}"


def routes() -> dict[str, set[str]]:
    """Return the methods of each path of the built-in application, HEAD and OPTIONS too."""
    found: dict[str, set[str]] = {}
    for route in app.routes:
        path, endpoint = getattr(route, "path", "?"), getattr(route, "endpoint", None)
        handlers = getattr(endpoint, "handlers", None)
        assert handlers is not None, f"{path} is not an operation: what does it need of a key?"
        found[path.rstrip("/")] = {*handlers, "OPTIONS"}
    return found


def client_of(running: Service, place: int) -> httpx.Client:
    """A client with its own address, since each may send few keys that are not valid."""
    transport = httpx.HTTPTransport(local_address=f"127.0.{place // 250 + 1}.{place % 250 + 1}")
    return httpx.Client(base_url=running.url, transport=transport, timeout=30)
