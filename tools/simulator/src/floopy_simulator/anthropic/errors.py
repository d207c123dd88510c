"""Anthropic's error envelope and the wording of the refusals it stands for."""

import msgspec

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
MESSAGES = {
    400: "The request is invalid.",
    401: "invalid x-api-key",
    402: "Your credit balance is too low to access the API.",
    403: "Your API key does not have permission to use the specified resource.",
    404: "Not found",
    405: "Method Not Allowed",
    409: "The request conflicts with the current state of the resource.",
    413: "Request exceeds the maximum size",
    429: "This request would exceed your organization's rate limit.",
    500: "Internal server error",
    504: "The request timed out while processing.",
    529: "Overloaded",
}
EDGE_PAGE = (
    b"<html>\r\n<head><title>413 Request Entity Too Large</title></head>\r\n<body>\r\n"
    b"<center><h1>413 Request Entity Too Large</h1></center>\r\n<hr><center>cloudflare</center>\r\n"
    b"</body>\r\n</html>\r\n"
)
"""What stands in front of the API answers a body that is too large; it does not know the envelope."""


class ApiError(Exception):
    """A refusal as the API words it; `page` replaces the envelope, `headers` travel with the response."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str | None = None,
        code: str | None = None,
        page: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind or TYPES.get(status, "api_error")
        self.code = code
        self.page = page
        self.headers = headers or {}

    def body(self, request_id: str | None) -> bytes:
        return envelope(self.kind, self.message, request_id, self.code)


def envelope(kind: str, message: str, request_id: str | None, code: str | None = None) -> bytes:
    """`code` goes where Anthropic has put its machine-readable reason since 2026."""
    error: dict[str, object] = {"type": kind, "message": message}
    if code is not None:
        error["details"] = {"error_code": code}
    return msgspec.json.encode({"type": "error", "error": error, "request_id": request_id})


def invalid(message: str) -> ApiError:
    return ApiError(400, message)


def plain_error(status: int, code: str | None = None) -> ApiError:
    """The usual error of a bare HTTP status."""
    return ApiError(status, MESSAGES.get(status, f"The request failed with status {status}."), code=code)


def too_large() -> ApiError:
    return ApiError(413, "Request Entity Too Large", page=EDGE_PAGE)
