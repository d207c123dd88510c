"""What a Messages request may contain, rule by rule."""

import base64
import json

import pytest

from floopy_simulator.anthropic.errors import ApiError
from floopy_simulator.anthropic.request_rules import Rules, read_request
from floopy_simulator.config import DEFAULT_ANTHROPIC_MODELS

OLD, NEW = "2023-06-01", "2026-10-21"
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n0000").decode()
JPEG = base64.b64encode(b"\xff\xd8\xff0000").decode()
PDF = base64.b64encode(b"%PDF-1.7").decode()
TOOL = {"name": "look", "input_schema": {"type": "object", "properties": {"what": {"type": "string"}}}}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"what": "up"}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "blue"}
CACHE = {"type": "ephemeral"}
CLOSED = {"type": "object", "additionalProperties": False}


def user(content="hi"):
    return {"role": "user", "content": content}


def assistant(content="hello"):
    return {"role": "assistant", "content": content}


def system(content="be brief"):
    return {"role": "system", "content": content}


def image(**source):
    return user([{"type": "image", "source": source}])


def document(**source):
    return user([{"type": "document", "source": source}])


def shape(**properties):
    return {"output_config": {"format": {"type": "json_schema", "schema": {**CLOSED, **properties}}}}


def one(schema):
    return shape(properties={"a": schema})


def check(body, version=OLD, betas=(), *, batch=True):
    whole = {"model": "claude-opus-4-8", "max_tokens": 4096, "messages": [user()], **body}
    whole = {name: value for name, value in whole.items() if value is not ...}
    rules = Rules(version, tuple(betas), DEFAULT_ANTHROPIC_MODELS, batch)
    return read_request(json.dumps(whole).encode(), rules)


