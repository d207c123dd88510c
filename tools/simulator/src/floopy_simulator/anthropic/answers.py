"""One request in, one outcome out: the same bytes for the same request, in a batch or alone."""

import logging
from collections.abc import Callable
from hashlib import sha256

import msgspec

from floopy_simulator.anthropic.errors import TYPES, ApiError, invalid, plain_error
from floopy_simulator.anthropic.message import Usage, write_message
from floopy_simulator.anthropic.request_rules import Rules, read_request
from floopy_simulator.directives import Directive, DirectiveError, find_marker

logger = logging.getLogger(__name__)
NEVER_RUN = {
    "expired": "expired",
    "batch_expired": "expired",
    "canceled": "canceled",
    "batch_cancelled": "canceled",
}
"""Values of the directive `error` that end a line without a message or an error."""
STATUSES = {kind: status for status, kind in TYPES.items()}


class Answer(msgspec.Struct, frozen=True, gc=False):
    """Exactly one of `message`, `error` and `never_run` is set."""

    body_sha: str
    message: bytes | None = None
    usage: Usage | None = None
    error: ApiError | None = None
    never_run: str | None = None
    directive: Directive | None = None

    @property
    def status(self) -> int:
        """0: it never ran."""
        return 200 if self.message is not None else 0 if self.error is None else self.error.status

    @property
    def kind(self) -> str:
        """The type of its result in a batch."""
        return self.never_run or ("succeeded" if self.error is None else "errored")


def answer(body: bytes, rules: Rules, executed: Callable[[str], int]) -> Answer:
    """`executed(body_sha)` counts this execution and says how many came before it."""
    digest = sha256(body)
    body_sha = digest.hexdigest()
    directive = None
    try:
        directive = find_marker(body)
        if directive is not None:
            _fail_as_scripted(directive, body_sha, executed)
            if directive.error in NEVER_RUN:
                return Answer(body_sha, never_run=NEVER_RUN[directive.error], directive=directive)
        understood = read_request(body, rules)
        tier = b"batch" if rules.batch else b"standard"
        message, usage = write_message(understood, digest.digest(), body_sha.encode(), directive, tier)
    except ApiError as error:
        return Answer(body_sha, error=error, directive=directive)
    except DirectiveError as error:
        return Answer(body_sha, error=invalid(str(error)), directive=directive)
    except Exception:
        # A request must not take its batch down: as at the real one, it ends with a server error.
        logger.exception("request failed", extra={"event": "request_failed", "body_sha": body_sha})
        return Answer(body_sha, error=plain_error(500), directive=directive)
    return Answer(body_sha, message, usage, directive=directive)


def _fail_as_scripted(directive: Directive, body_sha: str, executed: Callable[[str], int]) -> None:
    status, kind = directive.status, None
    if status is None and directive.error is not None and directive.error not in NEVER_RUN:
        status, kind = STATUSES.get(directive.error, 500), directive.error
    if status is None or status == 200:
        return
    if directive.times is None or executed(body_sha) < directive.times:
        error = plain_error(status, directive.code)
        raise ApiError(status, error.message, kind=kind, code=directive.code)
