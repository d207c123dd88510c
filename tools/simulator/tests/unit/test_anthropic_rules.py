"""What a Messages request may contain, rule by rule: its members, its turns, their media, its caching."""

import pytest
from message_rules import (
    CACHE,
    CALL,
    JPEG,
    OLD,
    PDF,
    PNG,
    RESULT,
    TOOL,
    assistant,
    document,
    image,
    refusal,
    system,
    user,
)

from floopy_simulator.anthropic.errors import ApiError
from floopy_simulator.anthropic.request_rules import Rules, read_request
from floopy_simulator.config import DEFAULT_ANTHROPIC_MODELS

SHAPES = {
    "unknown member": ({"n": 1}, "n: Extra inputs are not permitted"),
    "no model": ({"model": ...}, "model: Field required"),
    "no max_tokens": ({"max_tokens": ...}, "max_tokens: Field required"),
    "no messages": ({"messages": ...}, "messages: Field required"),
    "max_tokens as text": ({"max_tokens": "100"}, "max_tokens: Input should be a valid integer"),
    "max_tokens 0": ({"max_tokens": 0}, "max_tokens: Input should be greater than or equal to 1"),
    "max_tokens null": ({"max_tokens": None}, "max_tokens: Input should be a valid integer"),
    "max_tokens above the model": (
        {"max_tokens": 128_001},
        "max_tokens: 128001 > 128000, which is the maximum",
    ),
    "temperature null": ({"temperature": None}, "temperature: Input should be a valid number"),
    "metadata word": ({"metadata": {"sim": "x"}}, "metadata.sim: Extra inputs are not permitted"),
    "user_id too long": (
        {"metadata": {"user_id": "x" * 257}},
        "metadata.user_id: String should have at most 256",
    ),
    "user_id an e-mail": (
        {"metadata": {"user_id": "a@b.example"}},
        "metadata.user_id: user_id appears to contain",
    ),
    "user_id a phone": ({"metadata": {"user_id": "+49 30 123456"}}, "metadata.user_id: user_id appears"),
    "tier": ({"service_tier": "flex"}, "service_tier: Input should be 'auto' or 'standard_only'"),
    "stop null": ({"stop_sequences": None}, "stop_sequences: Input should be a valid list"),
    "stop blank": (
        {"stop_sequences": ["END", "\n"]},
        "stop_sequences: each stop sequence must contain non-whitesp",
    ),
    "stop empty": (
        {"stop_sequences": [""]},
        "stop_sequences: each stop sequence must contain non-whitespace",
    ),
    "stream": ({"stream": True}, "stream: streaming is not supported in a message batch"),
    "speed": ({"speed": "fast"}, "speed: Extra inputs are not permitted"),
    "fallbacks": ({"fallbacks": []}, "fallbacks: Extra inputs are not permitted"),
    "old format name": (
        {"output_format": {"type": "json_schema", "schema": {}}},
        "output_format: Extra inputs",
    ),
    "effort word": (
        {"output_config": {"effort": "none"}},
        "output_config.effort: Input should be 'low', 'medium'",
    ),
}
CONVERSATIONS = {
    "nothing": ([], "messages: at least one message is required"),
    "role": (
        [{"role": "tool", "content": "x"}],
        "messages.0.role: Input should be 'user', 'assistant' or 'system'",
    ),
    "assistant first": ([assistant(), user()], 'messages: first message must use the "user" role'),
    "no content": ([{"role": "user"}], "messages.0.content: Field required"),
    "content null": ([user(None)], "messages.0.content: Input should be a valid string"),
    "content empty": ([user("")], "messages.0: all messages must have non-empty content"),
    "content no blocks": ([user([])], "messages.0: all messages must have non-empty content"),
    "content blank": ([user(" \n")], "messages: text content blocks must contain non-whitespace text"),
    "empty block": (
        [user([{"type": "text", "text": ""}])],
        "messages: text content blocks must be non-empty",
    ),
    "blank block": (
        [user([{"type": "text", "text": " "}])],
        "messages: text content blocks must contain non-white",
    ),
    "unknown block": (
        [user([{"type": "input_audio"}])],
        "messages.0.content.0: Input tag 'input_audio' found",
    ),
    "stray in block": (
        [user([{"type": "text", "text": "x", "detail": 1}])],
        "messages.0.content.0.text.detail: Extra",
    ),
    "name": ([{**user(), "name": "bob"}], "messages.0.name: Extra inputs are not permitted"),
    "ends with assistant": ([user(), assistant()], "This model does not support assistant message prefill."),
    "tool_use of the user": (
        [user([CALL])],
        "messages.0.content.0: `tool_use` blocks can only be in `assistant`",
    ),
    "result of the assistant": (
        [user(), assistant([RESULT])],
        "messages.1.content.0: `tool_result` blocks can only",
    ),
    "image of the assistant": (
        [
            user(),
            assistant([{"type": "image", "source": {"type": "url", "url": "https://a.example"}}]),
            user(),
        ],
        "messages.1.content.0: `image` blocks can only be in `user` messages",
    ),
    "call without result": (
        [user(), assistant([CALL]), user()],
        "messages.1: `tool_use` ids were found without",
    ),
    "call at the end": ([user(), assistant([CALL])], "messages.1: `tool_use` ids were found without"),
    "result after text": (
        [user(), assistant([CALL]), user([{"type": "text", "text": "so"}, RESULT])],
        "messages.1: `tool_use` ids were found without `tool_result` blocks immediately after: toolu_1.",
    ),
    "result in a later turn": (
        [user(), assistant([CALL]), user(), user([RESULT])],
        "messages.1: `tool_use` ids were found without",
    ),
    "orphan": (
        [user([RESULT])],
        "messages.0.content.0: unexpected `tool_use_id` found in `tool_result` blocks",
    ),
    "result of another call": (
        [user(), assistant([CALL]), user([RESULT, {**RESULT, "tool_use_id": "toolu_2"}])],
        "messages.2.content.1: unexpected `tool_use_id` found in `tool_result` blocks: toolu_2.",
    ),
    "two results": (
        [user(), assistant([CALL]), user([RESULT, RESULT])],
        "messages.2.content.1: each tool_use must",
    ),
    "duplicate ids": (
        [user(), assistant([CALL]), user([RESULT]), assistant([CALL]), user([RESULT])],
        "messages.3: `tool_use` ids must be unique",
    ),
    "call id": (
        [user(), assistant([{**CALL, "id": "a:1"}])],
        "messages.1.content.0.tool_use.id: String should match",
    ),
    "call input": (
        [user(), assistant([{**CALL, "input": "{}"}])],
        "messages.1.content.0.tool_use.input: Input should",
    ),
    "empty text in a result": (
        [user(), assistant([CALL]), user([{**RESULT, "content": [{"type": "text", "text": ""}]}])],
        "messages: text content blocks must be non-empty",
    ),
    "system first": (
        [system(), user()],
        "messages.0: a `system` message must directly follow a `user` message",
    ),
    "system after assistant": (
        [user(), assistant(), system(), user()],
        "messages.2: a `system` message must directly",
    ),
    "system before user": (
        [user(), system(), user()],
        "messages.1: a `system` message must come last or directly",
    ),
    "system with an image": (
        [user(), {**image(type="url", url="https://a.example"), "role": "system"}],
        "messages.1.content.0: `image` blocks can only be in `user` messages",
    ),
}
MEDIA = {
    "media type": (
        image(type="base64", media_type="image/svg+xml", data=PNG),
        "source.base64.media_type: Input should be 'image/jpeg', 'image/png', 'image/gif' or 'image/webp'",
    ),
    "not base64": (
        image(type="base64", media_type="image/png", data="!!"),
        "base64.data: invalid base64 data",
    ),
    "no bytes": (
        image(type="base64", media_type="image/png", data=""),
        "String should have at least 1 character",
    ),
    "other kind": (
        image(type="base64", media_type="image/png", data=JPEG),
        "appears to be a image/jpeg image",
    ),
    "too large": (
        image(type="base64", media_type="image/png", data="A" * (10 << 20) + "AAAA"),
        "exceeds 10 MB",
    ),
    "http image": (image(type="url", url="http://a.example/x.png"), "Only HTTPS URLs are supported."),
    "source": (image(type="path", path="/x"), "messages.0.content.0.image.source: Input tag 'path' found"),
    "stored file": (image(type="file", file_id="file_1"), "File not found: file_1"),
    "document media type": (
        document(type="base64", media_type="text/csv", data=PDF),
        "document.source.base64.media_",
    ),
    "pdf not base64": (
        document(type="base64", media_type="application/pdf", data="%"),
        "invalid base64 data",
    ),
    "empty text document": (
        document(type="text", media_type="text/plain", data=" "),
        "text content blocks must be",
    ),
    "markdown document": (
        document(type="text", media_type="text/markdown", data="x"),
        "document.source.text.media_t",
    ),
    "http document": (document(type="url", url="http://a.example/x.pdf"), "Only HTTPS URLs are supported."),
}
CACHING = {
    "five marks": (
        {"system": [{"type": "text", "text": "x", "cache_control": CACHE}] * 5},
        "A maximum of 4 blocks with cache_control may be provided. Found 5.",
    ),
    "four and the top": (
        {
            "cache_control": CACHE,
            "messages": [user([{"type": "text", "text": "x", "cache_control": CACHE}] * 4)],
        },
        "Found 5.",
    ),
    "long after short": (
        {
            "system": [{"type": "text", "text": "x", "cache_control": CACHE}],
            "messages": [user([{"type": "text", "text": "x", "cache_control": {**CACHE, "ttl": "1h"}}])],
        },
        "a ttl='1h' cache_control block must not come after a ttl='5m' cache_control block",
    ),
    "lifetime": (
        {"cache_control": {**CACHE, "ttl": "2h"}},
        "cache_control.ttl: Input should be '5m' or '1h'",
    ),
    "kind": ({"cache_control": {"type": "forever"}}, "cache_control: Input tag 'forever' found"),
    "empty system block": (
        {"system": [{"type": "text", "text": ""}]},
        "system: text content blocks must be non-e",
    ),
    "system null": ({"system": None}, "system: Input should be a valid string"),
}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        pytest.param(body, words, id=f"{group} {name}")
        for group, table in (
            ("shape:", SHAPES),
            ("cache:", CACHING),
            (
                "turns:",
                {
                    name: ({"messages": turns, "tools": [TOOL]}, words)
                    for name, (turns, words) in CONVERSATIONS.items()
                },
            ),
            ("media:", {name: ({"messages": [turn]}, words) for name, (turn, words) in MEDIA.items()}),
        )
        for name, (body, words) in table.items()
    ],
)
def test_a_request_is_refused_in_anthropics_words(body, words):
    refused = refusal(body)

    assert words in refused.message
    assert (refused.status, refused.kind) in {(400, "invalid_request_error"), (404, "not_found_error")}


def test_a_body_that_is_no_json_is_named_as_such():
    rules = Rules(OLD, (), DEFAULT_ANTHROPIC_MODELS, batch=True)

    with pytest.raises(ApiError, match="The request body is not valid JSON"):
        read_request(b'{"model": ', rules)
