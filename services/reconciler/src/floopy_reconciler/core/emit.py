"""Sends a segment's events to its partition, and knows when there is no point in trying."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from floopy_common.domain.segment import partition_of
from floopy_common.events.lines import LINE_COMPLETED
from floopy_reconciler.core.render import Piece
from floopy_reconciler.ports import EventProducer, Hit, Record

_FIRST_SEND = 500
"""Few enough to learn quickly that the broker does not answer."""
_WHOLE = 100
"""So few are sent at once: consumers then have them as one delivery, which costs as much as a large one."""
_BUNDLE_BYTES = 1024 * 1024
"""Rendered anew at once: enough for a send to be worth it, little enough for the event loop to turn."""


@dataclass(frozen=True)
class Emission:
    """Where a segment's events are."""

    partition: int
    first_offset: int
    last_offset: int


class Emitter:
    """Sends in order; a failure leaves it open what arrived, so everything is sent again."""

    def __init__(self, *, producer: EventProducer, partitions: int, hit: Hit) -> None:
        self._producer = producer
        self._partitions = partitions
        self._hit = hit

    async def emit(self, batch_id: str, segment_no: int, bundles: Iterable[Sequence[Record]]) -> Emission:
        """Return when all are acknowledged; Transient when they are not."""
        partition = partition_of(batch_id, segment_no, self._partitions)
        offsets: list[tuple[int, int]] = []
        for records in _with_a_small_first(bundles):
            offsets.append(await self._producer.send_batch(LINE_COMPLETED, partition, records))
            if len(offsets) == 1:
                self._hit("segment.after_first_send")
        self._hit("segment.after_send")
        return Emission(partition, min(first for first, _ in offsets), max(last for _, last in offsets))


def _with_a_small_first(bundles: Iterable[Sequence[Record]]) -> Iterator[Sequence[Record]]:
    first = True
    for records in bundles:
        cut = min(_FIRST_SEND, (len(records) + 1) // 2) if first and len(records) > _WHOLE else 0
        first = False
        if cut:
            yield records[:cut]
        if records[cut:]:
            yield records[cut:]


def bundled(pieces: Iterable[Piece]) -> Iterator[list[Record]]:
    """The events of rendered pieces in lists worth a call."""
    records: list[Record] = []
    size = 0
    for piece in pieces:
        records += piece.events
        size += size_of(piece.events)
        if size >= _BUNDLE_BYTES:
            yield records
            records, size = [], 0
    if records:
        yield records


def size_of(records: Iterable[Record]) -> int:
    return sum(len(key) + len(value) for key, value in records)


class Gate:
    """After a failed send nothing is sent for a while, then by one at a time until one succeeds."""

    def __init__(self, shortest: float, longest: float, monotonic: Callable[[], float]) -> None:
        self._shortest = shortest
        self._longest = longest
        self._monotonic = monotonic
        self._failures = 0
        self._closed_until = 0.0
        self._trying = False

    @property
    def is_open(self) -> bool:
        return self._failures == 0 or (not self._trying and self._monotonic() >= self._closed_until)

    @property
    def wait(self) -> float:
        """Seconds until it may be worth coming back."""
        return max(self._shortest, self._closed_until - self._monotonic())

    def enter(self) -> bool:
        """Whether to send now; whoever enters calls `succeeded`, `failed` or `left` afterwards."""
        if not self.is_open:
            return False
        self._trying = self._failures > 0
        return True

    def succeeded(self) -> None:
        self._failures, self._trying = 0, False

    def failed(self) -> None:
        delay = min(self._shortest * 2.0 ** min(self._failures, 20), self._longest)
        # many sends that were under way together fail together: that is one failure
        if self._trying or self._failures == 0:
            self._failures += 1
            self._closed_until = self._monotonic() + delay
        self._trying = False

    def left(self) -> None:
        self._trying = False
