"""Which reader a file of rows is for, by its Content-Type."""

from msgspec import Struct

from service.errors import Unsupported
from service.web.lines import Lines, Reader
from service.web.table import Table

# The second and third are other names of the first.
MEDIA: dict[bytes, type[Lines | Table]] = {
    b"application/x-ndjson": Lines,
    b"application/ndjson": Lines,
    b"application/jsonl": Lines,
    b"text/csv": Table,
}


def reader(struct: type[Struct], content_type: bytes | None, limit: int) -> Reader:
    """What reads a file of this type; `limit` is in bytes, of a line.

    Raises:
        Unsupported: it is neither NDJSON nor CSV, or not in UTF-8.
    """
    media, *parameters = (part.strip() for part in (content_type or b"").lower().split(b";"))
    charsets = {one.replace(b'"', b"") for one in parameters if one.startswith(b"charset")}
    if media in MEDIA and not charsets - {b"charset=utf-8"}:
        return MEDIA[media](struct, limit)
    raise Unsupported(
        "send the file as application/x-ndjson or text/csv, in UTF-8",
        headers=((b"accept-post", b"application/x-ndjson, text/csv"),),
    )
