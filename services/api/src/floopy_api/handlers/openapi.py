"""The API's own description: an OpenAPI 3.1 document made from its routes and the models it answers with."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiohttp import web

from floopy_api.core.create import METADATA_KEY_CHARS, METADATA_PAIRS, METADATA_VALUE_CHARS
from floopy_api.core.rules import MAX_LIFETIME, MIN_LIFETIME
from floopy_common.openai.batches import BatchObject
from floopy_common.openai.endpoints import COMPLETION_WINDOWS, all_endpoints
from floopy_common.openai.errors import ErrorEnvelope
from floopy_common.openai.files import UPLOAD_PURPOSES, FileDeleted, FileObject
from floopy_common.openai.models import ModelList, ModelObject
from floopy_common.openai.uploads import UploadObject, UploadPart

Schema = dict[str, Any]

PATH = "/openapi.json"
_STRING: Schema = {"type": "string"}
_BINARY: Schema = {"type": "string", "format": "binary"}
_REFUSALS = {
    400: "The request is wrong; `param` names the part at fault.",
    401: "No key, or none in use.",
    404: "Unknown to this organisation.",
    408: "The body did not arrive in time.",
    409: "The request contradicts what is; sending it again changes nothing.",
    413: "More bytes than are taken.",
    415: "A Content-Encoding or a media type that is not taken.",
    416: "The range is outside the file.",
    429: "Over a limit: `retry-after` says when to try again, unless nothing is left this month.",
    500: "Our fault.",
    503: "Not available for a moment; `retry-after` says when to try again.",
}


def _object(properties: Mapping[str, Schema], required: tuple[str, ...], **more: Any) -> Schema:
    return {"type": "object", "properties": dict(properties), "required": list(required), **more}


_LIFETIME = _object(
    {
        "anchor": {"type": "string", "enum": ["created_at"]},
        "seconds": {"type": "integer", "minimum": MIN_LIFETIME, "maximum": MAX_LIFETIME},
    },
    ("anchor", "seconds"),
)
_PURPOSE: Schema = {"type": "string", "enum": list(UPLOAD_PURPOSES)}
_METADATA: Schema = {
    "type": ["object", "null"],
    "maxProperties": METADATA_PAIRS,
    "propertyNames": {"maxLength": METADATA_KEY_CHARS},
    "additionalProperties": {"type": "string", "maxLength": METADATA_VALUE_CHARS},
}

REQUESTS: dict[str, Schema] = {
    "CreateBatch": _object(
        {
            "input_file_id": _STRING,
            "endpoint": {"type": "string", "enum": list(all_endpoints())},
            "completion_window": {"type": "string", "enum": list(COMPLETION_WINDOWS)},
            "metadata": _METADATA,
            "output_expires_after": {"anyOf": [_LIFETIME, {"type": "null"}]},
        },
        ("input_file_id", "endpoint", "completion_window"),
    ),
    "CreateFile": _object(
        {
            "file": _BINARY,
            "purpose": _PURPOSE,
            "expires_after[anchor]": _LIFETIME["properties"]["anchor"],
            "expires_after[seconds]": _LIFETIME["properties"]["seconds"],
        },
        ("file", "purpose"),
    ),
    "CreateUpload": _object(
        {
            "filename": _STRING,
            "purpose": _PURPOSE,
            "bytes": {"type": "integer", "minimum": 1},
            "mime_type": _STRING,
            "expires_after": {"anyOf": [_LIFETIME, {"type": "null"}]},
        },
        ("filename", "purpose", "bytes", "mime_type"),
    ),
    "AddPart": _object({"data": _BINARY}, ("data",)),
    "CompleteUpload": _object(
        {
            "part_ids": {"type": "array", "items": _STRING},
            "md5": {"type": ["string", "null"], "pattern": "^[0-9a-fA-F]{32}$"},
        },
        ("part_ids",),
    ),
}
"""What requests say, by the name of their schema."""


@dataclass(frozen=True)
class Operation:
    """`answer` is the schema of a 200, None for bytes; `body` names what is sent, as `media`."""

    summary: str
    answer: str | None
    body: str | None = None
    media: str = "application/json"
    query: Mapping[str, Schema] = field(default_factory=dict)
    headers: tuple[str, ...] = ()
    also: tuple[int, ...] = ()


def _limit(highest: int, default: int) -> Schema:
    return {"type": "integer", "minimum": 1, "maximum": highest, "default": default}


_FORM = "multipart/form-data"
_FILE_PAGE: dict[str, Schema] = {
    "limit": _limit(10_000, 10_000),
    "after": _STRING,
    "order": {"type": "string", "enum": ["asc", "desc"], "default": "desc"},
    "purpose": _STRING,
}
_BATCH_PAGE = {"limit": _limit(100, 20), "after": _STRING}
_KEY = "Idempotency-Key"
_PROVIDER = "floopy-provider"
_SESSION = "floopy-session-id"

OPERATIONS: dict[tuple[str, str], Operation] = {
    ("POST", "/v1/files"): Operation(
        "Upload a file", "FileObject", "CreateFile", _FORM, headers=(_KEY,), also=(408, 409, 413, 415, 429)
    ),
    ("GET", "/v1/files"): Operation("List files", "FilePage", query=_FILE_PAGE),
    ("GET", "/v1/files/{file_id}"): Operation("Retrieve a file", "FileObject"),
    ("DELETE", "/v1/files/{file_id}"): Operation("Delete a file", "FileDeleted"),
    ("GET", "/v1/files/{file_id}/content"): Operation("Download a file", None, also=(206, 304, 416)),
    ("POST", "/v1/uploads"): Operation(
        "Begin an upload in parts", "UploadObject", "CreateUpload", headers=(_KEY,), also=(408, 409, 413)
    ),
    ("POST", "/v1/uploads/{upload_id}/parts"): Operation(
        "Add a part", "UploadPart", "AddPart", _FORM, also=(408, 409, 413, 415, 429)
    ),
    ("POST", "/v1/uploads/{upload_id}/complete"): Operation(
        "Make the parts a file", "UploadObject", "CompleteUpload", also=(408, 409, 413)
    ),
    ("POST", "/v1/uploads/{upload_id}/cancel"): Operation("Cancel an upload", "UploadObject", also=(409,)),
    ("GET", "/v1/models"): Operation("List models that can be batched", "ModelList"),
    ("GET", "/v1/models/{model}"): Operation("Retrieve a model", "ModelObject"),
    ("POST", "/v1/batches"): Operation(
        "Create a batch",
        "BatchObject",
        "CreateBatch",
        headers=(_KEY, _PROVIDER, _SESSION),
        also=(408, 409, 413, 429),
    ),
    ("GET", "/v1/batches"): Operation("List batches, newest first", "BatchPage", query=_BATCH_PAGE),
    ("GET", "/v1/batches/{batch_id}"): Operation("Retrieve a batch, as fresh as its provider", "BatchObject"),
    ("POST", "/v1/batches/{batch_id}/cancel"): Operation("Cancel a batch", "BatchObject", also=(409,)),
}
"""Every route for clients; probes and this document itself are not among them."""

_ANSWERS = (
    BatchObject,
    FileObject,
    FileDeleted,
    UploadObject,
    UploadPart,
    ModelObject,
    ModelList,
    ErrorEnvelope,
)


def document() -> Schema:
    """The whole description."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Floopy Batch",
            "version": "1",
            "description": "Files, uploads and batches, shaped as OpenAI's; `floopy` is what we add.",
        },
        "security": [{"key": []}],
        "paths": _paths(),
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": _schemas(),
        },
    }


