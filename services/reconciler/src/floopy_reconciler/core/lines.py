"""Which lines of a batch a shard stands for."""

from floopy_common.domain.index import unpack_input
from floopy_reconciler.ports import Document


def lines_of(shard: Document, packed: bytes) -> list[int]:
    """The shard's line numbers, sorted, out of an input index that covers its segments.

    The n-th of them is the n-th line of the shard's upstream input.
    """
    ranges = sorted(shard["ranges"])
    found: list[int] = []
    at = 0
    for entry in unpack_input(packed):
        while at < len(ranges) and ranges[at][1] < entry.line_no:
            at += 1
        if at == len(ranges):
            break
        if entry.group == shard["group"] and ranges[at][0] <= entry.line_no:
            found.append(entry.line_no)
    return found
