"""What the model says: text, tools, structure, thinking, limits and usage."""

import json

import anthropic
import jsonschema
import pytest

WEATHER = {
    "name": "get_weather",
    "description": "Tells the weather",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
TIME = {**WEATHER, "name": "get_time"}


def kinds(message):
    return [block.type for block in message.content]


def test_the_same_request_has_the_same_answer(claude, params):
    batch = claude.run(params("Once"), params("Once"), params("Twice"))

    one, same, other = (claude.results(batch.id)[f"r-{number}"].message for number in (1, 2, 3))

    assert one.to_dict() == same.to_dict()
    assert one.id != other.id
    assert "Once" in one.content[0].text
    assert (one.model, one.role, one.stop_reason) == ("claude-opus-4-8", "assistant", "end_turn")


def test_a_message_outside_a_batch_is_the_same_but_for_its_tier(claude, params):
    batched = claude.answer(**params()).to_dict()
    direct = claude.raw("POST", "/messages", json.dumps(params(), separators=(",", ":")).encode()).body

    assert (batched["usage"]["service_tier"], direct["usage"]["service_tier"]) == ("batch", "standard")
    assert (batched["id"], batched["content"]) == (direct["id"], direct["content"])


def test_a_message_outside_a_batch_is_refused_at_once(claude, params):
    assert claude.client.messages.create(**params()).stop_reason == "end_turn"
    with pytest.raises(anthropic.BadRequestError, match="n: Extra inputs are not permitted"):
        claude.client.messages.create(**params(), extra_body={"n": 2})


def test_an_alias_is_resolved(claude, params):
    assert claude.answer(**params(model="claude-haiku-4-5")).model == "claude-haiku-4-5-20251001"


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "get_weather"}])
def test_a_forced_tool_is_called(claude, params, choice):
    message = claude.answer(**params(tools=[WEATHER], tool_choice=choice))

    assert (kinds(message), message.stop_reason) == (["tool_use"], "tool_use")
    assert message.content[0].name == "get_weather"
    jsonschema.validate(message.content[0].input, WEATHER["input_schema"])


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"type": "auto"}, ["text", "tool_use", "tool_use"]),
        ({"type": "auto", "disable_parallel_tool_use": True}, ["text", "tool_use"]),
        ({"type": "none"}, ["text"]),
    ],
)
def test_a_free_choice_calls_the_tools_that_the_question_names(claude, params, choice, expected):
    question = "Use get_weather and get_time"

    message = claude.answer(**params(question, tools=[WEATHER, TIME], tool_choice=choice))

    assert kinds(message) == expected
    ids = [block.id for block in message.content if block.type == "tool_use"]
    assert len(set(ids)) == len(ids)


def test_structured_output_fits_its_schema(claude, params):
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "tags": {"type": "array", "items": {"enum": ["a", "b"]}}},
        "required": ["name", "tags"],
        "additionalProperties": False,
    }

    message = claude.answer(**params(output_config={"format": {"type": "json_schema", "schema": schema}}))

    jsonschema.validate(json.loads(message.content[0].text), schema)
    assert message.stop_reason == "end_turn"


def test_max_tokens_cuts_text_and_calls(claude, params):
    cut = claude.answer(**params("A long question. " * 20, max_tokens=5))
    call = claude.answer(**params(max_tokens=2, tools=[WEATHER], tool_choice={"type": "any"}))

    assert (cut.stop_reason, cut.usage.output_tokens, len(cut.content[0].text)) == ("max_tokens", 5, 20)
    assert (call.stop_reason, call.content[0].input) == ("max_tokens", {})


def test_models_that_think_count_it_in_max_tokens(claude, params):
    whole = claude.answer(**params(model="claude-opus-5-5"))
    cut = claude.answer(**params(model="claude-opus-5-5", max_tokens=10))

    thought = whole.usage.output_tokens_details.thinking_tokens
    assert kinds(whole) == ["thinking", "text"]
    assert (whole.content[0].thinking, whole.usage.output_tokens > thought >= 64) == ("", True)
    assert (kinds(cut), cut.stop_reason, cut.usage.output_tokens) == (["thinking"], "max_tokens", 10)


@pytest.mark.parametrize(
    ("model", "thinking", "thinks", "shown"),
    [
        ("claude-opus-4-8", None, False, False),
        ("claude-opus-4-8", {"type": "adaptive"}, True, False),
        ("claude-opus-4-8", {"type": "adaptive", "display": "summarized"}, True, True),
        ("claude-haiku-4-5", {"type": "enabled", "budget_tokens": 1024}, True, True),
        ("claude-sonnet-5", {"type": "disabled"}, False, False),
        ("claude-sonnet-5-5", {"type": "between_tools"}, False, False),
    ],
)
def test_thinking_is_as_the_model_and_the_request_say(claude, params, model, thinking, thinks, shown):
    message = claude.answer(**params(model=model, **({} if thinking is None else {"thinking": thinking})))

    first = message.content[0]
    assert (first.type == "thinking") == thinks
    assert bool(thinks and first.thinking) == shown
    assert (message.usage.output_tokens_details is not None) == thinks


def test_a_stop_sequence_ends_the_text_before_itself(claude, params):
    message = claude.answer(**params("one two END three", stop_sequences=["three", "END"]))

    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "END")
    assert message.content[0].text.endswith("one two ")


@pytest.mark.parametrize("ttl", ["5m", "1h"])
def test_what_is_marked_is_read_from_the_cache_and_written_to_it(claude, params, ttl):
    block = {"type": "text", "text": "context " * 1000, "cache_control": {"type": "ephemeral", "ttl": ttl}}

    plain = claude.answer(**params(system=[{**block, "cache_control": None}])).usage
    usage = claude.answer(**params(system=[block])).usage

    assert (plain.cache_read_input_tokens, plain.cache_creation_input_tokens) == (0, 0)
    assert usage.cache_read_input_tokens > 0
    parts = (usage.input_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens)
    assert sum(parts) == plain.input_tokens
    by_lifetime = {
        "5m": usage.cache_creation.ephemeral_5m_input_tokens,
        "1h": usage.cache_creation.ephemeral_1h_input_tokens,
    }
    assert by_lifetime == {"5m": 0, "1h": 0, ttl: usage.cache_creation_input_tokens}
