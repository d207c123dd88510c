"""HTTP handlers of /v1/batches."""

from aiohttp import web

from floopy_api.core.progress import to_wire
from floopy_api.handlers.keys import BATCHES, CALLER, FINISHED
from floopy_api.handlers.reading import read_json, read_limit, read_options
from floopy_api.handlers.responses import encode, json_response, rendered
from floopy_common.openai.pages import page_of


async def create_batch(request: web.Request) -> web.Response:
    body = await read_json(request)
    batch = await request.app[BATCHES].create(request[CALLER], body, read_options(request))
    return json_response(to_wire(batch))


async def list_batches(request: web.Request) -> web.Response:
    found, has_more = await request.app[BATCHES].list(
        request[CALLER],
        limit=read_limit(request, default=20, highest=100),
        after=request.query.get("after"),
    )
    return json_response(page_of([to_wire(batch) for batch in found], has_more=has_more))


async def get_batch(request: web.Request) -> web.Response:
    caller, batch_id = request[CALLER], request.match_info["batch_id"]
    finished = request.app[FINISHED]
    answer = finished.get(caller, batch_id)
    if answer is None:
        batch = await request.app[BATCHES].get(caller, batch_id)
        answer = encode(to_wire(batch))
        finished.keep(caller, batch, answer)
    return rendered(answer)


async def cancel_batch(request: web.Request) -> web.Response:
    batch = await request.app[BATCHES].cancel(request[CALLER], request.match_info["batch_id"])
    return json_response(to_wire(batch))
