"""Models: bundled rows, then the Models API, then the operator."""

import json
from dataclasses import replace
from typing import Any

import pytest

from floopy_common.providers.anthropic.capabilities import (
    EFFORTS,
    MOST_RESTRICTIVE,
    ROWS,
    THINKING_TYPES,
    Capabilities,
    ModelTable,
    overlay,
    row_of,
)
from floopy_common.providers.anthropic.models_api import read_models
from floopy_common.providers.anthropic.policy import Context, Policy, policy_of
from floopy_common.providers.anthropic.refusal import Refused
from floopy_common.providers.anthropic.request import translate
from floopy_common.settings import AnthropicModelSettings, ProvidersSettings, Settings

OPUS = "claude-opus-5-5"


def yes(supported: bool = True) -> dict[str, bool]:
    return {"supported": supported}


def document(**capabilities: Any) -> dict[str, Any]:
    return {"id": "claude-new", "max_tokens": 9, "max_input_tokens": 99, "capabilities": capabilities}


@pytest.mark.parametrize("model", ROWS)
@pytest.mark.parametrize("suffix", ["", "-20251001", "-latest"])
def test_a_snapshot_has_the_row_of_its_model(model: str, suffix: str) -> None:
    assert row_of(model + suffix) is ROWS[model]


@pytest.mark.parametrize(
    "model",
    [
        "claude-opus-5-6",
        "claude-opus-6",
        "claude-opus-5-5-fast",
        "claude-haiku-4-5-20251001-fast",
        "claude-3-opus-20240229",
    ],
)
def test_a_model_nobody_described_has_the_most_restrictive_row(model: str) -> None:
    found = ModelTable().resolve(model)

    assert found is not None
    assert found.capabilities is MOST_RESTRICTIVE


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_the_most_restrictive_row_takes_nothing_that_another_refuses(row: Capabilities) -> None:
    least = MOST_RESTRICTIVE

    assert not least.sampling
    assert not least.mid_system
    assert least.forced_tools == "no"
    assert "disabled" not in least.thinking
    assert least.max_images <= row.max_images
    assert not row.adaptive or least.effort <= row.effort


@pytest.mark.parametrize("model", ["gpt-4o", "", "anthropic/gpt-4o", "opus"])
def test_a_name_that_is_no_claude_model_is_unknown(model: str) -> None:
    assert ModelTable().resolve(model) is None


def test_the_routing_prefix_is_not_sent() -> None:
    found = ModelTable().resolve(f"anthropic/{OPUS}")

    assert found is not None
    assert (found.id, found.capabilities) == (OPUS, ROWS[OPUS])


def test_a_table_asked_for_many_names_stays_right() -> None:
    table = ModelTable()

    for number in range(2_500):
        table.resolve(f"claude-{number}")

    found = table.resolve(OPUS)
    assert found is not None
    assert found.capabilities is ROWS[OPUS]


def test_the_models_api_goes_over_the_row() -> None:
    thinking = {"supported": True, "types": {name: yes(name == "disabled") for name in THINKING_TYPES}}
    effort = {"supported": True, **{name: yes(name in {"low", "max"}) for name in EFFORTS}}

    found = overlay(
        ROWS[OPUS],
        document(
            thinking=thinking,
            effort=effort,
            structured_outputs=yes(False),
            image_input=yes(False),
            pdf_input=yes(False),
            batch=yes(False),
        ),
    )

    assert found == replace(
        ROWS[OPUS],
        max_output=9,
        context=99,
        thinking=frozenset({"disabled"}),
        effort=frozenset({"low", "max"}),
        structured_outputs=False,
        images=False,
        pdfs=False,
        batch=False,
    )


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"capabilities": None, "max_tokens": None, "max_input_tokens": None},
        {"capabilities": {"thinking": None, "effort": {}, "batch": {}, "image_input": {"supported": None}}},
        {"capabilities": [], "max_tokens": "many", "max_input_tokens": 0},
        {"capabilities": {"thinking": {"supported": True, "types": {}}, "effort": {"supported": True}}},
    ],
)
def test_what_the_models_api_does_not_say_stays(said: dict[str, Any]) -> None:
    assert overlay(ROWS[OPUS], said) == ROWS[OPUS]


def test_a_model_without_effort_has_none() -> None:
    assert overlay(ROWS[OPUS], document(effort=yes(False))).effort == frozenset()


def test_a_name_without_a_date_means_the_newest_that_has_one() -> None:
    dated = [{**document(), "id": f"claude-six-{day}", "max_tokens": day} for day in (20270301, 20270102)]
    table = ModelTable(None, dated)

    for name, most in (("claude-six", 20270301), ("claude-six-20270102", 20270102)):
        found = table.resolve(name)
        assert found is not None
        assert (found.id, found.capabilities.max_output) == (name, most)
    assert set(table.listed) == {"claude-six", "claude-six-20270301", "claude-six-20270102"}


def test_a_document_of_the_very_name_goes_before_a_dated_one() -> None:
    dated = (("", 5), ("-20270101", 6))
    documents = [{**document(), "id": OPUS + end, "max_tokens": most} for end, most in dated]

    for order in (documents, documents[::-1]):
        found = ModelTable(None, order).resolve(OPUS)
        assert found is not None
        assert found.capabilities.max_output == 5


