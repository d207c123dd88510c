"""HTTP handlers of /v1/models."""

from aiohttp import web

from floopy_api.handlers.keys import CALLER, MODELS
from floopy_api.handlers.responses import json_response


async def list_models(request: web.Request) -> web.Response:
    return json_response(await request.app[MODELS].list(request[CALLER]))


async def get_model(request: web.Request) -> web.Response:
    return json_response(await request.app[MODELS].get(request[CALLER], request.match_info["model"]))
