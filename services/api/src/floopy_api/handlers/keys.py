"""Everything handlers find in the application and on a request."""

from dataclasses import dataclass

from aiohttp import web

from floopy_api.core.authentication import Authenticator, Caller
from floopy_api.core.batches import Batches
from floopy_api.core.files import Files
from floopy_api.core.finished import Finished
from floopy_api.core.models import Models
from floopy_api.core.uploads import Uploads
from floopy_api.handlers.limits import Limits
from floopy_api.handlers.traffic import Traffic
from floopy_api.ports import Bytes
from floopy_common.stores.blobs import BlobStore


@dataclass(frozen=True)
class Passage:
    """One request on its way: its id, and when it came, by the monotonic clock."""

    request_id: str
    began: float


AUTHENTICATOR: web.AppKey[Authenticator] = web.AppKey("authenticator", Authenticator)
FILES: web.AppKey[Files] = web.AppKey("files", Files)
UPLOADS: web.AppKey[Uploads] = web.AppKey("uploads", Uploads)
MODELS: web.AppKey[Models] = web.AppKey("models", Models)
BATCHES: web.AppKey[Batches] = web.AppKey("batches", Batches)
FINISHED: web.AppKey[Finished] = web.AppKey("finished", Finished)
BLOBS: web.AppKey[BlobStore] = web.AppKey("blobs", BlobStore)
BYTES: web.AppKey[Bytes] = web.AppKey("bytes", Bytes)
LIMITS: web.AppKey[Limits] = web.AppKey("limits", Limits)
TRAFFIC: web.AppKey[Traffic] = web.AppKey("traffic", Traffic)
MAX_UPLOAD: web.AppKey[int] = web.AppKey("max_upload", int)

CALLER: web.RequestKey[Caller] = web.RequestKey("caller", Caller)
PASSAGE: web.RequestKey[Passage] = web.RequestKey("passage", Passage)
