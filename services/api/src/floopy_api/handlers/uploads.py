"""HTTP handlers of /v1/uploads."""

from aiohttp import web

from floopy_api.handlers.files import BLOB_KIND, stored_in
from floopy_api.handlers.keys import BLOBS, CALLER, UPLOADS
from floopy_api.handlers.multipart import Wanted, check_head, read_form
from floopy_api.handlers.reading import ask_for_body, read_idempotency_key, read_json
from floopy_api.handlers.responses import json_response


async def create_upload(request: web.Request) -> web.Response:
    key = read_idempotency_key(request)
    return json_response(await request.app[UPLOADS].create(request[CALLER], await read_json(request), key))


async def add_part(request: web.Request) -> web.Response:
    uploads, caller = request.app[UPLOADS], request[CALLER]
    upload_id = request.match_info["upload_id"]
    wanted = Wanted("data", "part", uploads.limits.max_part_bytes)
    check_head(request, wanted)
    await uploads.check_room(caller, upload_id, 0)
    await ask_for_body(request)
    # whatever is raised inside, a client that leaves included, makes the writer discard what it has
    async with request.app[BLOBS].writer(BLOB_KIND) as writer:
        form = await read_form(request, writer, wanted)
        await uploads.check_part(caller, upload_id, None if form.filename is None else form.length)
    return json_response(await uploads.add_part(caller, upload_id, stored_in(writer)))


async def complete_upload(request: web.Request) -> web.Response:
    body = await read_json(request)
    upload_id = request.match_info["upload_id"]
    return json_response(await request.app[UPLOADS].complete(request[CALLER], upload_id, body))


async def cancel_upload(request: web.Request) -> web.Response:
    upload_id = request.match_info["upload_id"]
    return json_response(await request.app[UPLOADS].cancel(request[CALLER], upload_id))
