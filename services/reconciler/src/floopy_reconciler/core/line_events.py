"""The event of one line, never too large for its topic."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from itertools import accumulate
from typing import Any, cast

import msgspec

from floopy_common.domain.ids import line_id
from floopy_common.domain.line import LineStatus
from floopy_common.domain.money import Cost, Rates
from floopy_common.events.lines import (
    MAX_EVENT_BYTES,
    BlobRange,
    Content,
    ContentPolicy,
    LineCompleted,
    LineCost,
    LineFailure,
    LineTiming,
    SegmentRef,
    encode_line,
    line_event,
    to_line_usage,
)
from floopy_reconciler.core.event_template import template_of
from floopy_reconciler.core.outcomes import Outcome
from floopy_reconciler.core.previews import answer_preview, text_preview
from floopy_reconciler.core.questions import Question
from floopy_reconciler.ports import Document

_ROOM = 16 * 1024
"""More than an event takes beside its bodies."""
_SHORT = 200
"""Characters left of any one text in an event that would else be too large."""
_UNSET = msgspec.UNSET
_NULL = b"null"
_SUCCEEDED = LineStatus.SUCCEEDED


class Place(msgspec.Struct, gc=False):
    """Where the JSON of a body is, and the JSON itself."""

    blob: str
    offset: int
    body: bytes


@dataclass(frozen=True)
class Facts:
    """What all events of a segment share; `models` by group, `timings` by source."""

    org_id: str
    api_key_id: str | None
    batch_id: str
    segments: int
    segment: SegmentRef
    provider: str
    endpoint: str
    session_id: str | None
    content_policy: ContentPolicy
    price_version: str | None
    input_ranges: Sequence[Mapping[str, Any]]
    models: Sequence[tuple[str | None, Rates | None]]
    timings: Sequence[LineTiming]
    max_event_bytes: int = MAX_EVENT_BYTES


def facts_of(batch: Document, segment: Document, manifest: Document, max_event_bytes: int) -> Facts:
    context = batch["context"]
    return Facts(
        org_id=batch["org_id"],
        api_key_id=batch.get("api_key_id"),
        batch_id=batch["_id"],
        segments=batch["plan"]["segments"],
        segment=SegmentRef(segment["no"], segment["first_line"], segment["last_line"], segment["lines"]),
        provider=batch["provider"],
        endpoint=batch["endpoint"],
        session_id=context.get("session_id"),
        content_policy=cast("ContentPolicy", context["content_policy"]),
        price_version=manifest["price_version"],
        input_ranges=batch["input"]["ranges"],
        models=[(group["model"], _rates(group.get("rates"))) for group in manifest["rates"]],
        timings=[
            LineTiming(batch["created_at"], source["submitted_at"], _completed_at(source, manifest))
            for source in manifest["sources"]
        ],
        max_event_bytes=min(MAX_EVENT_BYTES, max_event_bytes),
    )


def _rates(rates: Document | None) -> Rates | None:
    if rates is None:
        return None
    # a manifest older than one of the rates has none of it, which is what unknown means
    return Rates(**{name: rates.get(name) for name in Rates.__struct_fields__})


def _completed_at(source: Document, manifest: Document) -> datetime:
    return cast("datetime", source["ended_at"] or manifest["written_at"])


class Line(msgspec.Struct, gc=False):
    """One line, its number also as the digits in its id; `asked_at`: its request's offset in the input."""

    number: int
    digits: bytes
    group: int
    source: int
    question: Question
    asked_at: int
    outcome: Outcome
    cost: Cost
    answered: Place | None


