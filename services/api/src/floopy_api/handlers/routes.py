"""Every URL of the API."""

from aiohttp import web

from floopy_api.handlers import batches, content, files, models, openapi, uploads
from floopy_api.handlers.keys import TRAFFIC
from floopy_api.handlers.middleware import answer_errors, authenticate, observe
from floopy_api.handlers.reading import MAX_JSON, wait_to_be_asked
from floopy_api.handlers.responses import add_headers
from floopy_api.handlers.traffic import Traffic
from floopy_common.chassis.probes import Probes


def new_app(probes: Probes) -> web.Application:
    """The application without its state, which the composition puts in under the keys of keys.py."""
    app = web.Application(client_max_size=MAX_JSON, middlewares=[observe, answer_errors, authenticate])
    app[TRAFFIC] = Traffic()
    app.on_response_prepare.append(add_headers)
    route = app.router.add_route
    route("POST", "/v1/files", files.create_file, expect_handler=wait_to_be_asked)
    route("GET", "/v1/files", files.list_files)
    route("GET", "/v1/files/{file_id}", files.get_file)
    route("DELETE", "/v1/files/{file_id}", files.delete_file)
    route("GET", "/v1/files/{file_id}/content", content.file_content)
    route("POST", "/v1/uploads", uploads.create_upload)
    route("POST", "/v1/uploads/{upload_id}/parts", uploads.add_part, expect_handler=wait_to_be_asked)
    route("POST", "/v1/uploads/{upload_id}/complete", uploads.complete_upload)
    route("POST", "/v1/uploads/{upload_id}/cancel", uploads.cancel_upload)
    route("GET", "/v1/models", models.list_models)
    route("GET", "/v1/models/{model:.+}", models.get_model)
    route("POST", "/v1/batches", batches.create_batch)
    route("GET", "/v1/batches", batches.list_batches)
    route("GET", "/v1/batches/{batch_id}", batches.get_batch)
    route("POST", "/v1/batches/{batch_id}/cancel", batches.cancel_batch)
    route("GET", openapi.PATH, openapi.get_document)
    route("GET", "/healthz", probes.healthz)
    route("GET", "/readyz", probes.readyz)
    return app
