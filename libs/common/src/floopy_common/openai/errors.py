"""OpenAI's error envelope."""

import msgspec

INVALID_REQUEST = "invalid_request_error"
SERVER_ERROR = "server_error"
INSUFFICIENT_QUOTA = "insufficient_quota"
RATE_LIMITED = "requests"


class ErrorObject(msgspec.Struct, frozen=True):
    """What clients read: SDKs show `message` alone, so it must stand alone."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorEnvelope(msgspec.Struct, frozen=True):
    error: ErrorObject
