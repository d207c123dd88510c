"""OpenAI's error envelope and the wording of the refusals it stands for."""

import msgspec

TYPES = {401: "invalid_request_error", 429: "requests", 500: "server_error", 502: "server_error"}
CODES = {429: "rate_limit_exceeded"}
MESSAGES = {
    400: "The request is invalid.",
    401: "Incorrect API key provided.",
    403: "You do not have access to this resource.",
    404: "The requested resource was not found.",
    408: "The request timed out.",
    409: "The request conflicts with another one.",
    413: "The request is too large.",
    429: "Rate limit reached. Please try again later.",
    500: "The server had an error while processing your request. Sorry about that!",
    503: "The server is overloaded or not ready yet.",
}


class ApiError(Exception):
    """A refusal; `headers` travel with the response."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        kind: str = "invalid_request_error",
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.kind = kind
        self.headers = headers or {}

    @property
    def body(self) -> bytes:
        return envelope(self.message, self.kind, self.param, self.code)


def envelope(message: str, kind: str, param: str | None, code: str | None) -> bytes:
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": param, "code": code}})


def plain_error(status: int, code: str | None = None) -> ApiError:
    """The usual error of a bare HTTP status."""
    kind = TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    message = MESSAGES.get(status, f"The request failed with status {status}.")
    return ApiError(status, message, code=code or CODES.get(status), kind=kind)
