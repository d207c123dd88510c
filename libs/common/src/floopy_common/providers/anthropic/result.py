"""From a line of Anthropic's results to a line's answer in OpenAI's shape: pure, so always the same bytes."""

from typing import NamedTuple

import msgspec

from floopy_common.domain.errors import Invalid
from floopy_common.domain.line import BATCH_CANCELLED, BATCH_EXPIRED, LineAnswer
from floopy_common.providers.anthropic import reading
from floopy_common.providers.anthropic.answer import Failure, ResultLine, read_line
from floopy_common.providers.anthropic.completion import complete
from floopy_common.providers.anthropic.errors import failed_answer
from floopy_common.providers.anthropic.memory import PLAIN, ResultContext, result_context
from floopy_common.providers.mending import mended


class _Key(msgspec.Struct, gc=False):
    custom_id: str


class _Details(msgspec.Struct, gc=False):
    error_code: str | None = None


class Parsed(NamedTuple):
    """`notes` name what an operator should know of."""

    answer: LineAnswer
    notes: tuple[str, ...] = ()


_decode_key = msgspec.json.Decoder(_Key).decode
_decode_details = msgspec.json.Decoder(_Details).decode
_encode = msgspec.json.Encoder().encode
_NEVER_RAN = {
    kind: Parsed(LineAnswer(status_code=None, request_id=None, body=None, error=_encode(error)))
    for kind, error in (("canceled", BATCH_CANCELLED), ("expired", BATCH_EXPIRED))
}


class AnthropicResults:
    """How Anthropic writes a line of a batch's results."""

    def read_success(self, raw: bytes) -> str | None:
        """None: what a message is worth shows only when it is read."""
        return None

    def read_key(self, raw: bytes) -> str | None:
        """The line's custom_id; None when the line cannot be read."""
        try:
            return _decode_key(raw).custom_id
        except reading.UNREADABLE:
            pass
        try:
            return _decode_key(mended(raw)).custom_id
        except reading.UNREADABLE:
            return None

    def parse_result(self, raw: bytes) -> LineAnswer:
        """What became of the line, whatever its request was: enough to tell success from failure.

        Raises Invalid when the line cannot be read.
        """
        return self.parse(raw, PLAIN, 0).answer

    def parse_answer(self, raw: bytes, asked: bytes, ended: int) -> Parsed:
        """The answer to the request whose body, in OpenAI's shape, is `asked`; `ended` as `created` below.

        Raises Invalid when the line cannot be read.
        """
        return self.parse(raw, result_context(asked), ended)

    def parse(self, raw: bytes, context: ResultContext, created: int) -> Parsed:
        """`created`: when the provider batch ended, in Unix seconds, since a message has no time of its own.

        Raises Invalid when the line cannot be read.
        """
        line = _read(raw)
        result = line.result
        never_ran = _NEVER_RAN.get(result.type)
        if never_ran is not None:
            return never_ran
        if result.type == "errored":
            return Parsed(_failed(result.error))
        if result.type != "succeeded" or result.message is None:
            raise Invalid(f"a result of the type '{result.type[:50]}' without what belongs to it")
        try:
            completion, usage, notes = complete(result.message, context, created, line.custom_id)
        except reading.UNREADABLE as error:
            raise Invalid(f"a message that cannot be read: {error}") from error
        answer = LineAnswer(
            status_code=200,
            request_id=None,
            body=_encode(completion),
            model=completion.model or None,
            usage=usage,
            finish_reason=completion.choices[0].finish_reason,
        )
        return Parsed(answer, notes)


def _read(raw: bytes) -> ResultLine:
    try:
        return read_line(raw)
    except reading.UNREADABLE:
        pass
    try:
        return read_line(mended(raw))
    except reading.UNREADABLE as error:
        raise Invalid(f"a result that cannot be read: {error}") from error


def _failed(failure: Failure | None) -> LineAnswer:
    fault = failure.error if failure is not None else None
    if failure is None or fault is None:
        return failed_answer(None, None, None, failure.request_id if failure is not None else None)
    try:
        error_code = _decode_details(fault.details).error_code if fault.details else None
    except reading.UNREADABLE:
        error_code = None
    return failed_answer(fault.type, fault.message, error_code, failure.request_id)
