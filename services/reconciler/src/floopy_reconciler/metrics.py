"""Metrics of the reconciler; labels are words of the product, never organisations or batches."""

from collections.abc import Sequence

from prometheus_client import Counter, Gauge, Histogram

from floopy_common.domain.batch import BatchStatus
from floopy_common.domain.segment import Sink
from floopy_common.domain.shard import ShardEnd

_LATE = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0)
_LONG = (0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0)

LOOKS = Counter("floopy_looks_total", "Looks at provider batches, by their own or in a list.", ["outcome"])
LOOK_LATENESS = Histogram(
    "floopy_look_lateness_seconds", "How long after it was due a look began.", buckets=_LATE
)
LISTING_PAGES = Counter(
    "floopy_listing_pages_total", "Pages read of providers' lists of batches, to look at many at once."
)
SHARDS_WAITING = Gauge(
    "floopy_shards_waiting_for_collection", "Shards that have ended and wait until others are collected."
)
SHARDS_SETTLED = Counter("floopy_shards_settled_total", "Shards that ended.", ["ended"])
SHARDS_DETACHED = Counter(
    "floopy_shards_detached_total", "Provider batches that turned out to be somebody else's."
)
LINES_RETRIED = Counter("floopy_lines_retried_total", "Lines that were given another provider batch.")
LINES_QUARANTINED = Counter(
    "floopy_lines_quarantined_total",
    "Result lines that never became an answer, and answers that never came.",
    ["kind"],
)
BATCHES_ENDED = Counter("floopy_batches_ended_total", "Batches that became terminal.", ["status"])
DOWNLOADED_BYTES = Counter("floopy_downloaded_bytes_total", "Bytes of results downloaded from providers.")
DOWNLOAD_SECONDS = Histogram("floopy_download_seconds", "Seconds one results file took.", buckets=_LONG)
RENDERERS_STARTED = Counter(
    "floopy_renderers_started_total", "Rendering processes started; more than one: some were lost."
)
BLOBS_SWEPT = Counter("floopy_blobs_swept_total", "Blobs that were deleted because nobody referred to them.")
PINS_LEAKED = Counter("floopy_pins_leaked_total", "Pins of batches that never came to be, removed.")
LINES_ANSWERED = Counter("floopy_lines_answered_total", "Lines in output and error files.")
SEGMENT_SECONDS = Histogram(
    "floopy_segment_seconds", "Seconds to write or emit a segment.", ["what"], buckets=_LONG
)
LINES_EMITTED = Counter("floopy_lines_emitted_total", "Line events sent, first or again.", ["again"])
SEGMENTS_DIFFERENT = Counter(
    "floopy_segments_different_total", "Segments that no longer render to their stored bytes."
)
SEGMENTS_STUCK = Counter("floopy_segments_stuck_total", "Tries to render a segment that failed.")
SEGMENTS_QUARANTINED = Counter(
    "floopy_segments_quarantined_total", "Times a segment was left alone because its workers die of it."
)
DOWNLOADS_QUARANTINED = Counter(
    "floopy_downloads_quarantined_total",
    "Times results were left alone because their collectors die of them.",
)
ANSWERS_NOTED = Counter(
    "floopy_answers_noted_total",
    "Lines whose answer was told with something unknown or missing in it.",
    ["note"],
)
BALANCE_SECONDS = Histogram(
    "floopy_balance_seconds", "Seconds from a batch's end until every line is confirmed.", buckets=_LONG
)
SEGMENTS_SENT_AGAIN = Counter(
    "floopy_segments_sent_again_total", "Segments that a sink had not confirmed, emitted again."
)
RECEIPTS_VOIDED = Counter(
    "floopy_receipts_voided_total", "Receipts for rows that are not there any more.", ["sink"]
)


class PrometheusReports:
    """Counts what the core reports."""

    def looked(self, outcome: str, late: float | None) -> None:
        LOOKS.labels(outcome).inc()
        if late is not None:
            LOOK_LATENESS.observe(max(0.0, late))

    def listed(self, unchanged: int, late: Sequence[float]) -> None:
        LISTING_PAGES.inc()
        LOOKS.labels("unchanged").inc(unchanged)
        for seconds in late:
            LOOK_LATENESS.observe(max(0.0, seconds))

    def waiting(self, shards: int) -> None:
        SHARDS_WAITING.set(shards)

    def settled(self, ended: ShardEnd) -> None:
        SHARDS_SETTLED.labels(ended.value).inc()

    def detached(self) -> None:
        SHARDS_DETACHED.inc()

    def retried(self, lines: int) -> None:
        LINES_RETRIED.inc(lines)

    def quarantined(self, kind: str, lines: int) -> None:
        LINES_QUARANTINED.labels(kind).inc(lines)

    def download_quarantined(self) -> None:
        DOWNLOADS_QUARANTINED.inc()

    def ended(self, status: BatchStatus) -> None:
        BATCHES_ENDED.labels(status.value).inc()

    def swept(self, blobs: int) -> None:
        BLOBS_SWEPT.inc(blobs)

    def leaked(self, pins: int) -> None:
        PINS_LEAKED.inc(pins)


class SegmentMetrics:
    """Counts what the segment worker reports."""

    def written(self, lines: int, seconds: float) -> None:
        LINES_ANSWERED.inc(lines)
        SEGMENT_SECONDS.labels("write").observe(seconds)

    def emitted(self, lines: int, seconds: float, *, again: bool) -> None:
        LINES_EMITTED.labels(str(again).lower()).inc(lines)
        SEGMENT_SECONDS.labels("emit").observe(seconds)

    def differs(self) -> None:
        SEGMENTS_DIFFERENT.inc()

    def stuck(self) -> None:
        SEGMENTS_STUCK.inc()

    def quarantined(self) -> None:
        SEGMENTS_QUARANTINED.inc()

    def noted(self, note: str, lines: int) -> None:
        ANSWERS_NOTED.labels(note).inc(lines)


class AuditMetrics:
    """Counts what the audit reports."""

    def balanced(self, seconds: float) -> None:
        BALANCE_SECONDS.observe(seconds)

    def sent_again(self, segments: int) -> None:
        SEGMENTS_SENT_AGAIN.inc(segments)

    def miscounted(self, sink: Sink) -> None:
        RECEIPTS_VOIDED.labels(sink.value).inc()
