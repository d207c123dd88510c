"""What a line is answered with."""

import json

import jsonschema
import openai
import pytest
from openai.types.chat import ChatCompletion

SCHEMA = {
    "type": "object",
    "properties": {
        "label": {"type": "string", "enum": ["bug", "feature"]},
        "score": {"type": "number", "minimum": 2, "maximum": 3},
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 2},
        "owner": {"anyOf": [{"$ref": "#/$defs/person"}, {"type": "null"}]},
    },
    "required": ["label", "score", "tags", "owner"],
    "additionalProperties": False,
    "$defs": {
        "person": {
            "type": "object",
            "properties": {"name": {"type": "string", "minLength": 3}},
            "required": ["name"],
            "additionalProperties": False,
        }
    },
}
TOOL = {"type": "function", "function": {"name": "classify", "parameters": SCHEMA}}


def body_of(line):
    assert line["response"]["status_code"] == 200, line
    return line["response"]["body"]


def message_of(line):
    return body_of(line)["choices"][0]["message"]


def test_the_same_request_has_the_same_answer(account, requests):
    first = body_of(account.answer(**requests.body("Tell me about queues")))
    second = body_of(account.answer(**requests.body("Tell me about queues")))
    other = body_of(account.answer(**requests.body("Tell me about stacks")))

    assert {**first, "created": 0} == {**second, "created": 0}
    assert other["choices"] != first["choices"]
    assert "queues" in first["choices"][0]["message"]["content"]


def test_usage_follows_the_lengths(account, requests):
    short = body_of(account.answer(**requests.body("word " * 10)))["usage"]
    long = body_of(account.answer(**requests.body("word " * 1000)))["usage"]

    assert long["prompt_tokens"] > 20 * short["prompt_tokens"]
    assert long["prompt_tokens_details"]["cached_tokens"] == 512
    assert short["total_tokens"] == short["prompt_tokens"] + short["completion_tokens"]


def test_a_json_schema_is_honoured(account, requests):
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}}

    message = message_of(account.answer(**requests.body("Classify", response_format=wanted)))

    jsonschema.validate(json.loads(message["content"]), SCHEMA)


def test_json_object_is_an_object(account, requests):
    body = requests.body("Answer in JSON please", response_format={"type": "json_object"})

    assert isinstance(json.loads(message_of(account.answer(**body))["content"]), dict)


@pytest.mark.parametrize(
    ("choice", "finish"),
    [("required", "tool_calls"), ({"type": "function", "function": {"name": "classify"}}, "stop")],
)
def test_a_forced_tool_is_called_with_valid_arguments(account, requests, choice, finish):
    body = body_of(account.answer(**requests.body(tools=[TOOL], tool_choice=choice)))

    (call,) = body["choices"][0]["message"]["tool_calls"]
    assert call["function"]["name"] == "classify"
    jsonschema.validate(json.loads(call["function"]["arguments"]), SCHEMA)
    assert body["choices"][0]["finish_reason"] == finish
    assert body["choices"][0]["message"]["content"] is None


def test_an_optional_tool_is_called_when_the_question_names_it(account, requests):
    named = message_of(account.answer(**requests.body("Please classify this", tools=[TOOL])))
    other = message_of(account.answer(**requests.body("Hello", tools=[TOOL])))

    assert named["tool_calls"]
    assert "tool_calls" not in other


def test_a_small_token_limit_cuts_the_answer(account, requests):
    body = body_of(account.answer(**requests.body("word " * 100, max_tokens=5)))

    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["completion_tokens"] == 5


def test_n_choices_are_given(account, requests):
    body = body_of(account.answer(**requests.body("word " * 100, n=3)))

    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]


def test_a_reasoning_model_spends_reasoning_tokens(account, requests):
    body = body_of(account.answer(**{**requests.body(), "model": "o4-mini"}))

    assert body["usage"]["completion_tokens_details"]["reasoning_tokens"] > 0
    assert body["model"] == "o4-mini-2025-04-16"


REFUSED = {
    "unknown argument": ({"foo": 1}, None, "Unrecognized request argument supplied: foo"),
    "unknown in message": (
        {"messages": [{"role": "user", "content": "x", "foo": 1}]},
        "messages[0].foo",
        "Unknown parameter: 'messages[0].foo'.",
    ),
    "bad role": (
        {"messages": [{"role": "robot", "content": "x"}]},
        "messages[0].role",
        "Invalid value: 'robot'.",
    ),
    "no content": ({"messages": [{"role": "user"}]}, "messages.[0].content", "expected a string, got null"),
    "no messages": ({"messages": []}, "messages", "array below minimum length"),
    "text messages": ({"messages": "hi"}, "messages", "expected an array, but got a string"),
    "hot": ({"temperature": 2.1}, "temperature", "Expected a value <= 2, but got 2.1 instead."),
    "text temperature": ({"temperature": "1"}, "temperature", "expected a decimal, but got a string"),
    "no choices": ({"n": 0}, "n", "Expected a value >= 1"),
    "fractional limit": ({"max_tokens": 1.5}, "max_tokens", "expected an integer"),
    "tool name": (
        {"tools": [{"type": "function", "function": {"name": "a b"}}]},
        "tools[0].function.name",
        "",
    ),
    "tool choice alone": ({"tool_choice": "auto"}, "tool_choice", "only allowed when 'tools'"),
    "json unsaid": ({"response_format": {"type": "json_object"}}, "messages", "must contain the word 'json'"),
    "open schema": (
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "a", "strict": True, "schema": {"type": "object", "properties": {}}},
            }
        },
        "response_format",
        "'additionalProperties' is required",
    ),
}


@pytest.mark.parametrize(("changes", "param", "message"), REFUSED.values(), ids=REFUSED)
def test_a_bad_argument_fails_its_line(account, requests, changes, param, message):
    line = account.answer(**requests.body("hello") | changes)

    error = line["response"]["body"]["error"]
    assert line["response"]["status_code"] == 400
    assert error["param"] == param
    assert message in error["message"]
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize("argument", [{"max_tokens": 10}, {"temperature": 0.2}])
def test_reasoning_models_refuse_the_old_arguments(account, requests, argument):
    line = account.answer(**{**requests.body(), "model": "gpt-5", **argument})

    assert line["response"]["body"]["error"]["code"].startswith("unsupported_")


def test_chat_answers_synchronously_as_in_a_batch(account, requests):
    body = requests.body("Tell me about queues")

    direct = account.client.post("/chat/completions", cast_to=ChatCompletion, body=body)

    batched = body_of(account.answer(**body))
    assert {**direct.to_dict(), "created": 0} == {**batched, "created": 0}


def test_chat_refuses_an_unknown_model(account, requests):
    with pytest.raises(openai.NotFoundError) as refused:
        account.client.chat.completions.create(**{**requests.body(), "model": "gpt-unheard-of"})

    assert refused.value.code == "model_not_found"


def test_models_are_listed_and_found(account, sim):
    sim.configure(models=["gpt-4o-mini", "house-model"])

    names = {model.id for model in account.client.models.list()}

    assert names == {"gpt-4o-mini", "gpt-4o-mini-2024-07-18", "house-model"}
    assert account.client.models.retrieve("house-model").object == "model"
    with pytest.raises(openai.NotFoundError):
        account.client.models.retrieve("gpt-4o")
