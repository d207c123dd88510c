"""What one line came to: its answer, or why it has none, in the words of the output and error files."""

import re
from functools import lru_cache

import msgspec

from floopy_common.domain.index import FLAG_OVERSIZED, ResultEntry
from floopy_common.domain.line import (
    BATCH_CANCELLED,
    BATCH_EXPIRED,
    MISSING,
    RESULTS_EXPIRED,
    TOO_LARGE,
    LineAnswer,
    LineError,
    LineStatus,
)
from floopy_common.domain.money import Cost, Rates, Usage, cost_of
from floopy_common.domain.shard import ShardEnd
from floopy_common.events.lines import LineFailure
from floopy_reconciler.core.sources import Choice
from floopy_reconciler.ports import Document

_BY_ENDING = {
    ShardEnd.EXPIRED: BATCH_EXPIRED,
    ShardEnd.CANCELLED: BATCH_CANCELLED,
    ShardEnd.LOST: RESULTS_EXPIRED,
    ShardEnd.FINISHED: MISSING,
    ShardEnd.REFUSED: MISSING,
}
_STATUS_OF = {
    "batch_expired": LineStatus.EXPIRED,
    "batch_cancelled": LineStatus.CANCELLED,
    "request_cancelled": LineStatus.CANCELLED,
}
_SUCCEEDED = LineStatus.SUCCEEDED
_REFUSED_STATUS = 400
_SERVER_ERROR = 500
_ANTHROPIC = "anthropic"
_NOT_THERE = (MISSING, RESULTS_EXPIRED)
_MESSAGE_CHARS = 1_000
_CODE_CHARS = 100
_SNAPSHOT = re.compile(r"-(\d{4}-\d\d-\d\d|\d{8}|\d{4})")
"""How providers date a model: `-2024-08-06`, `-20250514` or `-0613`."""
_ALIASES = ("-latest", "-0")
"""Endings of names that stand for the newest snapshot of what comes before."""


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """The line's `response` is `status_code` and `body`, or there is none and `error` is raw JSON.

    `billed`: the provider charged for it, as far as anybody knows.
    """

    status: LineStatus
    status_code: int | None
    request_id: str | None
    body: bytes | None
    error: bytes
    failure: LineFailure | None
    billed: bool = False
    model: str | None = None
    usage: Usage | None = None
    finish_reason: str | None = None
    said: bytes | None = None
    """JSON of the answer's text where it is known without reading `body`."""


class _Fault(msgspec.Struct, gc=False):
    code: str | int | None = None
    type: str | None = None
    message: str | None = None


class _FaultBody(msgspec.Struct, gc=False):
    error: _Fault | None = None


_encode = msgspec.json.Encoder().encode
_decode_fault = msgspec.json.Decoder(_Fault).decode
_decode_fault_body = msgspec.json.Decoder(_FaultBody).decode
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def answered(answer: LineAnswer) -> Outcome:
    """The outcome of a line that the provider has spoken of."""
    if answer.ok and answer.body is not None:
        body, model, usage = readable(answer.body), answer.model, answer.usage
        end, said = answer.finish_reason, answer.said
        return Outcome(
            _SUCCEEDED, answer.status_code, answer.request_id, body, b"", None, True, model, usage, end, said
        )
    if answer.status_code and answer.status_code >= _REFUSED_STATUS:
        body = readable(answer.body or _no_message(answer.status_code))
        failure = _failure_in(body)
        return Outcome(LineStatus.FAILED, answer.status_code, answer.request_id, body, b"", failure)
    if answer.error is None:
        return without_answer(MISSING)
    error = readable(answer.error)
    failure = _failure_of(error)
    status = _STATUS_OF.get(failure.code or "", LineStatus.FAILED)
    return Outcome(status, None, None, None, error, failure)


def unanswered(line_no: int, source: Document, entry: ResultEntry | None) -> Outcome:
    """The outcome of a line whose source has no answer to give."""
    if entry is not None and entry.flags & FLAG_OVERSIZED:
        return without_answer(TOO_LARGE, billed=True)
    if source["refused"] is not None:
        return _refused(line_no, source["refused"])
    why = _BY_ENDING[ShardEnd(source["ended"])]
    if source["provider"] == _ANTHROPIC and why in _NOT_THERE:
        return _failed_upstream(why)
    return without_answer(why)


