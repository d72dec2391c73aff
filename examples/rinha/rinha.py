"""People with unique nicknames: the API of the Rinha de Backend 2023-Q3 in one file.

Its rules decide the paths, the fields and the statuses. README.md says where ours would differ.
"""

from datetime import date
from typing import Annotated, Any
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from sqlalchemy import Column, Computed, Index, Text, func, literal_column, select

from service.app import create_app
from service.cache.generations import Tags
from service.db.filters import containing, search
from service.db.schema import trigrams
from service.db.statement import Statement, columns
from service.errors import Invalid, Malformed, NotFound, Taken
from service.resource import Resource
from service.resource.operations import OPERATIONS
from service.settings import Settings
from service.web.body import Body
from service.web.codec import Query, Reply, encode
from service.web.endpoint import Operation
from service.web.request import BODY_PROBLEMS, Request

# After each technology in the column `stack`: the unit separator of ASCII. So one text holds the
# list, and a search finds no match that spans two values.
END = "\x1f"
# The rules set no limit, but a list in a body needs one.
MOST = 1000
# The version (8) and the variant of a UUID (RFC 9562). Its other bits are the id of a row.
UUID_BITS = (8 << 76) | (2 << 62)

Nickname = Annotated[str, Meta(max_length=32, examples=["ana"])]
Name = Annotated[str, Meta(max_length=100, examples=["Ana Barbosa"])]
Technology = Annotated[str, Meta(max_length=32, pattern=f"^[^{END}]*$", examples=["Node"])]


class SentPerson(Struct):
    """The JSON types of a new person: another type is 400, any other error is 422."""

    apelido: str | None = None
    nome: str | None = None
    nascimento: str | None = None
    stack: Annotated[list[str], Meta(max_length=MOST)] | None = None


class NewPerson(Struct):
    """A new person."""

    apelido: Nickname
    nome: Name
    nascimento: date
    stack: list[Technology] | None = None


class Person(NewPerson, kw_only=True):
    """A person in a response."""

    id: UUID


class PersonColumns(Struct):
    """The columns that a new person sets."""

    apelido: Nickname
    nome: Name
    nascimento: date
    stack: str | None


class Search(Struct, frozen=True):
    """The parameters of the search."""

    t: Annotated[str, Meta(description="Part of a nickname, name or technology")] | UnsetType = (
        UNSET
    )


people = Resource(
    "people",
    PersonColumns,
    singular="person",
    key="apelido",
    versioned=False,
    stamped=False,
    fillfactor=None,  # people never change
    without=OPERATIONS,  # the rules ask for others, see below
)
table, tags = people.table, people.tags
# PostgreSQL computes a generated column, so it always agrees with the columns that it is made of.
VALUES = f"apelido || chr({ord(END)}) || nome || chr({ord(END)}) || coalesce(stack, '')"
table.append_column(Column("searched", Text, Computed(VALUES, persisted=True)))
SEARCH_INDEX = "people_search_idx"
Index(SEARCH_INDEX, func.lower(table.c.searched).label("searched"), **trigrams("searched"))
SEARCH: Statement[Any] = Statement(
    "people.search",
    people.row,
    select(*columns(people.row, table))
    .where(search(SEARCH_INDEX, table.c.searched).clause)
    .limit(literal_column("50")),
    by_values=True,
)
COUNT = Statement("people.count", int, select(func.count().label("people")).select_from(table))
sent_person, search_query = Body(SentPerson), Query(Search)


async def create(request: Request) -> Reply:
    """Create a person. The response is sent after the commit."""
    try:
        sent = await request.body(sent_person)
    except Invalid as problem:
        raise Malformed(problem.detail, *problem.errors) from None
    try:
        new = msgspec.convert(sent, NewPerson, from_attributes=True)
    except msgspec.ValidationError as error:
        raise Invalid(str(error)) from None
    stack = None if new.stack is None else "".join(one + END for one in new.stack)
    values = (new.apelido, new.nome, new.nascimento, stack)
    try:
        row = await request.write(lambda db: people.add.run(db, values), tags.written)
    except Taken as problem:
        raise Invalid(problem.detail, *problem.errors) from None
    person = person_of(row)
    location = (b"location", f"{request.root}/pessoas/{person.id}".encode())
    return Reply(encode(person), 201, (location,))


async def read(request: Request) -> Reply:
    """Read a person."""
    row = await people.by_id.get(request.db, row_id(request))
    if row is None:
        raise NotFound("there is no such person")
    return Reply(encode(person_of(row)))


async def find(request: Request) -> Reply:
    """Find up to 50 people whose nickname, name or a technology contains `t`, in any case."""
    term = request.query(search_query).t
    if term is UNSET:
        raise Malformed("say what to search for: /pessoas?t=ana")
    if END in term:
        return Reply(b"[]")
    records = await SEARCH.records(request.db, q=containing(term))
    return Reply(encode([person_of(SEARCH.row(*record)) for record in records]))


async def count(request: Request) -> Reply:
    """Count all people, without a cache."""
    number = await COUNT.only(request.db)
    return Reply(b"%d" % number, content_type=b"text/plain; charset=utf-8")


def person_of(row: Any) -> Person:
    """Return a row as a response shows it."""
    stack = None if row.stack is None else row.stack.split(END)[:-1]
    return Person(row.apelido, row.nome, row.nascimento, stack, id=UUID(int=UUID_BITS | row.id))


def row_id(request: Request) -> int:
    """Return the id of the row from the UUID in the path.

    Raises:
        NotFound: no row can have this UUID.
    """
    try:
        found = UUID(request.scope["path_params"]["id"]).int ^ UUID_BITS
    except ValueError:
        found = 0
    if not 0 < found < 1 << 62:
        raise NotFound("there is no such person")
    return found


def row_tags(request: Request) -> Tags:
    """Return what the response of `read` depends on."""
    return tags.row(row_id(request))


app = create_app(
    Settings.load(),
    resources=[people],
    routes=[
        Operation(
            "POST",
            "/pessoas",
            create,
            "Create a person",
            request=NewPerson,
            response=Person,
            status=201,
            errors=BODY_PROBLEMS,
            statements=people.add.prepared,
        ),
        Operation(
            "GET",
            "/pessoas/{id}",
            read,
            "Read a person",
            response=Person,
            errors=(NotFound,),
            cache_tags=row_tags,
            versioned=False,
            statements=people.by_id.prepared,
        ),
        Operation(
            "GET",
            "/pessoas",
            find,
            "Search for people",
            query=Search,
            response=list[Person],
            errors=(Malformed,),
            statements=(SEARCH,),
        ),
        Operation(
            "GET",
            "/contagem-pessoas",
            count,
            "Count all people",
            media=("text/plain",),
            statements=(COUNT,),
        ),
    ],
    title="Rinha de Backend 2023-Q3",
)
