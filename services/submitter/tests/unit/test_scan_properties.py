"""Any input at all: what is accepted can be sliced, and both ways to check a line decide alike."""

import json

import msgspec
from floopy_batches.scanning import CHAT, EMBEDDINGS, encoded, request, scan_bytes, scan_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from floopy_common.domain.index import unpack_input

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=10,
)
SPACE = st.sampled_from(["", " ", "\t", "  \r"])


@st.composite
def written(draw: st.DrawFn) -> bytes:
    """One line, well formed or nearly, in one of the ways JSON can be written."""
    body = draw(st.dictionaries(st.text(max_size=5), JSON, max_size=3)) | {
        "model": draw(st.sampled_from(["m", "m", "m", "other", None, 5])),
        "messages": draw(st.sampled_from([[], ["Hi there"], None, "x"])),
        "stream": draw(st.sampled_from([False, True, None])),
    }
    fields = {
        "custom_id": draw(st.text(max_size=3)),
        "method": draw(st.sampled_from(["POST", "POST", "GET"])),
        "url": draw(st.sampled_from([CHAT, CHAT, EMBEDDINGS])),
        "body": body,
    }
    dropped = draw(st.sampled_from([None, None, None, *fields]))
    kept = {name: value for name, value in fields.items() if name != dropped}
    names = draw(st.permutations(list(kept)))
    separators = (f"{draw(SPACE)},{draw(SPACE)}", f"{draw(SPACE)}:{draw(SPACE)}")
    ascii_only = draw(st.booleans())
    text = json.dumps({name: kept[name] for name in names}, ensure_ascii=ascii_only, separators=separators)
    return text.replace("\n", " ").encode(errors="replace")


class AnyLine(msgspec.Struct):
    body: msgspec.Raw


@settings(deadline=None)
@given(st.lists(written(), max_size=8), st.integers(1, 200))
def test_what_is_accepted_can_be_sliced_and_the_rest_is_faults(lines: list[bytes], piece: int) -> None:
    lines = [encoded(request("the first", body={"model": "m", "messages": []})), *lines]
    content = b"\n".join(lines)

    scan, rows = scan_rows(content, piece=piece)

    assert scan.lines + len(scan.faults) == len(lines)
    if not scan.faults:
        entries = list(unpack_input(rows))
        assert [entry.line_no for entry in entries] == list(range(1, len(lines) + 1))
        for entry, line in zip(entries, lines, strict=True):
            sliced = content[entry.offset : entry.offset + entry.length]
            assert json.loads(sliced) == json.loads(line)
            raw = msgspec.json.decode(sliced, type=AnyLine).body
            assert json.loads(bytes(raw)) == json.loads(line)["body"]


@settings(deadline=None)
@given(st.lists(written(), max_size=8))
def test_the_short_path_decides_as_the_long_one_does(lines: list[bytes]) -> None:
    lines = [encoded(request("the first", body={"model": "m", "messages": []})), *lines]
    quick = scan_bytes(b"\n".join(lines))
    # so many brackets send every line the long way
    detour = b'"x":[' + b",".join([b"{}"] * 200) + b"],"
    careful = scan_bytes(b"\n".join(line.replace(b"{", b"{" + detour, 1) for line in lines))

    assert quick.faults == careful.faults
    assert quick.lines == careful.lines
    assert [shard.lines for shard in quick.cut()[1]] == [shard.lines for shard in careful.cut()[1]]