def refusal(body, version=OLD, betas=(), *, batch=True):
    with pytest.raises(ApiError) as refused:
        check(body, version, betas, batch=batch)
    return refused.value


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
TOOLS = {
    "no schema": ({"tools": [{"name": "a"}]}, "tools.0.custom.input_schema: Field required"),
    "no type": (
        {"tools": [{"name": "a", "input_schema": {}}]},
        "tools.0.custom.input_schema.type: Field required",
    ),
    "array": (
        {"tools": [{"name": "a", "input_schema": {"type": "array"}}]},
        "input_schema.type: Input should be 'o",
    ),
    "root anyOf": (
        {"tools": [{"name": "a", "input_schema": {"type": "object", "anyOf": []}}]},
        "tools.0.custom.input_schema: input_schema does not support oneOf, allOf, or anyOf at the top level",
    ),
    "no JSON schema": (
        {"tools": [{"name": "a", "input_schema": {"type": "object", "properties": {"x": {"type": "text"}}}}]},
        "JSON schema is invalid",
    ),
    "name": ({"tools": [{**TOOL, "name": "a b"}]}, "tools.0.custom.name: String should match pattern"),
    "kind": ({"tools": [{**TOOL, "type": "function"}]}, "tools.0.function.type: Input is not one of"),
    "stray": (
        {"tools": [{**TOOL, "parameters": {}}]},
        "tools.0.custom.parameters: Extra inputs are not permitted",
    ),
    "twice": ({"tools": [TOOL, TOOL]}, "tools: Tool names must be unique."),
    "null": ({"tools": None}, "tools: Input should be a valid list"),
    "choice without tools": (
        {"tool_choice": {"type": "auto"}},
        "may only be specified while providing tools",
    ),
    "choice of nothing": (
        {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "x"}},
        "Tool 'x' not found",
    ),
    "none in sequence": (
        {"tools": [TOOL], "tool_choice": {"type": "none", "disable_parallel_tool_use": True}},
        "tool_choice.disable_parallel_tool_use: Extra inputs are not permitted",
    ),
    "choice as a word": ({"tools": [TOOL], "tool_choice": "auto"}, "tool_choice: Input should be an object"),
    "strict and open": (
        {"tools": [{**TOOL, "strict": True}]},
        "'additionalProperties' must be explicitly set to f",
    ),
    "too many strict": (
        {"tools": [{"name": f"t{n}", "strict": True, "input_schema": CLOSED} for n in range(21)]},
        "tools: at most 20 tools may be strict.",
    ),
    "history without tools": ({"messages": [user(), assistant([CALL]), user([RESULT])]}, "must define tools"),
}
SCHEMAS = {
    "open object": (
        {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
        "set to f",
    ),
    "true": (shape(additionalProperties=True), "'additionalProperties: true' is not supported"),
    "inner open": (one({"type": "object"}), "'additionalProperties' must be explicitly set to false"),
    "minimum": (
        one({"type": "integer", "minimum": 1}),
        "For 'integer' type, property 'minimum' is not supported",
    ),
    "lengths": (
        one({"type": "string", "minLength": 1, "maxLength": 2}),
        "properties minLength, maxLength are not",
    ),
    "minItems": (
        one({"type": "array", "minItems": 2, "items": {"type": "null"}}),
        "'minItems' values other than",
    ),
    "maxItems": (
        one({"type": "array", "maxItems": 2}),
        "For 'array' type, property 'maxItems' is not supported",
    ),
    "format": (one({"type": "string", "format": "binary"}), "format 'binary' is not supported"),
    "pattern": (one({"type": "string", "pattern": "(?=x)"}), "this 'pattern' is too complex"),
    "oneOf": (one({"oneOf": [{"type": "null"}]}), "'oneOf' is not supported"),
    "no type": (one({"description": "anything"}), "Schema must have a 'type'"),
    "not a schema": (one(True), "Schema must be an object"),
    "object in enum": (one({"enum": [{}]}), "Only primitive values are supported"),
    "type": (one({"type": "text"}), "Unknown type: 'text'"),
    "required": (shape(required=["b"]), "required property 'b' is not in 'properties'"),
    "foreign $ref": (one({"$ref": "https://a.example/s"}), "is not a definition of this schema"),
    "recursion": (
        shape(
            properties={"a": {"$ref": "#/$defs/T"}},
            **{"$defs": {"T": {**CLOSED, "properties": {"t": {"$ref": "#/$defs/T"}}}}},
        ),
        "Circular reference detected in schema definitions: T",
    ),
    "25 optional": (
        shape(properties={f"p{n}": {"type": "null"} for n in range(25)}),
        "too many optional parameters",
    ),
    "17 unions": (
        shape(
            properties={f"p{n}": {"type": ["string", "null"]} for n in range(17)},
            required=[f"p{n}" for n in range(17)],
        ),
        "too many parameters with union types (17",
    ),
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
            ("tools:", TOOLS),
            ("schema:", SCHEMAS),
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


@pytest.mark.parametrize(
    ("model", "body", "words"),
    [
        ("claude-opus-4-8", {"temperature": 0.7}, "`temperature` is deprecated for this model."),
        ("claude-sonnet-5", {"top_p": 0.9}, "`top_p` is deprecated"),
        ("claude-opus-5", {"top_k": 5}, "`top_k` is deprecated"),
        ("claude-haiku-4-5", {"temperature": 1.1}, "temperature: Input should be less than or equal to 1"),
        (
            "claude-haiku-4-5",
            {"temperature": 1, "top_p": 1},
            "`temperature` and `top_p` cannot both be specified",
        ),
        (
            "claude-sonnet-4-6",
            {"temperature": 0.5, "thinking": {"type": "adaptive"}},
            "`temperature` may only be set to 1 when thinking is enabled",
        ),
        (
            "claude-haiku-4-5",
            {"top_p": 0.9, "thinking": {"type": "enabled", "budget_tokens": 1024}},
            "`top_p` must be greater than or equal to 0.95",
        ),
        ("claude-haiku-4-5", {"thinking": {"type": "adaptive"}}, "adaptive thinking is not supported"),
        (
            "claude-opus-4-7",
            {"thinking": {"type": "enabled", "budget_tokens": 1024}},
            '"thinking.type.enabled" is not',
        ),
        ("claude-opus-5-5", {"thinking": {"type": "disabled"}}, '"thinking.type.disabled" is not supported'),
        (
            "claude-sonnet-5-5",
            {"thinking": {"type": "disabled"}},
            '"thinking.type.disabled" is not supported',
        ),
        ("claude-haiku-5-5", {"thinking": {"type": "between_tools"}}, '"thinking.type.between_tools" is not'),
        ("claude-sonnet-5-5", {"thinking": {"type": "between_tools", "display": "omitted"}}, "Extra inputs"),
        (
            "claude-haiku-4-5",
            {"thinking": {"type": "enabled", "budget_tokens": 1000}},
            "greater than or equal to 1024",
        ),
        (
            "claude-haiku-4-5",
            {"thinking": {"type": "enabled", "budget_tokens": 4096}},
            "`max_tokens` must be greater",
        ),
        ("claude-haiku-4-5", {"output_config": {"effort": "low"}}, "does not support the effort parameter"),
        ("claude-opus-4-6", {"output_config": {"effort": "xhigh"}}, "does not support effort level 'xhigh'"),
        ("claude-opus-4-5", {"output_config": {"effort": "max"}}, "does not support effort level 'max'"),
        (
            "claude-opus-5",
            {"output_config": {"effort": "max"}, "thinking": {"type": "disabled"}},
            "is not supported with effort level 'max'",
        ),
        (
            "claude-opus-5-5",
            {"tools": [TOOL], "tool_choice": {"type": "any"}},
            'type "tool" and "any" are not',
        ),
        (
            "claude-fable-5",
            {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "look"}},
            'type "tool" and "any" are not supported',
        ),
        (
            "claude-sonnet-4-6",
            {
                "tools": [TOOL],
                "tool_choice": {"type": "any"},
                "thinking": {"type": "enabled", "budget_tokens": 1024},
            },
            "Thinking may not be enabled when tool_choice forces tool use.",
        ),
        (
            "claude-sonnet-4-6",
            {"messages": [user(), system()]},
            "role 'system' is not supported on this model",
        ),
        ("claude-haiku-4-5", {"max_tokens": 64_001}, "64001 > 64000"),
        (
            "claude-haiku-4-5",
            {"messages": [user("x" * 800_100)]},
            "prompt is too long: 200029 tokens > 200000 maximum",
        ),
        ("claude-haiku-4-5", {"messages": [user(), assistant("so ")]}, "cannot end with trailing whitespace"),
        (
            "claude-haiku-4-5",
            {**shape(), "messages": [user(), assistant()]},
            "When using output format, pre-filling",
        ),
        (
            "claude-haiku-4-5",
            {"messages": [user(), assistant()], "thinking": {"type": "enabled", "budget_tokens": 1024}},
            "Prefilling the assistant's response is not supported when thinking is enabled",
        ),
        ("claude-3-opus-20240229", {}, "model: claude-3-opus-20240229"),
    ],
)
def test_a_model_refuses_what_it_does_not_take(model, body, words):
    assert words in refusal({"model": model, **body}).message


@pytest.mark.parametrize(
    ("model", "body"),
    [
        ("claude-haiku-4-5-20251001", {"temperature": 0.7}),
        ("claude-sonnet-4-6", {"top_p": 0.5, "top_k": 3}),
        ("claude-opus-4-7", {"temperature": 1}),
        ("claude-sonnet-4-6", {"temperature": 1, "thinking": {"type": "adaptive"}}),
        ("claude-haiku-4-5", {"thinking": {"type": "enabled", "budget_tokens": 1024}}),
        ("claude-haiku-4-5", {"messages": [user(), assistant("The answer is (")]}),
        ("claude-opus-5", {"output_config": {"effort": "high"}, "thinking": {"type": "disabled"}}),
        ("claude-sonnet-5-5", {"thinking": {"type": "between_tools"}}),
        ("claude-sonnet-4-6", {"tools": [TOOL], "tool_choice": {"type": "any"}}),
        ("claude-haiku-5-5", {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "look"}}),
        ("claude-opus-5-5", {"tools": [TOOL], "tool_choice": {"type": "none"}}),
        ("claude-opus-5-5", {"messages": [user(), system(), assistant(), user(), system(), system()]}),
        ("claude-opus-4-8", {"messages": [user(), user(), assistant(), assistant(), user()]}),
        (
            "claude-opus-4-8",
            {
                "tools": [TOOL],
                "messages": [
                    user(),
                    assistant([{"type": "text", "text": "ok"}, CALL, {**CALL, "id": "b"}]),
                    user([{**RESULT, "tool_use_id": "b"}, RESULT, {"type": "text", "text": "so"}]),
                    system(),
                ],
            },
        ),
        ("claude-opus-4-8", {"messages": [image(type="base64", media_type="image/png", data=PNG)]}),
        ("claude-opus-4-8", {"messages": [image(type="url", url="https://a.example/x.png")]}),
        ("claude-opus-4-8", {"messages": [document(type="base64", media_type="application/pdf", data=PDF)]}),
        ("claude-opus-4-8", {"messages": [document(type="text", media_type="text/plain", data="words")]}),
        ("claude-opus-4-8", one({"type": ["string", "null"], "format": "date"})),
        ("claude-opus-4-8", one({"anyOf": [{"const": 1}, {"$ref": "#/$defs/x"}]}) | {}),
        ("claude-opus-4-8", {"system": [{"type": "text", "text": "x", "cache_control": CACHE}] * 4}),
        ("claude-opus-4-8", {"metadata": {"user_id": "0" * 64}, "system": ""}),
    ],
)
def test_a_model_takes_what_it_takes(model, body):
    if "output_config" in body and "format" in body["output_config"]:
        body["output_config"]["format"]["schema"]["$defs"] = {"x": {"type": "string"}}
    assert check({"model": model, **body}).model.name.startswith("claude-")