class LineEvents:
    """Makes the events of one segment."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._previews = facts.content_policy != "none"
        self._inline = facts.content_policy == "inline"
        self._starts = [0, *accumulate(part["length"] for part in facts.input_ranges)]
        self._shifts = [
            part["offset"] - start for part, start in zip(facts.input_ranges, self._starts, strict=False)
        ]
        """From an offset in the input file to the one in its blob, by range."""
        self._templates: dict[tuple[int, int, int, bool, str], bytes] = {}

    def make(self, line: Line) -> bytes:
        """The event's bytes; they follow from the line and the segment's facts."""
        if not self._inline:
            value = self._filled(line)
            if value is not None and len(value) <= self._facts.max_event_bytes:
                return value
        return self._encoded(line)

    def _filled(self, line: Line) -> bytes | None:
        """The event out of a template; None for a line that has something out of the ordinary."""
        outcome, cost, question, answered = line.outcome, line.cost, line.question, line.answered
        usage, nano_usd, asked_at, asked = outcome.usage, cost.nano_usd, line.asked_at, len(question.body)
        part = bisect_right(self._starts, asked_at) - 1
        if (
            outcome.status is not _SUCCEEDED
            or answered is None
            or usage is None
            or usage.cache_write_tokens
            or nano_usd is None
            or asked_at + asked > self._starts[part + 1]
        ):
            return None
        digits, tokens_in, tokens_out = line.digits, usage.input_tokens, usage.output_tokens
        return self._template(line, part, answered.blob) % (
            digits,
            digits,
            digits,
            line.number,
            question.custom_id,
            outcome.status_code,
            _json_of(outcome.finish_reason),
            tokens_in,
            usage.cached_tokens,
            tokens_out,
            usage.reasoning_tokens,
            tokens_in + tokens_out,
            nano_usd,
            _json_of(cost.flag),
            asked_at + self._shifts[part],
            asked,
            self._asked_preview(question),
            answered.offset,
            len(answered.body),
            self._answer_preview(answered, outcome),
        )

    def _template(self, line: Line, part: int, response_blob: str) -> bytes:
        unconstrained = line.question.unconstrained
        key = (line.source, line.group, part, unconstrained, response_blob)
        template = self._templates.get(key)
        if template is None:
            template = template_of(
                self._shared(line),
                price_version=self._facts.price_version,
                request_blob=self._facts.input_ranges[part]["blob"],
                unconstrained=unconstrained,
                response_blob=response_blob,
            )
            self._templates[key] = template
        return template

    def _shared(self, line: Line) -> dict[str, Any]:
        facts = self._facts
        return {
            "source": "batch",
            "org_id": facts.org_id,
            "api_key_id": facts.api_key_id,
            "batch_id": facts.batch_id,
            "segments": facts.segments,
            "segment": facts.segment,
            "provider": facts.provider,
            "model": facts.models[line.group][0],
            "endpoint": facts.endpoint,
            "timing": facts.timings[line.source],
            "session_id": facts.session_id,
            "content_policy": facts.content_policy,
        }

    def _encoded(self, line: Line) -> bytes:
        facts, outcome, answered = self._facts, line.outcome, line.answered
        inline = self._inline and self._fits(line.question.body, answered)
        data = LineCompleted(
            **self._shared(line),
            line_id=line_id(facts.batch_id, line.number),
            line_no=line.number,
            custom_id=cast("str", msgspec.Raw(line.question.custom_id)),
            status=outcome.status,
            status_code=outcome.status_code,
            error=outcome.failure,
            finish_reason=outcome.finish_reason,
            usage=None if outcome.usage is None else to_line_usage(outcome.usage),
            cost=LineCost(line.cost.nano_usd, line.cost.flag, facts.price_version),
            request=self._request(line.question, line.asked_at, inline),
            response=None if answered is None else self._response(answered, outcome, inline),
        )
        time = data.timing.completed_at
        value = encode_line(line_event(data, time))
        if len(value) <= facts.max_event_bytes:
            return value
        return encode_line(line_event(_shrunk(data), time))

    def _fits(self, asked: bytes, answered: Place | None) -> bool:
        bodies = len(asked) + (0 if answered is None else len(answered.body))
        return bodies + _ROOM <= self._facts.max_event_bytes

    def _asked_preview(self, question: Question) -> bytes:
        return question.preview or _NULL if self._previews else _NULL

    def _answer_preview(self, answered: Place, outcome: Outcome) -> bytes:
        if not self._previews:
            return _NULL
        if outcome.said is not None:
            return text_preview(outcome.said) or _NULL
        return answer_preview(answered.body) or _NULL

    def _request(self, question: Question, asked_at: int, inline: bool) -> Content:
        first, *rest = self._located(asked_at, len(question.body))
        preview = cast("str", msgspec.Raw(self._asked_preview(question)))
        body = msgspec.Raw(question.body) if inline else _UNSET
        located = (first.blob, first.offset, first.length)
        return Content(*located, preview, body, tuple(rest), question.unconstrained)

    def _response(self, answered: Place, outcome: Outcome, inline: bool) -> Content:
        preview = cast("str", msgspec.Raw(self._answer_preview(answered, outcome)))
        body = msgspec.Raw(answered.body) if inline else _UNSET
        return Content(answered.blob, answered.offset, len(answered.body), preview, body)

    def _located(self, offset: int, length: int) -> list[BlobRange]:
        """The blob ranges of `length` bytes of the input file."""
        at = bisect_right(self._starts, offset) - 1
        found = []
        while length > 0:
            part = self._facts.input_ranges[at]
            skip = offset - self._starts[at]
            taken = min(length, part["length"] - skip)
            if taken > 0:
                found.append(BlobRange(part["blob"], part["offset"] + skip, taken))
            at, offset, length = at + 1, offset + taken, length - taken
        return found


@lru_cache(maxsize=256)
def _json_of(text: str | None) -> bytes:
    return msgspec.json.encode(text)


def _shrunk(data: LineCompleted) -> LineCompleted:
    """Without bodies and previews, every text short: what is left of the largest event.

    A request that lies in very many small blobs keeps the first of its ranges only.
    """
    failure = data.error
    return msgspec.structs.replace(
        data,
        model=_short(data.model),
        session_id=_short(data.session_id),
        finish_reason=_short(data.finish_reason),
        error=None if failure is None else LineFailure(failure.code, _short(failure.message)),
        request=_bare(data.request),
        response=None if data.response is None else _bare(data.response),
    )


def _bare(content: Content) -> Content:
    return Content(content.blob, content.offset, content.length, None, unconstrained=content.unconstrained)


def _short(text: str | None) -> str | None:
    return None if text is None else text[:_SHORT]
