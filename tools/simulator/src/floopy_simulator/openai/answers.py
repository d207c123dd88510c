"""One request in, one answer out: the same bytes for the same request, whatever the endpoint."""

from collections.abc import Callable
from hashlib import sha256

import msgspec

from floopy_simulator.directives import Directive, DirectiveError, find_directive
from floopy_simulator.openai.errors import ApiError, envelope, plain_error


class Usage(msgspec.Struct, frozen=True):
    prompt: int
    completion: int
    cached: int = 0
    reasoning: int = 0

    @property
    def chat_wire(self) -> bytes:
        """The `usage` of chat completions."""
        return (
            b'{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d,'
            b'"prompt_tokens_details":{"cached_tokens":%d,"audio_tokens":0},'
            b'"completion_tokens_details":{"reasoning_tokens":%d,"audio_tokens":0,'
            b'"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}'
            % (self.prompt, self.completion, self.prompt + self.completion, self.cached, self.reasoning)
        )


class Asked(msgspec.Struct, frozen=True):
    """One request as an endpoint sees it; `digest` is the SHA-256 of the body."""

    body: bytes
    digest: bytes
    created: int
    directive: Directive | None = None


class Answer(msgspec.Struct, frozen=True):
    status: int
    body: bytes
    body_sha: str
    usage: Usage | None = None
    directive: Directive | None = None


Endpoint = Callable[[Asked], tuple[bytes, Usage]]


def answer(endpoint: Endpoint, body: bytes, *, created: int, executed: Callable[[str], int]) -> Answer:
    """`executed(body_sha)` counts this execution and says how many came before it."""
    digest = sha256(body)
    body_sha = digest.hexdigest()
    directive = None
    try:
        directive = find_directive(body)
        if directive is not None and directive.status is not None:
            _fail_as_scripted(directive, body_sha, executed)
        wire, usage = endpoint(Asked(body, digest.digest(), created, directive))
    except ApiError as error:
        return Answer(error.status, error.body, body_sha, None, directive)
    except DirectiveError as error:
        refused = envelope(str(error), "invalid_request_error", "metadata.sim", None)
        return Answer(400, refused, body_sha, None, directive)
    return Answer(200, wire, body_sha, usage, directive)


def _fail_as_scripted(directive: Directive, body_sha: str, executed: Callable[[str], int]) -> None:
    if directive.status is None or directive.status == 200:
        return
    if directive.times is None or executed(body_sha) < directive.times:
        raise plain_error(directive.status, directive.code)