def _failed_upstream(why: LineError) -> Outcome:
    """A message batch that has ended answers every request: what it leaves out is a fault of the server."""
    body = _encode(
        {"error": {"message": why.message, "type": "server_error", "param": None, "code": why.code}}
    )
    return Outcome(LineStatus.FAILED, _SERVER_ERROR, None, body, b"", _failure_in(body))


def without_answer(error: LineError, *, billed: bool = False) -> Outcome:
    status = _STATUS_OF.get(error.code, LineStatus.FAILED)
    failure = LineFailure(error.code, error.message)
    return Outcome(status, None, None, None, _encode(error), failure, billed=billed)


def has_answer(choice: Choice) -> bool:
    """Whether the source's archive holds something to be read for the line."""
    return choice.entry is not None and has_bytes(choice.entry)


def has_bytes(entry: ResultEntry) -> bool:
    return entry.length > 0 and not entry.flags & FLAG_OVERSIZED


def never_ran(answer: LineAnswer) -> bool:
    """The provider lists the line only to say that it did not get to it."""
    return not answer.ok and answer.status_code is None and _code_of(answer.error) in _STATUS_OF


def price_of(outcome: Outcome, asked: str | None, rates: Rates | None) -> Cost:
    """The line's cost at the pinned rates of the model it asked for."""
    if not outcome.billed:
        return Cost(0)
    if outcome.usage is None:
        return Cost(None, "usage_missing")
    if not is_same_model(asked, outcome.model):
        return Cost(None, "model_differs")
    return cost_of(outcome.usage, rates)


@lru_cache(maxsize=1024)
def is_same_model(asked: str | None, said: str | None) -> bool:
    """Whether the answer names the model asked for, or a dated snapshot of it; who says nothing agrees."""
    if said is None or asked is None or said == asked:
        return True
    bases = [asked, *(asked.removesuffix(alias) for alias in _ALIASES if asked.endswith(alias))]
    return any(
        said == base or (said.startswith(base) and _SNAPSHOT.fullmatch(said, len(base))) for base in bases
    )


def readable(raw: bytes) -> bytes:
    """The JSON as valid UTF-8: what is not, in a string of the provider's, is replaced."""
    if raw.isascii():
        return raw
    try:
        raw.decode()
    except UnicodeDecodeError:
        return raw.decode("utf-8", "replace").encode()
    return raw


def _refused(line_no: int, refused: Document) -> Outcome:
    """What the provider said of the line, else what it said of the whole input."""
    said = next((error for error in refused["errors"] if error.get("line") == line_no), refused)
    error = {
        "message": said.get("message") or "The provider refused this batch.",
        "type": "invalid_request_error",
        "param": said.get("param"),
        "code": said.get("code"),
    }
    body = _encode({"error": error})
    return Outcome(LineStatus.FAILED, _REFUSED_STATUS, None, body, b"", _failure_in(body))


def _no_message(status_code: int) -> bytes:
    message = f"The provider answered with status {status_code} and nothing else."
    return _encode({"error": {"message": message, "type": "api_error", "param": None, "code": None}})


def _failure_in(body: bytes) -> LineFailure:
    try:
        fault = _decode_fault_body(body).error
    except _UNREADABLE:
        fault = None
    return _failure(fault)


def _failure_of(error: bytes) -> LineFailure:
    try:
        return _failure(_decode_fault(error))
    except _UNREADABLE:
        return _failure(None)


def _failure(fault: _Fault | None) -> LineFailure:
    if fault is None:
        return LineFailure(None, None)
    code = fault.code if fault.code is not None else fault.type
    return LineFailure(
        None if code is None else str(code)[:_CODE_CHARS],
        None if fault.message is None else fault.message[:_MESSAGE_CHARS],
    )


def _code_of(error: bytes | None) -> str | None:
    return None if error is None else _failure_of(error).code
