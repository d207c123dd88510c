"""The segment's life and where its events go: the unit of output, emission, confirmation and usage."""

from enum import StrEnum
from zlib import crc32


class SegmentState(StrEnum):
    OPEN = "open"
    WRITTEN = "written"
    EMITTED = "emitted"
    BALANCED = "balanced"


WRITTEN_STATES = (SegmentState.WRITTEN, SegmentState.EMITTED, SegmentState.BALANCED)
"""States in which the manifest is durable, so the segment's lines are answered."""


class Sink(StrEnum):
    METERING = "metering"
    LOGGING = "logging"
    FEEDBACK = "feedback"


def partition_of(batch_id: str, segment_no: int, partitions: int) -> int:
    """One big batch spreads over all partitions; one segment meets one consumer, in order."""
    return (crc32(batch_id.encode()) + segment_no) % partitions
