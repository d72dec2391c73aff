"""`swiftlet users` and `swiftlet keys`: how the first admin and the first key come to be."""

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec
from msgspec import Struct, structs

from service.cli.group import app_option, application, main, stop
from service.cli.one_use import read, write
from service.cli.printing import print_table, shown_time

if TYPE_CHECKING:
    from service.app import Application
    from service.db.database import Database
    from service.db.writable import WritableDatabase
    from service.keys.statements import ShownKey

Value = TypeVar("Value", bound=Struct)

UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
LONGEST = timedelta(days=36_500)

data_option = click.option("--data", help="Data directory of embedded stores.  [default: .data]")


@main.group()
def users() -> None:
    """Create users.

    \b
    Example:
      swiftlet users create ada@example.com ada --role admin
    """


@users.command(name="create")
@app_option
@click.argument("email")
@click.argument("username")
@click.option("--role", type=click.Choice(["user", "admin"]), default="user", show_default=True)
@data_option
def create_user(email: str, username: str, role: str, data: str | None) -> None:
    """Create a user; the same rules apply as to POST /users.

    \b
    Example:
      swiftlet users create ada@example.com ada --role admin
      swiftlet users create bob@example.com bob --data /srv/data --app guarded:app
    """
    from service.errors import Conflict
    from service.users import users as resource
    from service.users.structs import NewUser, User

    new = _checked(NewUser, email=email, username=username, role=role)

    async def create(db: "WritableDatabase") -> User:
        try:
            return await resource.add.run(db, structs.astuple(new))
        except Conflict as problem:
            raise Conflict(problem.detail) from None

    made = write(_application(data, "users"), create)
    click.echo(f"user {made.id}: {made.email}, {made.username}, {made.role}")


@main.group()
def keys() -> None:
    """Create, list and revoke API keys.

    \b
    Example:
      swiftlet keys create --user ada@example.com
    """


def _lifetime(_: click.Context, __: click.Parameter, text: str | None) -> timedelta | None:
    if text is None:
        return None
    found = re.fullmatch(r"([1-9][0-9]{0,7})([mhdw])", text)
    if found:
        lifetime = timedelta(**{UNITS[found[2]]: int(found[1])})
        if lifetime <= LONGEST:
            return lifetime
    raise click.BadParameter(f"{text!r} must be like 30m, 12h, 90d or 52w, and at most 36500d")


@keys.command(name="create")
@app_option
@click.option("--user", "email", required=True, metavar="EMAIL", help="Whose key it is.")
@click.option("--name", default="command line", show_default=True, help="What it is for.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(["read", "write", "admin"]),
    help="What it may do; may be repeated.  [default: read and write; all for an admin]",
)
@click.option("--expires", metavar="DURATION", callback=_lifetime, help="As 90d.  [default: never]")
@data_option
def create_key(
    email: str, name: str, scopes: tuple[str, ...], expires: timedelta | None, data: str | None
) -> None:
    """Create an API key, and print it on standard output. It is not shown again.

    \b
    Example:
      swiftlet keys create --user ada@example.com --name laptop
      swiftlet keys create --user ada@example.com --scope read --expires 90d > key.txt
      swiftlet keys create --user ada@example.com --app guarded:app
    """
    from service.keys.issuing import issue
    from service.keys.structs import IssuedKey, NewKey

    new = _checked(
        NewKey,
        name=name,
        scopes=scopes or None,
        expires_at=None if expires is None else datetime.now(UTC) + expires,
    )

    async def create(db: "WritableDatabase") -> IssuedKey:
        user_id = await _user_id(db.database, email)
        return await issue(db, user_id, new, for_admin=True)

    made = write(_application(data, "keys"), create)
    end = made.expires_at
    until = "does not expire" if end is None else f"expires {shown_time(end)}"
    told = f"key {made.id} of {email}: {made.name}, {' '.join(made.scopes)}, {until}"
    click.echo(f"{told}; it is not shown again:", err=True)
    click.echo(made.key)


@keys.command(name="list")
@app_option
@click.option("--user", "email", metavar="EMAIL", help="Only the keys of this user.")
@data_option
def list_keys(email: str | None, data: str | None) -> None:
    """List API keys, without their secrets.

    \b
    Example:
      swiftlet keys list
      swiftlet keys list --user ada@example.com --app guarded:app
    """
    from service.keys import statements

    async def find(db: "Database") -> list["ShownKey"]:
        if email is None:
            records = await statements.every.records(db)
        else:
            user_id = await _user_id(db, email)
            records = await statements.of_user.records(db, user_id=user_id)
        return [statements.ShownKey(*record) for record in records]

    found = read(_application(data, "keys"), find)
    print_table(
        ("ID", "USER", "NAME", "KEY", "SCOPES", "EXPIRES", "LAST USED", "STATE"),
        (
            (
                str(one.id),
                one.email,
                one.name,
                f"{one.prefix}...",
                ",".join(one.scopes),
                shown_time(one.expires_at),
                shown_time(one.last_used_at),
                "valid" if one.valid else "not valid",
            )
            for one in found
        ),
    )


@keys.command(name="revoke")
@app_option
@click.argument("id", type=click.IntRange(1, 2**63 - 1), metavar="ID")
@data_option
def revoke_key(id: int, data: str | None) -> None:  # noqa: A002 - the name of the argument
    """Revoke an API key: within a second no worker accepts it.

    \b
    Example:
      swiftlet keys revoke 7
      swiftlet keys revoke 7 --app guarded:app
    """
    from service.keys import statements

    async def revoke(db: "WritableDatabase") -> object:
        return await statements.revoke_any.get(db, id)

    if write(_application(data, "keys"), revoke) is None:
        stop(f"there is no key {id}: `swiftlet keys list` shows all", 1)
    click.echo(f"key {id} is revoked")


def _application(data: str | None, name: str) -> "Application":
    """Return the application; stop if it does not have the built-in users or keys."""
    from service.keys import keys as api_keys
    from service.users import users as people

    app = application({"data": data})
    table = people.table if name == "users" else api_keys.table
    if all(one is not table for one in app.tables):
        stop(f"{app.settings.app} has no {name}: give the resource of service.{name}", 2)
    return app


def _checked(kind: type[Value], **values: Any) -> Value:
    """Return the Struct, by the rules of a body.

    Raises:
        click.UsageError: a value is wrong.
    """
    from service.errors import Invalid
    from service.web.body import Body

    given = {name: value for name, value in values.items() if value is not None}
    try:
        return Body(kind).decode(msgspec.json.encode(given))
    except Invalid as problem:
        raise click.UsageError(problem.detail) from None


async def _user_id(db: "Database", email: str) -> int:
    from service.errors import NotFound
    from service.keys import statements

    found = await statements.user_by_email.get(db, email)
    if found is None:
        raise NotFound(f"there is no user {email}: `swiftlet users create` makes one")
    return found
