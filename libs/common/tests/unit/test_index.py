"""Line indexes keep every entry and find ranges."""

from hypothesis import given
from hypothesis import strategies as st

from floopy_common.domain.index import (
    INPUT_ENTRY_BYTES,
    pack_input,
    pack_result,
    results_between,
    unpack_input,
    unpack_result,
)

_u32 = st.integers(0, 2**32 - 1)
_u64 = st.integers(0, 2**64 - 1)
_result_entries = st.lists(
    st.tuples(st.integers(1, 500), _u64, _u32, st.integers(0, 1), st.integers(0, 7)),
    unique_by=lambda entry: entry[0],
).map(sorted)


@given(st.lists(st.tuples(_u32, _u64, _u32, st.integers(0, 2**16 - 1))))
def test_input_entries_come_back_as_they_went_in(entries: list[tuple[int, int, int, int]]) -> None:
    packed = pack_input(entries)

    assert [tuple(entry) for entry in unpack_input(packed)] == entries
    assert len(packed) == INPUT_ENTRY_BYTES * len(entries)


@given(_result_entries, st.integers(0, 501), st.integers(0, 501))
def test_a_slice_holds_exactly_the_lines_of_its_range(
    entries: list[tuple[int, int, int, int, int]], first: int, last: int
) -> None:
    packed = pack_result(entries)

    assert [tuple(entry) for entry in unpack_result(packed)] == entries
    expected = [entry for entry in entries if first <= entry[0] <= last]
    assert [tuple(entry) for entry in unpack_result(results_between(packed, first, last))] == expected
