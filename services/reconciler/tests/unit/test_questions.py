"""A line of the input is read the same however it is spelled; the usual spelling is only read sooner."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from floopy_common.domain.errors import Invalid
from floopy_reconciler.core import questions
from floopy_reconciler.core.questions import read_question

BODY = {"model": "m", "messages": [{"role": "user", "content": 'Say "é".'}], "tools": []}
FRAME = {"custom_id": "a b", "method": "POST", "url": "/v1/chat/completions", "body": BODY}
USUAL = json.dumps(FRAME, ensure_ascii=False).encode()
SPELLINGS = [
    USUAL,
    json.dumps(FRAME, separators=(",", ":")).encode(),
    json.dumps({**FRAME, "custom_id": "é"}).encode(),
    json.dumps({**FRAME, "custom_id": "é"}, ensure_ascii=False).encode(),
    json.dumps({"body": BODY, **FRAME}).encode(),
    json.dumps({**FRAME, "more": {}}).encode(),
    json.dumps({**FRAME, "body": {"input": 5, "messages": "x"}}).encode(),
    b"\xef\xbb\xbf" + USUAL,
    USUAL[:-1] + b" }",
]


@given(
    st.sampled_from(SPELLINGS), st.lists(st.tuples(st.integers(0, 250), st.binary(max_size=2)), max_size=2)
)
def test_any_spelling_is_read_as_in_full(raw: bytes, changes: list[tuple[int, bytes]]) -> None:
    for at, put in changes:
        raw = raw[:at] + put + raw[at + len(put) :]
    try:
        expected = questions._read(1, raw)
    except Invalid:
        with pytest.raises(Invalid):
            read_question(1, raw)
    else:
        assert read_question(1, raw) == expected


def test_custom_id_body_and_place_are_those_of_the_line() -> None:
    for raw in SPELLINGS:
        line = json.loads(raw.removeprefix(b"\xef\xbb\xbf"))

        found = read_question(1, raw)

        assert json.loads(found.spelled) == json.loads(found.custom_id) == line["custom_id"]
        assert json.loads(found.body) == line["body"]
        assert raw[found.body_at : found.body_at + len(found.body)] == found.body


def test_the_usual_spelling_is_not_read_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "_decode_line", None)

    found = read_question(1, USUAL)

    assert (found.custom_id, found.preview) == (b'"a b"', '"Say \\"é\\"."'.encode())
