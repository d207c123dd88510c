"""From lines to score rows: exactly one each, whatever stands in the way of a score."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Final

from floopy_common.domain.line import LineStatus
from floopy_common.events.lines import LineCompleted
from floopy_common.events.scores import ScoreStatus
from floopy_feedback.core.checks import SCORER_VERSION
from floopy_feedback.core.content import Exchange, read_exchanges
from floopy_feedback.core.exchange import Unreadable
from floopy_feedback.core.score import Scorer
from floopy_feedback.ports import Blobs, Contexts, Document

_log = logging.getLogger(__name__)

SCORED_ENDPOINT: Final = "/v1/chat/completions"
ROWS: Final = 1_000
"""Rows stored together while the next are scored; measured: half as many cost 7 % more and end no sooner."""
_BREATH: Final = 64 * 1024
"""Bytes of bodies scored before the loop may do something else: a millisecond, unless it is hostile."""
_SCORED: Final = ScoreStatus.SCORED.value


class RowMaker:
    """Scores lines that can be scored, and says of the others why not."""

    def __init__(self, *, contexts: Contexts, blobs: Blobs, scorer: Scorer) -> None:
        self._contexts = contexts
        self._blobs = blobs
        self._scorer = scorer

    async def rows(self, lines: Sequence[LineCompleted]) -> AsyncGenerator[list[Document], None]:
        """One row per line, those first that have no score to be had, the others in the order of the lines.

        At most `ROWS` at a time of those that are scored. Raises only what says nothing about a line, so
        trying again can help.
        """
        contexts = await self._contexts.get_many({line.batch_id for line in lines})
        unscored: list[Document] = []
        chat: list[LineCompleted] = []
        for line in lines:
            row = _unscored(line, contexts)
            if row is None:
                chat.append(line)
            else:
                unscored.append(row)
        if unscored:
            yield unscored
        async with aclosing(read_exchanges(self._blobs, chat)) as runs:
            async for exchanges in runs:
                for start in range(0, len(exchanges), ROWS):
                    yield await self._scored_run(exchanges[start : start + ROWS])

    async def _scored_run(self, exchanges: Sequence[Exchange]) -> list[Document]:
        rows: list[Document] = []
        held = 0
        for exchange in exchanges:
            rows.append(self._scored(exchange))
            held += size_of(exchange.line)
            if held > _BREATH:
                held = 0
                await asyncio.sleep(0)
        return rows

    def _scored(self, exchange: Exchange) -> Document:
        line = exchange.line
        if exchange.failure is not None:
            return _error(line, exchange.failure)
        try:
            score = self._scorer.score(exchange.request, exchange.response)
        except Unreadable as error:
            return _error(line, error.args[0])
        except Exception:  # noqa: BLE001 - a fault of ours must not stop the partition; the row says so
            _log.exception("scorer failed", extra={"event": "scorer_failed", "line_id": line.line_id})
            return _error(line, "scorer_failed")
        return _row(line, _SCORED, score.quality, score.document)


def _unscored(line: LineCompleted, contexts: Mapping[str, Document]) -> Document | None:
    """The row of a line that has no score to be had; None for one that has."""
    context = contexts.get(line.batch_id)
    if context is None:
        return _error(line, "unknown_batch")
    if not context["feedback"]:
        return _row(line, ScoreStatus.NOT_IN_PLAN.value)
    if line.status is not LineStatus.SUCCEEDED or line.endpoint != SCORED_ENDPOINT:
        return _row(line, ScoreStatus.NOT_APPLICABLE.value)
    return _error(line, "no_response") if line.response is None else None


def size_of(line: LineCompleted) -> int:
    """Bytes of the line's bodies that are read."""
    answered = 0 if line.response is None else line.response.length
    return answered if line.request.unconstrained else answered + line.request.length


def _error(line: LineCompleted, reason: str) -> Document:
    return _row(line, ScoreStatus.ERROR.value, None, {"content": {"ok": False, "detail": reason}})


def _row(
    line: LineCompleted, status: str, quality: float | None = None, checks: Document | None = None
) -> Document:
    return {
        "_id": line.line_id,
        "org_id": line.org_id,
        "batch_id": line.batch_id,
        "segment": line.segment.no,
        "line_no": line.line_no,
        "custom_id": line.custom_id,
        "status": status,
        "scorer_version": SCORER_VERSION,
        "quality": quality,
        "checks": {} if checks is None else checks,
        "provider": line.provider,
        "model": line.model,
        "completed_at": _as_stored(line.timing.completed_at),
    }


def _as_stored(moment: datetime) -> datetime:
    """UTC in milliseconds, as it comes back from the database: events are the same of both."""
    if moment.tzinfo is UTC and not moment.microsecond % 1000:
        return moment
    moment = moment.astimezone(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
