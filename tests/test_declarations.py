"""A declaration that can't be served stops the import with a line that says what to write."""

from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest
from msgspec import Meta
from shapes_app import NewMeasure
from sqlalchemy import BigInteger, Boolean, Column, Index, MetaData, Table, text

from service.db.statement import RefusedError
from service.errors import Invalid
from service.resource import ID, Resource
from service.resource.columns import choice_index
from service.resource.operations import OPERATIONS
from service.server.loading import ApplicationError, load
from service.users import users
from service.web.body import Body
from service.web.codec import Query

NAME = ("name", str)
# Further fields and arguments, and what the message must have.
REFUSED: tuple[tuple[list[tuple[str, Any]], dict[str, Any], str], ...] = (
    ([], {"name": "my things"}, "use a-z"),
    ([], {"path": "things/"}, "must be like /v1/things"),
    ([], {"sorts": "name"}, r'sorts=\("name",\)'),
    ([], {"sorts": ("size",)}, "'size' is not a field; the fields are: name"),
    ([], {"filters": ("size",)}, "'size' is not a field"),
    ([], {"filters": ("min_name",)}, "filter by 'name'"),
    ([("page", int)], {"filters": ("page",)}, "already have a parameter 'page'"),
    ([("limit", int)], {"filters": ("limit",)}, "can't be called 'limit'"),
    ([("total", int)], {}, "total: lists already have a column of this name"),
    ([("version", int)], {}, "versioned=False"),
    ([("created_at", datetime)], {}, "stamped=False"),
    ([("code", int)], {"key": "code"}, "must be a string field"),
    ([("code", int)], {"search": ("code",)}, "must be a string field"),
    ([("size", Literal[1, 2])], {}, "values of a Literal must be strings"),
    ([("price", Annotated[Decimal, Meta(ge=0)])], {}, "Can only set `ge`"),
    ([("is_active", str)], {}, "must be `bool`"),
    ([], {"soft_delete": True}, "is_active: bool = True"),
    ([("owner_id", str)], {"references": {"owner_id": users}}, "of type ID"),
    ([("owner_id", ID)], {"references": {"owner_id": "users"}}, "must be a Resource"),
    ([("owner_id", ID)], {"under": ("owner_id",)}, "must be in `references`"),
    (
        [("owner_id", ID)],
        {"under": ("owner_id",), "references": {"owner_id": users}},
        "must be in `filters`",
    ),
    ([], {"without": ("get",)}, "'get' is not an operation; the operations are: read, "),
    ([("x" * 60, str)], {"sorts": ("x" * 60,)}, "longer than PostgreSQL's 63 bytes"),
)


@pytest.mark.parametrize(("more", "given", "message"), REFUSED, ids=[r[2] for r in REFUSED])
def test_a_wrong_declaration_is_refused(
    more: list[tuple[str, Any]], given: dict[str, Any], message: str
) -> None:
    new = msgspec.defstruct("NewThing", [NAME, *more], kw_only=True)
    with pytest.raises(RefusedError, match=message):
        Resource(**{"name": "things", "new": new, **given})


@pytest.mark.parametrize("option", ({"frozen": True}, {"array_like": True}, {"rename": "upper"}))
def test_a_struct_with_an_option_that_can_not_be_served_is_refused(option: dict[str, Any]) -> None:
    new = msgspec.defstruct("NewThing", [NAME], **option)
    with pytest.raises(RefusedError, match="NewThing"):
        Resource("things", new)


def test_a_command_tells_the_line_of_a_wrong_declaration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wrong_declaration.py").write_text(
        "from service.items.structs import NewItem\n"
        "from service.resource import Resource\n"
        'Resource("things", NewItem, sorts=("size",))\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ApplicationError, match=r"wrong_declaration\.py, line 3: things: 'size' is"):
        load("wrong_declaration:app")


