"""One request in, one answer out: the same bytes for the same request, whatever the endpoint."""

import logging
from collections.abc import Callable
from hashlib import sha256

import msgspec

from floopy_simulator.directives import Directive, DirectiveError, find_directive
from floopy_simulator.openai.errors import ApiError, envelope, plain_error


class Usage(msgspec.Struct, frozen=True, gc=False):
    """`wire` is the `usage` of chat completions, formatted once because three places show it."""

    prompt: int
    completion: int
    cached: int
    reasoning: int
    wire: bytes


def make_usage(prompt: int, completion: int, cached: int = 0, reasoning: int = 0) -> Usage:
    wire = (
        b'{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d,'
        b'"prompt_tokens_details":{"cached_tokens":%d,"audio_tokens":0},'
        b'"completion_tokens_details":{"reasoning_tokens":%d,"audio_tokens":0,'
        b'"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}'
        % (prompt, completion, prompt + completion, cached, reasoning)
    )
    return Usage(prompt, completion, cached, reasoning, wire)


class Asked(msgspec.Struct, frozen=True, gc=False):
    """One request as an endpoint sees it; `digest` is the body's SHA-256, `name` the same in hexadecimal."""

    body: bytes
    digest: bytes
    name: bytes
    created: int
    directive: Directive | None = None


class Answer(msgspec.Struct, frozen=True, gc=False):
    """`status` 0: the line ends without a response, as `directive.error` says."""

    status: int
    body: bytes
    body_sha: str
    usage: Usage | None = None
    directive: Directive | None = None


logger = logging.getLogger(__name__)
NO_RESPONSE = 0
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
        if directive is not None and directive.error is not None:
            return Answer(NO_RESPONSE, b"null", body_sha, None, directive)
        wire, usage = endpoint(Asked(body, digest.digest(), body_sha.encode(), created, directive))
    except ApiError as error:
        return Answer(error.status, error.body, body_sha, None, directive)
    except DirectiveError as error:
        refused = envelope(str(error), "invalid_request_error", "metadata.sim", None)
        return Answer(400, refused, body_sha, None, directive)
    except Exception:
        # A line must not take its batch down: as at the real one, it ends with a server error.
        logger.exception("line failed", extra={"event": "line_failed", "body_sha": body_sha})
        return Answer(500, plain_error(500).body, body_sha, None, directive)
    return Answer(200, wire, body_sha, usage, directive)


def _fail_as_scripted(directive: Directive, body_sha: str, executed: Callable[[str], int]) -> None:
    if directive.status is None or directive.status == 200:
        return
    if directive.times is None or executed(body_sha) < directive.times:
        raise plain_error(directive.status, directive.code)
