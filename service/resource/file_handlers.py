"""Operations on files: import and export over HTTP."""

from typing import TYPE_CHECKING, Any

from service.errors import FieldError, Invalid, InvalidLines
from service.jobs.structs import Job
from service.resource import transfer
from service.resource.import_job import queue_import
from service.resource.rows import described
from service.resource.shapes import ImportQuery
from service.web.codec import Query, Reply, encode
from service.web.endpoint import Operation
from service.web.formats import reader
from service.web.inflate import inflated, is_gzip
from service.web.request import BODY_PROBLEMS, Request
from service.web.stream import Chunks
from service.web.upload import Upload

if TYPE_CHECKING:
    from service.resource.declaration import Resource

MEDIA = {"ndjson": b"application/x-ndjson", "csv": b"text/csv; charset=utf-8"}
FILES = ("application/x-ndjson", "text/csv")
import_query = Query(ImportQuery)


def import_(of: "Resource[Any]") -> Operation:
    """POST /items/import."""
    new = of.new

    async def handler(request: Request) -> Reply:
        query = request.query(import_query)
        settings, skip = request.state["settings"], query.on_error == "skip"
        rows_of = reader(new, request.header(b"content-type"), settings.body_limit)
        zipped = is_gzip(request.header(b"content-encoding"))
        if query.background:
            return await queue_import(request, of.name, skip=skip, zipped=zipped)
        owner = request.owner
        async with Upload(request, settings.import_limit) as body:
            file = inflated(body.parts(), settings.import_limit) if zipped else body.parts()
            keeper = request.keeper(reply)
            also = None if keeper is None else keeper.keep
            done = await request.write(
                lambda db: body.run(
                    of.import_(db, file, rows_of, skip=skip, owner=owner, also=also)
                ),
                transfer.changed_tags,
            )
        return reply(done)

    def reply(done: transfer.Imported) -> Reply:
        return Reply(encode(done))

    how = (
        f"A row with an existing `{of.key}` is updated if it differs, any other is created."
        if of.key
        else "Every row is created."
    )
    return of.operation(
        "POST",
        "/import",
        described(
            handler,
            f"import_{of.name}",
            "The file is NDJSON, or CSV with a header line. `Content-Encoding: gzip` is accepted."
            " With `background=true` the file is stored, and a job imports it later; then its"
            " `result` has the wrong lines."
            f"\n\n{how}",
        ),
        f"Import a file of {of.words.many}",
        query=ImportQuery,
        files=FILES,
        response=transfer.Imported,
        accepted=Job,
        errors=(*BODY_PROBLEMS, InvalidLines),
    )


def export(of: "Resource[Any]") -> Operation:
    """GET /items/export."""
    asked: Query[Any] = Query(of.export_query)

    async def handler(request: Request) -> Reply:
        query = request.query(asked)
        if query.trailer and query.format == "csv":
            raise Invalid("a CSV has no trailer", FieldError("trailer", "only with format=ndjson"))
        rows = of.export(request.db, query, owner=request.owner, name=request.db.name)
        chunks = Chunks(rows)
        if request.scope["method"] != "HEAD":
            await chunks.begin(request.gone())
        file = f'attachment; filename="{of.words.many}.{query.format}"'.encode()
        return Reply(
            chunks=chunks,
            content_type=MEDIA[query.format],
            headers=((b"content-disposition", file),),
        )

    return of.operation(
        "GET",
        "/export",
        described(
            handler,
            f"export_{of.name}",
            f"All {of.words.many} that match the filters, ordered by id.",
        ),
        f"Export {of.words.many} as a file, from one snapshot",
        query=of.export_query,
        files=FILES,
        private=of.rules.private,
    )
