"""Previews of whatever bodies users and providers write."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from floopy_reconciler.core.previews import PREVIEW_CHARS, answer_preview, is_unconstrained, question_preview

TEXTS = st.text(st.characters(codec="utf-8"), max_size=3 * PREVIEW_CHARS)
ANY_SHORT = st.text(st.characters(codec="utf-8"), max_size=90)
PLAIN = st.text(st.characters(codec="ascii", exclude_characters='"\\', min_codepoint=32), max_size=2_000)


def text_of(preview: bytes | None) -> str | None:
    return None if preview is None else str(json.loads(preview))


def messages(*pairs: tuple[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in pairs]}


@pytest.mark.parametrize(
    ("body", "preview"),
    [
        (messages(("system", "Be kind."), ("user", "First"), ("assistant", "x"), ("user", "Last")), "Last"),
        (messages(("system", "Only this")), "Only this"),
        (messages(("user", [{"type": "image_url"}, {"type": "text", "text": "What is it?"}])), "What is it?"),
        ({"input": "embed me"}, "embed me"),
        ({"input": ["one", "two"]}, "one"),
        ({"input": [{"role": "user", "content": [{"type": "input_text", "text": "R"}]}]}, "R"),
        ({"prompt": "complete me"}, "complete me"),
        ({"input": "", "prompt": "or this"}, "or this"),
        ({"input": ""}, None),
        ({"prompt": ""}, ""),
        (messages(("user", [{"type": "text", "text": ""}, {"type": "text", "text": "more"}])), "more"),
        ({"input": [1, 2, 3]}, None),
        (messages(("user", None)), None),
        ({"messages": "no list"}, None),
        ({}, None),
    ],
)
def test_a_question_is_the_last_user_message_or_the_input(body: dict[str, Any], preview: str | None) -> None:
    assert text_of(question_preview(json.dumps(body).encode())) == preview


@pytest.mark.parametrize(
    ("body", "preview"),
    [
        ({"choices": [{"message": {"role": "assistant", "content": "Yes."}}]}, "Yes."),
        ({"choices": [{"message": {"role": "assistant", "content": None, "tool_calls": []}}]}, None),
        ({"choices": [{"text": "completed"}]}, "completed"),
        ({"output": [{"type": "message", "content": [{"type": "output_text", "text": "R"}]}]}, "R"),
        ({"error": {"message": "no such model"}}, "no such model"),
        ({"data": [{"embedding": [0.1]}]}, None),
        ({"choices": []}, None),
    ],
)
def test_an_answer_is_its_first_text(body: dict[str, Any], preview: str | None) -> None:
    assert text_of(answer_preview(json.dumps(body).encode())) == preview


@given(TEXTS, st.booleans())
def test_a_preview_is_the_beginning_however_it_is_spelled(text: str, plain: bool) -> None:
    body = json.dumps(messages(("user", text + "." * 5_000)), ensure_ascii=plain).encode()
    preview = text_of(question_preview(body))
    assert preview is not None
    expected = (text + "." * 5_000)[:PREVIEW_CHARS]
    # the cut may lose what stands right at it, never more
    assert expected.startswith(preview)
    assert len(preview) >= PREVIEW_CHARS - 2


@given(st.one_of(ANY_SHORT, PLAIN), st.booleans())
def test_a_preview_is_spelled_as_an_event_spells_it(text: str, plain: bool) -> None:
    body = json.dumps(messages(("user", text)), ensure_ascii=plain).encode()
    assert question_preview(body) == msgspec.json.encode(text[:PREVIEW_CHARS])


@pytest.mark.parametrize("name", ["tools", "functions", "response_format", "tool_choice", "function_call"])
def test_a_request_that_names_tools_or_a_form_is_constrained(name: str) -> None:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], name: []})
    escaped = body.replace(f'"{name}"', f'"\\u{ord(name[0]):04x}{name[1:]}"')

    assert not is_unconstrained(body.encode())
    assert json.loads(escaped)[name] == []
    assert not is_unconstrained(escaped.encode())


@pytest.mark.parametrize("text", ["hi", 'say "tools" and \\', "über", "\u2028 tools"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_request_whose_text_only_speaks_of_tools_is_unconstrained(text: str, ascii_only: bool) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": text}], "temperature": 0}

    assert is_unconstrained(json.dumps(body, ensure_ascii=ascii_only).encode())
