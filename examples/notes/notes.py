"""Notes, which users may own: a service of one's own in one file."""

from typing import Annotated

from msgspec import Meta, Struct

from service.app import create_app
from service.resource import ID, Resource
from service.settings import Settings
from service.users import users


class NewNote(Struct, kw_only=True):
    """What POST and PUT take."""

    slug: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    title: Annotated[str, Meta(min_length=1, max_length=200, examples=["Shopping"])]
    body: str | None = None
    owner_id: ID | None = None
    pinned: bool = False


notes = Resource(
    "notes",
    NewNote,
    description="Things to remember",
    key="slug",
    sorts=("title",),
    filters=("owner_id", "pinned"),
    search=("title", "body"),
    references={"owner_id": users},
    under=("owner_id",),
    owner="owner_id",
)
app = create_app(Settings.load(), resources=[users, notes], title="Notes")
