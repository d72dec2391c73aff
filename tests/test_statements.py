"""Statements: the listing is current, and those that would run wrongly are refused at import."""

import re
from typing import Any

import pytest
from conftest import ROOT
from msgspec import Struct
from sqlalchemy import (
    BigInteger,
    Column,
    Integer,
    MetaData,
    Table,
    Text,
    bindparam,
    func,
    insert,
    select,
    update,
)

from service.admin import catalogue
from service.asgi import app
from service.db.batch import GroupCommit
from service.db.filters import containing
from service.db.statement import RefusedError, Statement
from service.items import items as item_resource
from service.items.structs import Item, NewItem
from service.users import users as user_resource
from service.users.structs import NewUser, User

items, users = item_resource.table, user_resource.table

things = Table(
    "things",
    MetaData(),
    Column("id", BigInteger),
    Column("word", Text, default="guess"),
    Column("count", Integer, onupdate=1),
)


SHOWN: dict[Any, Any] = {NewItem: Item, NewUser: User}


class Thing(Struct):
    id: int
    word: str


def test_the_listing_is_current() -> None:
    assert (ROOT / "sql" / "statements.sql").read_text() == catalogue.listing(app.sources), (
        "run `just sql`"
    )


def test_statement_names_are_unique() -> None:
    names = [statement.name for statement in catalogue.statements(app.sources)]
    assert len(names) == len(set(names))


def test_every_statement_is_found_by_its_name() -> None:
    for statement in catalogue.statements(app.sources):
        assert catalogue.find(app.sources, statement.name)[1].sql == statement.sql
    with pytest.raises(KeyError):
        catalogue.find(app.sources, "items.nothing")
    with pytest.raises(KeyError):
        catalogue.find(app.sources, "items.page?sort=colour")


def test_no_statement_alters_the_session() -> None:
    """Connections are reused without a reset query, so a statement must not change the session."""
    pattern = re.compile(
        r"\b(SET|LISTEN|DECLARE|WITH HOLD|pg_advisory_lock|set_config|TEMP|PREPARE)\b"
        r"(?!.*\b(LOCAL|xact)\b)"
    )
    for statement in catalogue.statements(app.sources):
        text = re.sub(r"UPDATE (\w+ )?SET", "UPDATE", statement.sql)
        assert not pattern.search(text), f"{statement.name} alters the session"


@pytest.mark.parametrize(
    ("reason", "core"),
    (
        (
            "expanding IN",
            select(things.c.id).where(things.c.id.in_(bindparam("ids", expanding=True))),
        ),
        ("Python-side default", insert(things).values(id=bindparam("id"))),
        ("Python-side default", update(things).values(word=bindparam("word"))),
        ("a value is in the statement", select(things.c.id).where(things.c.id == 5)),
        ("every column", insert(things)),
        ("has the name of a table", select(select(things.c.id).cte("things").c.id)),
    ),
)
def test_a_statement_that_would_run_wrongly_is_refused(reason: str, core: object) -> None:
    with pytest.raises(RefusedError, match=reason):
        Statement("test", tuple, core)  # type: ignore[arg-type]  # each is a Core statement


def test_the_fields_of_a_row_must_be_the_selected_columns_in_order() -> None:
    with pytest.raises(RefusedError, match="Thing wants"):
        Statement("test", Thing, select(things.c.word, things.c.id))
    with pytest.raises(RefusedError, match="Thing wants"):
        Statement("test", Thing, select(things.c.id, things.c.word, things.c.count))
    assert Statement("test", Thing, select(things.c.id, things.c.word)).width == 2


def test_the_order_of_arguments_is_checked() -> None:
    both = select(things.c.id).where(
        things.c.id > bindparam("low"), things.c.id < bindparam("high")
    )
    assert Statement("test", int, both, order=("low", "high")).names == ("low", "high")
    with pytest.raises(RefusedError, match="called with"):
        Statement("test", int, both, order=("high", "low"))


def test_a_write_in_a_cte_is_a_write() -> None:
    changed = update(items).values(name=bindparam("new")).returning(items.c.id).cte("changed")
    assert Statement("test", int, select(changed.c.id)).writes
    assert not Statement("test", int, select(func.now())).writes


def test_an_insert_that_sets_ids_overrides_the_identity_or_is_refused() -> None:
    rows = select(items.c.id, items.c.name)
    one = insert(items).from_select(["id", "name"], rows)
    sql = Statement("test", tuple, one.returning(items.c.id), numbered=True).sql
    assert sql.startswith("INSERT INTO items (id, name) OVERRIDING SYSTEM VALUE SELECT")
    last = insert(items).from_select(["name", "id"], select(items.c.name, items.c.id))
    for core in (last.returning(items.c.id), select(items.c.id)):
        with pytest.raises(RefusedError, match="exactly one INSERT"):
            Statement("test", tuple, core, numbered=True)


@pytest.mark.parametrize(
    ("table", "new", "key", "folded", "given", "expected"),
    (
        (items, NewItem, "sku", False, ("b", None, "a", "B"), [None, "B", "a", "b"]),
        (users, NewUser, "email", True, ("b@x", "A@x", "C@x"), ["A@x", "b@x", "C@x"]),
        (users, NewUser, "username", False, ("b", "A"), ["A", "b"]),
    ),
    ids=("sku", "email", "second field"),
)
def test_rows_of_one_statement_are_inserted_in_the_order_of_the_named_key(
    table: Any, new: Any, key: str, *, folded: bool, given: tuple[Any, ...], expected: list[Any]
) -> None:
    """The key need not be the first field."""
    add: Any = GroupCommit("test", SHOWN[new], table, new, key=key, folded=folded)
    place = new.__struct_fields__.index(key)

    class Asks:
        def __init__(self, value: object) -> None:
            values: list[object] = [None] * len(new.__struct_fields__)
            values[place] = value
            self.args = tuple(values)

    ordered = sorted((Asks(value) for value in given), key=add._order)
    assert [one.args[place] for one in ordered] == expected
    with pytest.raises(RefusedError, match="no field 'nothing'"):
        GroupCommit("test", SHOWN[new], table, new, key="nothing")


def test_a_substring_is_searched_literally() -> None:
    assert containing(r"50%_\x") == r"%50\%\_\\x%"