def test_a_retired_model_takes_no_batches() -> None:
    assert not overlay(ROWS[OPUS], {**document(batch=yes()), "retired": True}).batch
    assert overlay(ROWS[OPUS], {**document(batch=yes()), "retired": False}).batch


def test_of_a_models_page_only_what_a_table_reads_is_kept() -> None:
    hostile = {"$set": {"supported": True}, "supported": "perhaps", "low": {"supported": 1}, "max": yes()}
    said = {
        "batch": yes(),
        "pdf_input": None,
        "citations": yes(),
        "effort": hostile,
        "thinking": {"supported": True, "types": {"adaptive": yes(), "a.b": yes()}},
    }
    page = {
        "data": [
            {"id": "claude-a", "type": "model", "max_tokens": 7, "lifecycle": "active", "capabilities": said},
            {"id": "claude-b", "max_tokens": 10**30, "lifecycle": "retired", "max_input_tokens": -1},
            {"id": "c" * 300},
        ],
        "has_more": True,
    }

    models, more = read_models(json.dumps(page).encode())

    assert more
    assert models == [
        {
            "id": "claude-a",
            "retired": False,
            "max_tokens": 7,
            "max_input_tokens": None,
            "capabilities": {
                "batch": yes(),
                "thinking": {"supported": True, "types": {"adaptive": yes()}},
                "effort": {"low": {}, "max": yes()},
            },
        },
        {
            "id": "claude-b",
            "retired": True,
            "max_tokens": None,
            "max_input_tokens": None,
            "capabilities": {},
        },
    ]


def test_the_operator_has_the_last_word() -> None:
    overrides = {
        OPUS: AnthropicModelSettings(max_output=5, forced_tools="yes"),
        "gpt-4o-mini": AnthropicModelSettings(id=OPUS, max_output=3),
    }
    table = ModelTable(overrides, [{**document(), "id": OPUS}])

    named, aliased = table.resolve(OPUS), table.resolve("gpt-4o-mini")

    assert named is not None
    assert aliased is not None
    assert (named.id, named.capabilities.max_output, named.capabilities.context) == (OPUS, 5, 99)
    assert (aliased.id, aliased.capabilities.max_output) == (OPUS, 3)
    assert aliased.capabilities.forced_tools == "yes"


def test_models_and_policy_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    prefix = "FLOOPY_PROVIDERS__ANTHROPIC__"
    monkeypatch.setenv(prefix + "VERSION", "2026-10-21")
    monkeypatch.setenv(prefix + "UNSUPPORTED", "drop")
    monkeypatch.setenv(prefix + "AUTO_CACHE", "true")
    monkeypatch.setenv(prefix + "MODELS", '{"gpt-4o": {"id": "claude-haiku-4-5", "thinking": ["disabled"]}}')

    settings = Settings().providers.anthropic

    assert settings.base_url == "https://api.anthropic.com"
    assert policy_of(settings) == Policy(unsupported="drop", auto_cache=True, api_version="2026-10-21")
    found = ModelTable(settings.models).resolve("gpt-4o")
    assert found is not None
    assert (found.id, found.capabilities.thinking) == ("claude-haiku-4-5", {"disabled"})


def test_the_default_policy_is_the_settings_default() -> None:
    assert policy_of(ProvidersSettings().anthropic) == Policy()


@pytest.mark.parametrize(
    ("override", "part", "param"),
    [
        (
            {"images": False},
            {"type": "image_url", "image_url": {"url": "https://a.example/a"}},
            "messages[0]",
        ),
        ({"pdfs": False}, {"type": "file", "file": {"file_data": "JVBERg=="}}, "messages[0]"),
    ],
)
def test_what_a_model_cannot_read_is_refused(override: Any, part: Any, param: str) -> None:
    models = ModelTable({OPUS: AnthropicModelSettings(**override)})
    body = {"model": OPUS, "messages": [{"role": "user", "content": [part]}]}

    outcome = translate(json.dumps(body).encode(), Context(models=models))

    assert isinstance(outcome, Refused)
    assert outcome.code == "unsupported_value"
    assert (outcome.param or "").startswith(param)


def test_a_model_without_batches_or_structured_outputs_says_so() -> None:
    models = ModelTable(
        {"claude-a": AnthropicModelSettings(structured_outputs=False)},
        [{**document(batch=yes(False)), "id": "claude-b"}],
    )
    schema = {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}}
    tool = {"type": "function", "function": {"name": "a", "strict": True}}

    def refused(**members: Any) -> str | None:
        body = {"messages": [{"role": "user", "content": "a"}], **members}
        outcome = translate(json.dumps(body).encode(), Context(models=models))
        assert isinstance(outcome, Refused)
        return outcome.param

    assert refused(model="claude-b") == "model"
    assert refused(model="claude-a", response_format=schema) == "response_format.type"
    assert refused(model="claude-a", tools=[tool]) == "tools[0].function.strict"
