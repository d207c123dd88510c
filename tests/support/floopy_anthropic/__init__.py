"""Chat completions requests and Anthropic results of every kind, made up by hypothesis."""

import json
from typing import Any

from hypothesis import strategies as st

from floopy_common.providers.anthropic.capabilities import EFFORTS, ROWS

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NAMES = st.sampled_from(["look", "find_it", "a-b"])
MODELS = st.sampled_from(
    [*ROWS, "claude-opus-9", "claude-haiku-4-5-20251001", "anthropic/claude-opus-5", "gpt-4o"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(TEXT, JSON, max_size=3)
ARGUMENTS = OBJECTS.map(json.dumps) | st.sampled_from(["", "{}", '{"a":1.0,"a":2}', "nonsense"])

TEXT_PART = st.fixed_dictionaries(
    {"type": st.just("text"), "text": TEXT},
    optional={"prompt_cache_breakpoint": st.just({"mode": "explicit"})},
)
IMAGE_PART = st.sampled_from(
    [
        "https://example.com/a.png",
        "data:image/png;base64,iVBORw0K",
        "data:application/pdf;base64,YQ==",
        "http://a",
    ]
).map(lambda url: {"type": "image_url", "image_url": {"url": url}})
FILE_PART = st.sampled_from(
    [
        {"file_data": "data:text/plain;base64,YQ==", "filename": "a.txt"},
        {"file_id": "file-a"},
        {"file_id": "file-x"},
    ]
).map(lambda file: {"type": "file", "file": file})


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Mostly ones that OpenAI takes; tool results may be out of order, and turns in any."""
    messages: list[dict[str, Any]] = []
    for step in draw(st.lists(st.sampled_from("ssuuuatf"), max_size=6)):
        messages += draw(_STEPS[step])
    return [*messages, {"role": "user", "content": draw(TEXT | st.just("Hi"))}]


@st.composite
def _exchanges(draw: st.DrawFn) -> list[dict[str, Any]]:
    ids = draw(st.lists(st.integers(0, 10**6), min_size=1, max_size=3, unique=True))
    calls = [f"{draw(st.sampled_from(['call_', 'call:']))}{number}" for number in ids]
    said = [
        {"id": call, "type": "function", "function": {"name": draw(NAMES), "arguments": draw(ARGUMENTS)}}
        for call in calls
    ]
    content = TEXT | st.lists(TEXT_PART | IMAGE_PART, max_size=2)
    results = [
        {"role": "tool", "tool_call_id": call, "content": draw(content)}
        for call in draw(st.permutations(calls))
    ]
    return [{"role": "assistant", "content": draw(st.none() | TEXT), "tool_calls": said}, *results]


def _one(**members: Any) -> st.SearchStrategy[list[dict[str, Any]]]:
    return st.fixed_dictionaries(members).map(lambda message: [message])


_STEPS = {
    "s": _one(role=st.sampled_from(["system", "developer"]), content=TEXT | st.lists(TEXT_PART, max_size=2)),
    "u": _one(role=st.just("user"), content=TEXT | st.lists(TEXT_PART | IMAGE_PART | FILE_PART, max_size=3)),
    "a": _one(role=st.just("assistant"), content=TEXT | st.none(), refusal=st.none() | TEXT),
    "t": _exchanges(),
    "f": st.tuples(NAMES, ARGUMENTS, TEXT).map(
        lambda said: [
            {"role": "assistant", "content": None, "function_call": {"name": said[0], "arguments": said[1]}},
            {"role": "function", "name": said[0], "content": said[2]},
        ]
    ),
}

SCHEMAS = st.sampled_from(
    [
        {"type": "object", "properties": {"a": {"type": "string", "maxLength": 3}}, "required": ["a"]},
        {
            "type": "object",
            "properties": {"a": {"oneOf": [{"type": "null"}, {"$ref": "#/$defs/A"}]}},
            "$defs": {"A": {"enum": ["x", 1]}},
        },
        {"properties": {}},
        {"type": "array"},
    ]
)
TOOLS = st.lists(
    st.fixed_dictionaries(
        {"name": NAMES}, optional={"description": TEXT, "parameters": SCHEMAS, "strict": st.booleans()}
    ),
    max_size=3,
    unique_by=lambda tool: tool["name"],
).map(lambda tools: [{"type": "function", "function": tool} for tool in tools])
FORMATS = st.sampled_from([{"type": "text"}, {"type": "json_object"}]) | SCHEMAS.map(
    lambda schema: {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
)

CHAT_REQUESTS = st.fixed_dictionaries(
    {"model": MODELS, "messages": conversations()},
    optional={
        "max_tokens": st.integers(0, 70_000) | st.none(),
        "max_completion_tokens": st.integers(1, 3_000),
        "temperature": st.sampled_from([0, 0.5, 1, 1.5, None]),
        "top_p": st.sampled_from([0.5, 0.97, 1, None]),
        "stop": st.sampled_from(["\n", "END", ["\n", "END"], [], None]),
        "tools": TOOLS,
        "tool_choice": st.sampled_from(["auto", "none", "required", None])
        | NAMES.map(lambda name: {"type": "function", "function": {"name": name}}),
        "parallel_tool_calls": st.booleans(),
        "functions": st.lists(st.fixed_dictionaries({"name": NAMES}), max_size=1),
        "response_format": FORMATS,
        "reasoning_effort": st.sampled_from(["none", "minimal", *EFFORTS]),
        "user": TEXT,
        "seed": st.integers(0, 9),
        "n": st.sampled_from([1, 1, 2]),
        "logprobs": st.sampled_from([False, None, True]),
    },
)
"""Anything a client may send; most are taken by some model under some policy."""

PLAIN_REQUESTS = st.fixed_dictionaries(
    {
        "model": st.sampled_from([*ROWS]),
        "messages": st.lists(
            st.fixed_dictionaries(
                {
                    "role": st.sampled_from(["system", "user", "user", "assistant"]),
                    "content": TEXT | st.just("a"),
                }
            ),
            min_size=1,
            max_size=4,
        ),
    },
    optional={
        "max_tokens": st.integers(1, 100) | st.none(),
        "temperature": st.sampled_from([0.5, 1, 1.0, 0, -0.0]),
        "top_p": st.sampled_from([0.5, 1]),
        "seed": st.integers(0, 9),
    },
)

BLOCKS = st.one_of(
    st.fixed_dictionaries({"type": st.just("text"), "text": TEXT | st.just('```json\n{"a":1}\n```')}),
    st.fixed_dictionaries(
        {"type": st.just("tool_use"), "id": st.just("toolu_1"), "name": NAMES, "input": OBJECTS}
    ),
    st.just({"type": "thinking", "thinking": "", "signature": "x"}),
    st.fixed_dictionaries({"type": TEXT, "text": JSON}),
)
COUNTS = st.integers(0, 10**6)
MESSAGES = st.fixed_dictionaries(
    {
        "id": st.just("msg_01"),
        "type": st.just("message"),
        "role": st.just("assistant"),
        "model": MODELS,
        "content": st.lists(BLOCKS, max_size=4),
        "stop_reason": st.sampled_from(
            ["end_turn", "stop_sequence", "max_tokens", "tool_use", "refusal", "pause_turn", "new", None]
        ),
        "usage": st.fixed_dictionaries(
            {"input_tokens": COUNTS, "output_tokens": COUNTS},
            optional={
                "cache_read_input_tokens": COUNTS | st.none(),
                "cache_creation_input_tokens": COUNTS | st.none(),
                "output_tokens_details": st.none() | st.fixed_dictionaries({"thinking_tokens": COUNTS}),
            },
        ),
    },
    optional={"stop_details": st.none() | st.fixed_dictionaries({"explanation": st.none() | TEXT})},
)
"""What Anthropic answers, now or one day."""
