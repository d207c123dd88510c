"""Lines out of pieces: the same lines, numbers and offsets, however the bytes were cut."""

from hypothesis import given, settings
from hypothesis import strategies as st

from floopy_common.openai.jsonl import LineSplitter

BOM = b"\xef\xbb\xbf"


def split(content: bytes, piece: int, max_line: int = 1_000) -> list[tuple[int, int, bytes | None]]:
    """(number, offset, bytes) of every line; None for one that was too long."""
    splitter = LineSplitter(max_line)
    blocks = []
    for start in range(0, len(content), piece):
        blocks += splitter.feed(content[start : start + piece])
    blocks += splitter.finish()
    found: list[tuple[int, int, bytes | None]] = []
    for block in blocks:
        number, offset = block.first_line, block.offset
        if block.oversized:
            found.append((number, offset, None))
        for line in block.lines:
            found.append((number, offset, line))
            number, offset = number + 1, offset + len(line) + 1
    return found


def expected(content: bytes, max_line: int) -> list[tuple[int, int, bytes | None]]:
    lines = content.split(b"\n")
    if not lines[-1]:
        lines.pop()
    found: list[tuple[int, int, bytes | None]] = []
    offset = 0
    for number, line in enumerate(lines, start=1):
        found.append((number, offset, line if len(line) <= max_line else None))
        offset += len(line) + 1
    return found


@settings(deadline=None)
@given(
    st.lists(st.binary(max_size=30).filter(lambda part: not part.startswith(BOM)), max_size=12),
    st.integers(1, 50),
    st.integers(0, 20),
)
def test_lines_do_not_depend_on_the_pieces(parts: list[bytes], piece: int, max_line: int) -> None:
    content = b"\n".join(parts)

    assert split(content, piece, max_line) == expected(content, max_line)


@settings(deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=10), min_size=1, max_size=5), st.integers(1, 20))
def test_a_bom_is_no_part_of_the_first_line(parts: list[bytes], piece: int) -> None:
    content = BOM + b"\n".join(parts)

    found = split(content, piece)

    assert found[0][:2] == (1, 3)
    assert all(line is not None and content[at : at + len(line)] == line for _, at, line in found)
    assert (
        b"\n".join(line for _, _, line in found if line is not None) + b"\n"
        == content[3:].removesuffix(b"\n") + b"\n"
    )


def test_a_bom_later_in_the_file_is_left_alone() -> None:
    assert split(b"a\n" + BOM + b"b\n", 100) == [(1, 0, b"a"), (2, 2, BOM + b"b")]


def test_a_line_just_within_the_limit_is_kept() -> None:
    assert split(b"12345\n123456\n1\n", 4, max_line=5) == [(1, 0, b"12345"), (2, 6, None), (3, 13, b"1")]
