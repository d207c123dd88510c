"""Which lines of a batch a shard stands for."""

from bisect import bisect_left, bisect_right

from floopy_common.domain.index import lines_and_groups
from floopy_reconciler.ports import Document


def lines_of(shard: Document, packed: bytes) -> list[int]:
    """The shard's line numbers, sorted, out of an input index that covers its segments.

    The n-th of them is the n-th line of the shard's upstream input.
    """
    ranges = sorted(shard["ranges"])
    group = shard["group"]
    numbers = [line for line, of in lines_and_groups(packed) if of == group]
    found: list[int] = []
    for first, last in ranges:
        found += numbers[bisect_left(numbers, first) : bisect_right(numbers, last)]
    return found
