"""Batches that are over: their answer, kept for a moment as the bytes it is sent as."""

from floopy_api.core.authentication import Caller, TimedCache
from floopy_api.ports import Document, Monotonic
from floopy_common.domain.batch import BatchStatus

_REMEMBERED = 2_000
"""Answers: a few kilobytes each."""


class Finished:
    """Keeps an answer for `ttl` seconds: only recounts and retention ever change such a batch again, and
    neither is anything a reader waits for.
    """

    def __init__(self, ttl: float, monotonic: Monotonic, remembered: int = _REMEMBERED) -> None:
        self._answers: TimedCache[bytes] = TimedCache(ttl, remembered, monotonic)

    def get(self, caller: Caller, batch_id: str) -> bytes | None:
        return self._answers.get((caller.org_id, batch_id))

    def keep(self, caller: Caller, batch: Document, answer: bytes) -> None:
        """Remember the answer if the batch has ended and every line of it is accounted for."""
        if BatchStatus(batch["status"]).is_terminal and batch["audit"]["balanced"]:
            self._answers.keep((caller.org_id, batch["_id"]), answer)
