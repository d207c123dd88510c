"""What was planned a moment ago is sent without being read again, and kept within bounds."""

import json
from typing import Any

import pytest

from floopy_common.domain.index import pack_input
from floopy_common.providers.openai.request import TRANSLATOR_VERSION, upstream_line
from floopy_submitter.core import kept as kept_inputs
from floopy_submitter.core.cutting import Segment
from floopy_submitter.core.input import ShardInput
from floopy_submitter.core.kept import SMALL, Copy, KeptInput, KeptInputs

CHAT = "/v1/chat/completions"
LINES = [json.dumps({"custom_id": str(n), "body": {"n": n}}).encode() for n in range(1, 6)]


def _body(line: bytes) -> bytes:
    return line[line.index(b'"body": ') + 8 : -1]


def _copy(rows: int = 2) -> KeptInput:
    """Of five lines in pieces that end in mid-line, in segments of `rows`."""
    data, entries, offset = b"\n".join(LINES), [], 0
    for number, line in enumerate(LINES, start=1):
        entries.append((number, offset, len(line), 0))
        offset += len(line) + 1
    copy = Copy()
    copy.add(data[:50], pack_input(entries[:1]))
    copy.add(data[50:], pack_input(entries[1:4]))
    copy.add(b"", pack_input(entries[4:]))
    segments = [
        Segment(no, at + 1, min(at + rows, 5), min(rows, 5 - at), 1, at)
        for no, at in enumerate(range(0, 5, rows))
    ]
    done = copy.done(segments)
    assert done is not None
    return done


async def test_a_kept_input_is_sent_as_it_would_be_read() -> None:
    expected = [upstream_line("0123456789", n, CHAT, _body(LINES[n - 1])) for n in (3, 4, 5)]
    plan = {"index_blob": "blob", "translator_version": TRANSLATOR_VERSION}
    batch = {"plan": plan, "input": {"ranges": []}}
    shard = {
        **dict.fromkeys(("_id", "batch_id", "plan_id"), "p"),
        "provider": "openai",
        "endpoint": CHAT,
        "kind": "primary",
        "segments": [1, 2],
        "ranges": [[3, 5]],
        "group": 0,
        "bytes": sum(map(len, expected)),
    }
    inputs = KeptInputs()
    inputs.keep("p", _copy(), 1)
    nobody: Any = None

    opened = await ShardInput(nobody, nobody, nobody, inputs).open(
        batch, shard, {"id": "att", "nonce": "0123456789"}
    )

    assert b"".join([chunk async for chunk in opened.chunks]) == b"".join(expected)


def test_a_large_input_is_not_kept() -> None:
    copy = Copy()
    copy.add(b"x" * SMALL, b"row")
    assert copy.done([]) is not None

    copy.add(b"y", b"row")

    assert copy.done([]) is None
    assert (copy._pieces, copy._rows) == ([], [])


def test_an_input_is_kept_until_each_of_its_shards_is_submitted() -> None:
    inputs = KeptInputs()
    inputs.keep("p", _copy(), 2)

    inputs.submitted("p")
    assert inputs.of("p") is not None
    inputs.submitted("p")
    inputs.submitted("p")

    assert inputs.of("p") is None
    assert inputs._size == 0


def test_what_comes_first_is_kept_when_there_is_no_room_and_goes_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    one = _copy()
    monkeypatch.setattr(kept_inputs, "_MOST", 2 * one.size)
    inputs = KeptInputs(lambda: now)
    for name in ("a", "b", "c"):
        inputs.keep(name, one, 1)
    assert [inputs.of(name) is not None for name in ("a", "b", "c")] == [True, True, False]

    now += 30
    inputs.keep("c", one, 1)

    assert [inputs.of(name) is not None for name in ("a", "b", "c")] == [False, False, True]
    assert inputs._size == one.size
