"""Which shards count as large."""

import pytest

from floopy_submitter.core.due import _is_large
from floopy_submitter.core.kept import SMALL


@pytest.mark.parametrize(("size", "large"), [(1, False), (SMALL, False), (SMALL + 1, True), (0, True)])
def test_a_shard_of_unknown_size_counts_as_large(size: int, large: bool) -> None:
    assert _is_large({"bytes": size}) is large