def test_a_word_of_sql_is_the_name_of_a_field() -> None:
    fields: list[Any] = [
        ("order", Annotated[str, Meta(max_length=9)]),
        ("user", Annotated[str, Meta(max_length=9)] | None, None),
        ("group", bool, False),
    ]
    new = msgspec.defstruct("NewThing", fields)
    things = Resource("things", new, filters=("group", "user"))
    checks = {str(one.name): str(getattr(one, "sqltext", "")) for one in things.table.constraints}
    # Without quotes it is the role of the session.
    assert checks["things_user_check"] == 'length("user") <= 9'
    assert checks["things_order_check"] == 'length("order") <= 9'


def test_two_fields_have_a_choice_of_the_same_name() -> None:
    fields: list[Any] = [
        NAME,
        ("state", Literal["open", "done"]),
        ("payment", Literal["done", "due"], "due"),
    ]
    things = Resource("things", msgspec.defstruct("NewThing", fields), filters=("state", "payment"))
    names = [index.name for index in things.table.indexes]
    assert len(names) == len(set(names))
    for field in ("state", "payment"):
        assert choice_index(things.table, things.fields, things.fields[field], "done") in names


def test_an_index_serves_several_filters_at_once() -> None:
    """In the order of the ids; with another filter beside them its matches are looked for."""
    table = Table(
        "papers",
        MetaData(),
        *(Column(name, BigInteger) for name in ("id", "owner_id", "shelf")),
        Column("done", Boolean),
        Column("pinned", Boolean),
    )
    c = table.c
    Index("papers_shelf_idx", c.owner_id, c.shelf, c.id)
    Index("papers_done_idx", c.owner_id, c.id, postgresql_where=text("NOT done"))
    Index("papers_other_idx", c.owner_id, c.id, postgresql_where=text("shelf > 7"))
    Index("papers_pinned_idx", c.id, postgresql_where=text("pinned"))
    Index("papers_ids_idx", c.shelf, c.id, c.owner_id)
    fields: list[Any] = [
        ("owner_id", ID),
        ("shelf", int),
        ("done", bool, False),
        ("pinned", bool, False),
    ]
    papers: Resource[Any] = Resource(
        "papers",
        msgspec.defstruct("NewPaper", fields),
        table=table,
        filters=("owner_id", "shelf", "done", "pinned"),
        without=tuple(OPERATIONS),
    )
    walked = {
        "owner_id&shelf": True,
        "owner_id&done=false": True,
        "owner_id&done=true": False,
        "shelf&done=false": False,
        "owner_id&shelf&done=false": False,
        "owner_id&shelf&pinned=true": False,
    }
    for filters, plain in walked.items():
        for start in ("page?", "page?sort=-id&"):
            sql = papers.statement(f"papers.{start}{filters}").sql
            assert ("near AS" not in sql) == plain, filters
    # The planner would not use papers_pinned_idx for `pinned IS true`.
    assert "WHERE papers.pinned ORDER BY" in papers.statement("papers.page?pinned=true").sql


@pytest.mark.parametrize(
    ("field", "value", "message"),
    (
        ("exact", '"NaN"', "finite"),
        ("exact", '"-Infinity"', "finite"),
        ("exact", "1e131072", "1000 digits"),
        ("exact", "1e-20000", "1000 digits"),
        ("taken_at", '"2026-03-01T10:00:00"', "no time zone"),
        ("taken_at", '"0001-01-01T00:00:00+10:00"', "out of range"),
        ("taken_at", '"9999-12-31T23:59:59-10:00"', "out of range"),
    ),
)
def test_a_value_that_postgresql_can_not_hold_is_refused(
    field: str, value: str, message: str
) -> None:
    """asyncpg would write 0 for the third, and a time of the machine's zone for the fifth."""
    for space in ("", " "):  # read in one piece, and field by field
        body = f'{{"sensor_id": 1, "code": "a{space}", "{field}": {value}}}'
        with pytest.raises(Invalid, match=f"{field}: .*{message}"):
            Body(NewMeasure).decode(body.encode())
    given = {"sensor_id": "1", "code": "a", field: value.strip('"')}
    with pytest.raises(Invalid, match=message):
        Query(NewMeasure).convert(given)
