"""What each model and API version takes of a Messages request and what it refuses."""

import pytest
from message_rules import (
    CACHE,
    CALL,
    NEW,
    OLD,
    PDF,
    PNG,
    RESULT,
    TOOL,
    assistant,
    check,
    document,
    image,
    one,
    refusal,
    shape,
    system,
    user,
)


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
