"""Which reader a file of rows is for, by its Content-Type."""

from msgspec import Struct

from service.errors import Unsupported
from service.web.media import utf_8_media_type
from service.web.row_readers import Lines, Reader
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
    media = utf_8_media_type(content_type or b"")
    if media in MEDIA:
        return MEDIA[media](struct, limit)
    raise Unsupported(
        "send the file as application/x-ndjson or text/csv, in UTF-8",
        headers=((b"accept-post", b"application/x-ndjson, text/csv"),),
    )
