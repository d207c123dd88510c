"""Anthropic's errors of single lines in OpenAI's terms."""

import re
from dataclasses import dataclass

import msgspec
from typing_extensions import override

from floopy_common.chassis.redaction import redact
from floopy_common.domain.line import LineAnswer
from floopy_common.openai.errors import (
    INSUFFICIENT_QUOTA,
    INVALID_REQUEST,
    SERVER_ERROR,
    ErrorEnvelope,
    ErrorObject,
)

CONTEXT_LENGTH = "context_length_exceeded"


@dataclass(frozen=True)
class Meaning:
    """How an error is told; `passing`: another try can succeed."""

    status: int
    type: str
    code: str | None = None
    passing: bool = False


MEANINGS = {
    "invalid_request_error": Meaning(400, INVALID_REQUEST),
    "request_too_large": Meaning(413, INVALID_REQUEST, "request_too_large"),
    "not_found_error": Meaning(404, INVALID_REQUEST, "model_not_found"),
    "permission_error": Meaning(403, INVALID_REQUEST, "permission_denied"),
    "rate_limit_error": Meaning(429, "requests", "rate_limit_exceeded", passing=True),
    "billing_error": Meaning(429, INSUFFICIENT_QUOTA, INSUFFICIENT_QUOTA),
    "authentication_error": Meaning(500, SERVER_ERROR, "upstream_auth"),
    "api_error": Meaning(500, SERVER_ERROR, passing=True),
    "timeout_error": Meaning(504, SERVER_ERROR, passing=True),
    "overloaded_error": Meaning(503, SERVER_ERROR, passing=True),
}
"""The operator's key is none of a user's business, so its refusal is no 401; OpenAI has no 529."""
UNKNOWN = Meaning(500, SERVER_ERROR)

_TOO_LONG = re.compile(r"prompt is too long|.*\bcontext window\b", re.IGNORECASE | re.DOTALL)
_PATH = re.compile(r"(?P<root>[a-z_]+)(?:\.[\w.\[\]]+)?: ")
_PARAMS = {
    "messages": "messages",
    "system": "messages",
    "model": "model",
    "max_tokens": "max_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "stop_sequences": "stop",
    "tools": "tools",
    "tool_choice": "tool_choice",
    "thinking": "reasoning_effort",
    "output_config": "response_format",
    "metadata": "user",
}
"""Ours by theirs. Only the root: positions after it count turns and blocks, not the user's messages."""
_ACCOUNT = re.compile(
    r"\b(?:wrkspc|org|acct|apikey)_[A-Za-z0-9]{8,}|\b(?:[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12})\b"
)
_NO_MESSAGE = "The provider failed to answer this request."

_encode = msgspec.json.Encoder().encode


class FinalAnswer(LineAnswer, frozen=True, gc=False):
    """A failure that another try cannot mend, although its status looks like one."""

    @property
    @override
    def retryable(self) -> bool:
        return False


def failed_answer(
    kind: str | None, message: str | None, error_code: str | None, request_id: str | None
) -> LineAnswer:
    """The answer to a line that Anthropic could not or would not serve."""
    meaning = MEANINGS.get(kind or "", UNKNOWN)
    text = _ACCOUNT.sub("[redacted]", redact(message)) if message else _NO_MESSAGE
    code, param = meaning.code or error_code, None
    if kind == "invalid_request_error":
        found = _PATH.match(text)
        param = _PARAMS.get(found["root"]) if found else None
        if _TOO_LONG.match(text):
            code, param = CONTEXT_LENGTH, "messages"
    body = _encode(ErrorEnvelope(ErrorObject(text, meaning.type, param, code)))
    make = LineAnswer if meaning.passing else FinalAnswer
    return make(status_code=meaning.status, request_id=request_id, body=body)