def _schemas() -> Schema:
    _, answers = msgspec.json.schema_components(_ANSWERS, ref_template="#/components/schemas/{name}")
    pages = {"BatchPage": _page("BatchObject"), "FilePage": _page("FileObject")}
    return dict(sorted({**answers, **pages, **REQUESTS}.items()))


def _page(name: str) -> Schema:
    some_id = {"type": ["string", "null"]}
    return _object(
        {
            "object": {"enum": ["list"]},
            "data": {"type": "array", "items": _ref(name)},
            "first_id": some_id,
            "last_id": some_id,
            "has_more": {"type": "boolean"},
        },
        ("object", "data", "first_id", "last_id", "has_more"),
    )


def _paths() -> Schema:
    paths: Schema = {}
    for (method, path), operation in OPERATIONS.items():
        paths.setdefault(path, {})[method.lower()] = _described(path, operation)
    return paths


def _described(path: str, operation: Operation) -> Schema:
    described: Schema = {"summary": operation.summary, "parameters": _parameters(path, operation)}
    if operation.body is not None:
        content = {operation.media: {"schema": _ref(operation.body)}}
        described["requestBody"] = {"required": True, "content": content}
    described["responses"] = _responses(operation)
    return described


def _parameters(path: str, operation: Operation) -> list[Schema]:
    in_path = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    return [
        *({"name": name, "in": "path", "required": True, "schema": _STRING} for name in in_path),
        *({"name": name, "in": "query", "schema": schema} for name, schema in operation.query.items()),
        *({"name": name, "in": "header", "schema": _STRING} for name in operation.headers),
    ]


def _responses(operation: Operation) -> Schema:
    good = {"application/octet-stream": {"schema": _BINARY}}
    if operation.answer is not None:
        good = {"application/json": {"schema": _ref(operation.answer)}}
    responses: Schema = {"200": {"description": "Done.", "content": good}}
    for status in sorted({400, 401, 404, 415, 500, 503, *operation.also}):
        if status == 206:
            responses["206"] = {"description": "The range asked for.", "content": good}
        elif status == 304:
            responses["304"] = {"description": "The client has these bytes."}
        else:
            content = {"application/json": {"schema": _ref("ErrorEnvelope")}}
            responses[str(status)] = {"description": _REFUSALS[status], "content": content}
    return responses


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def rendered_document() -> bytes:
    """As it is served and kept in contracts/openapi.json."""
    return msgspec.json.format(msgspec.json.encode(document()), indent=1) + b"\n"


async def get_document(_: web.Request) -> web.Response:
    return web.Response(body=rendered_document(), content_type="application/json")