@pytest.mark.parametrize("name", ["temperature", "top_p", "top_k"])
def test_the_new_version_knows_no_sampling_on_any_model(name):
    body = {"model": "claude-haiku-4-5", name: 1}

    assert check(body, OLD)
    assert refusal(body, NEW).message == f"{name}: Extra inputs are not permitted"


def test_the_new_version_refuses_documents_of_the_assistant_and_citations_of_the_user():
    source = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x"}}
    from_assistant = {"messages": [user(), assistant([source]), user()]}
    cited = {"messages": [user([{"type": "text", "text": "x", "citations": [{"type": "char_location"}]}])]}

    assert check(from_assistant, OLD)
    assert check(cited, OLD)
    assert "`document` blocks can only be in `user` messages" in refusal(from_assistant, NEW).message
    assert "citations are not permitted" in refusal(cited, NEW).message


def test_the_long_output_beta_counts_in_batches_of_models_that_have_it():
    beta, body = ["output-300k-2026-03-24"], {"max_tokens": 300_000}

    assert check(body, betas=beta)
    assert "300000 > 128000" in refusal(body).message
    assert "300000 > 128000" in refusal(body, betas=beta, batch=False).message
    assert "300000 > 64000" in refusal({"model": "claude-haiku-4-5", **body}, betas=beta).message
    assert "300001 > 300000" in refusal({"max_tokens": 300_001}, betas=beta).message


def test_too_many_images_for_a_small_context():
    many = [*image(type="url", url="https://a.example/x.png")["content"]] * 101

    assert check({"messages": [user(many)]})
    assert (
        "Too many images: 101 > 100"
        in refusal({"model": "claude-haiku-4-5", "messages": [user(many)]}).message
    )


def test_a_body_that_is_no_json_is_named_as_such():
    rules = Rules(OLD, (), DEFAULT_ANTHROPIC_MODELS, batch=True)

    with pytest.raises(ApiError, match="The request body is not valid JSON"):
        read_request(b'{"model": ', rules)
