"""HTTP handlers of /v1/files."""

from aiohttp import web

from floopy_api.core.files import Stored, check_upload, to_wire
from floopy_api.handlers.keys import BLOBS, CALLER, FILES, MAX_UPLOAD
from floopy_api.handlers.multipart import check_head, read_form
from floopy_api.handlers.reading import ask_for_body, read_limit, read_order
from floopy_api.handlers.responses import json_response

_BLOB_KIND = "input"
_LONGEST_LIST = 10_000


async def create_file(request: web.Request) -> web.Response:
    max_bytes = request.app[MAX_UPLOAD]
    check_head(request, max_bytes)
    await ask_for_body(request)
    # whatever is raised inside, a client that leaves included, makes the writer discard what it has
    async with request.app[BLOBS].writer(_BLOB_KIND) as writer:
        form = await read_form(request, writer, max_bytes)
        wish = check_upload(form.filename, form.fields, form.first_line)
    blob = writer.blob
    stored = Stored(blob=blob.id, length=blob.length, sha256=blob.sha256)
    return json_response(await request.app[FILES].add(request[CALLER], wish, stored))


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
