"""HTTP handlers of /v1/files."""

from aiohttp import web

from floopy_api.core.files import Stored, check_upload, to_wire
from floopy_api.handlers.keys import BLOBS, CALLER, FILES, MAX_UPLOAD
from floopy_api.handlers.multipart import Wanted, check_head, read_form
from floopy_api.handlers.reading import ask_for_body, read_idempotency_key, read_limit, read_order
from floopy_api.handlers.responses import json_response
from floopy_common.stores.blobs import BlobWriter

BLOB_KIND = "input"
_LONGEST_LIST = 10_000


async def create_file(request: web.Request) -> web.Response:
    wanted = Wanted("file", "file", request.app[MAX_UPLOAD])
    key = read_idempotency_key(request)
    check_head(request, wanted)
    await ask_for_body(request)
    # whatever is raised inside, a client that leaves included, makes the writer discard what it has
    async with request.app[BLOBS].writer(BLOB_KIND) as writer:
        form = await read_form(request, writer, wanted)
        wish = check_upload(form.filename, form.fields, form.first_line)
    return json_response(await request.app[FILES].add(request[CALLER], wish, stored_in(writer), key))


def stored_in(writer: BlobWriter) -> Stored:
    """What a writer has published."""
    blob = writer.blob
    return Stored(blob=blob.id, length=blob.length, sha256=blob.sha256)


async def list_files(request: web.Request) -> web.Response:
    page = await request.app[FILES].list(
        request[CALLER],
        purpose=request.query.get("purpose"),
        limit=read_limit(request, default=_LONGEST_LIST, highest=_LONGEST_LIST),
        order=read_order(request),
        after=request.query.get("after"),
    )
    return json_response(page)


async def get_file(request: web.Request) -> web.Response:
    file = await request.app[FILES].get(request[CALLER], request.match_info["file_id"])
    return json_response(to_wire(file))


async def delete_file(request: web.Request) -> web.Response:
    return json_response(await request.app[FILES].delete(request[CALLER], request.match_info["file_id"]))
