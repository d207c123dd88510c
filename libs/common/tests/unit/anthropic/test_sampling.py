"""Sampling: temperature, top_p and stops, on models that take them and models that do not."""

from collections.abc import Callable
from typing import Any

import pytest

from floopy_common.providers.anthropic.policy import Context, Policy
from floopy_common.providers.anthropic.request import Translated, translate

Params = Callable[..., dict[str, Any]]
Refusal = Callable[..., tuple[str | None, str | None]]

HAIKU, OPUS, NEWEST = "claude-haiku-4-5", "claude-opus-4-6", "claude-opus-5-5"
NEW_API = Context(policy=Policy(api_version="2026-10-21"))
DROPPING = Context(policy=Policy(unsupported="drop"))


@pytest.mark.edge(40)
@pytest.mark.parametrize(("value", "sent"), [(0, 0), (0.7, 0.7), (1, 1), (None, None)])
def test_an_old_model_takes_temperatures_up_to_one(params_of: Params, value: Any, sent: Any) -> None:
    assert params_of(temperature=value).get("temperature") == sent


@pytest.mark.edge(40)
@pytest.mark.parametrize("value", [1, 1.0, None])
@pytest.mark.parametrize(("context", "model"), [(None, NEWEST), (NEW_API, HAIKU), (NEW_API, NEWEST)])
def test_the_default_temperature_is_left_out_where_there_is_none(
    params_of: Params, context: Context | None, model: str, value: Any
) -> None:
    assert "temperature" not in params_of(context, model=model, temperature=value, top_p=value)


@pytest.mark.edge(40)
@pytest.mark.parametrize("name", ["temperature", "top_p"])
@pytest.mark.parametrize(("context", "model"), [(None, NEWEST), (NEW_API, HAIKU), (NEW_API, NEWEST)])
def test_another_temperature_is_refused_where_there_is_none(
    refusal_of: Refusal, context: Context | None, model: str, name: str
) -> None:
    assert refusal_of(context, model=model, **{name: 0.7}) == (name, "unsupported_value")


@pytest.mark.edge(40)
@pytest.mark.parametrize(
    ("value", "code"),
    [(1.5, "unsupported_value"), (2.5, "invalid_value"), (-1, "invalid_value"), ("1", "invalid_type")],
)
def test_a_temperature_above_one_is_refused_not_clamped(refusal_of: Refusal, value: Any, code: str) -> None:
    assert refusal_of(temperature=value) == ("temperature", code)


@pytest.mark.edge(40)
def test_a_model_that_thinks_takes_the_default_temperature_only(
    params_of: Params, refusal_of: Refusal
) -> None:
    for model in (HAIKU, OPUS):
        assert "temperature" not in params_of(model=model, reasoning_effort="low", temperature=1)
        assert refusal_of(model=model, reasoning_effort="low", temperature=0.5)[0] == "temperature"
    assert params_of(reasoning_effort="low", top_p=0.95)["top_p"] == 0.95
    assert refusal_of(reasoning_effort="low", top_p=0.9) == ("top_p", "unsupported_value")


@pytest.mark.edge(41)
@pytest.mark.parametrize(
    ("temperature", "top_p", "sent"),
    [(1, 0.5, {"top_p": 0.5}), (0.5, 1, {"temperature": 0.5}), (1, 1, {"top_p": 1.0})],
)
def test_of_temperature_and_top_p_the_one_that_asks_for_nothing_is_left_out(
    params_of: Params, temperature: float, top_p: float, sent: dict[str, float]
) -> None:
    params = params_of(temperature=temperature, top_p=top_p)

    assert {name: params[name] for name in ("temperature", "top_p") if name in params} == sent


@pytest.mark.edge(41)
def test_temperature_and_top_p_together_are_refused(refusal_of: Refusal) -> None:
    assert refusal_of(temperature=0.5, top_p=0.5) == ("top_p", "unsupported_value")


@pytest.mark.edge(42)
@pytest.mark.parametrize(
    ("stop", "sent"),
    [
        ("END", ["END"]),
        (["a", "b", "c", "d"], ["a", "b", "c", "d"]),
        ("\n", None),
        (["\n", "END"], ["END"]),
        ([], None),
        (None, None),
    ],
)
def test_stops_of_white_space_are_not_sent(params_of: Params, stop: Any, sent: Any) -> None:
    assert params_of(stop=stop).get("stop_sequences") == sent


@pytest.mark.edge(42)
@pytest.mark.parametrize(
    ("stop", "code"),
    [
        ("", "invalid_value"),
        (["a", ""], "invalid_value"),
        (list("abcde"), "invalid_value"),
        (5, "invalid_type"),
    ],
)
def test_an_empty_stop_or_a_fifth_is_refused(refusal_of: Refusal, stop: Any, code: str) -> None:
    assert refusal_of(stop=stop) == ("stop", code)


@pytest.mark.parametrize("value", [1.5, 0.5])
def test_a_policy_that_drops_leaves_out_a_temperature_the_model_lacks(
    make_body: Callable[..., bytes], value: float
) -> None:
    outcome = translate(make_body(model=NEWEST, temperature=value / 2), DROPPING)

    assert isinstance(outcome, Translated)
    assert b"temperature" not in outcome.params
    assert outcome.notes[0].startswith("temperature: dropped")
