"""Choose the reader of a file by its Content-Type."""

from msgspec import Struct

from service.errors import Unsupported
from service.web.media import utf_8_media_type
from service.web.row_readers import NdjsonReader, Reader
from service.web.table import CsvReader

# application/ndjson and application/jsonl are aliases of the first name.
MEDIA: dict[bytes, type[NdjsonReader | CsvReader]] = {
    b"application/x-ndjson": NdjsonReader,
    b"application/ndjson": NdjsonReader,
    b"application/jsonl": NdjsonReader,
    b"text/csv": CsvReader,
}


def reader(struct: type[Struct], content_type: bytes | None, limit: int) -> Reader:
    """Return a reader for a file of this type; `limit` is the maximum bytes of a line.

    Raises:
        Unsupported: the type is neither NDJSON nor CSV, or the charset is not UTF-8.
    """
    media = utf_8_media_type(content_type or b"")
    if media in MEDIA:
        return MEDIA[media](struct, limit)
    raise Unsupported(
        "send the file as application/x-ndjson or text/csv, in UTF-8",
        headers=((b"accept-post", b"application/x-ndjson, text/csv"),),
    )
