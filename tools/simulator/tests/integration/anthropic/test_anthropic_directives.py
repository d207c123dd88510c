"""Requests that script their own fate in their text."""

import json

import pytest


@pytest.fixture
def run_scripted(claude, params):
    """Runs one scripted request between two plain ones; returns the counts and the raw result lines."""

    def run(script, **more):
        batch = claude.run(params("first"), params(f"scripted [sim: {script}]", **more), params("last"))
        return claude.counts(batch.id), claude.lines(batch.id)

    return run


def scripted_of(lines):
    (line,) = [line for line in map(json.loads, lines) if line["custom_id"] == "r-2"]
    return line["result"]


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("status=429", {"type": "rate_limit_error"}),
        ("status=529", {"type": "overloaded_error", "message": "Overloaded"}),
        ("status=500", {"type": "api_error"}),
        ("status=504", {"type": "timeout_error"}),
        ("status=413", {"type": "request_too_large"}),
        ("status=402", {"type": "billing_error"}),
        ("error=new_error", {"type": "new_error"}),
        ("status=400 code=too_odd", {"type": "invalid_request_error", "details": {"error_code": "too_odd"}}),
        ("sttus=400", {"type": "invalid_request_error"}),
    ],
)
def test_a_status_is_an_errored_result_of_its_type(run_scripted, script, error):
    counts, lines = run_scripted(script)

    result = scripted_of(lines)
    assert (result["type"], result["error"]["type"]) == ("errored", "error")
    assert result["error"]["error"].items() >= error.items()
    assert counts == {"succeeded": 2, "errored": 1}


def test_times_lets_the_same_request_succeed_in_a_later_batch(claude, params):
    flaky = params("flaky [sim: status=529 times=2]")

    outcomes = [claude.counts(claude.run(flaky).id) for _ in range(3)]

    assert outcomes == [{"errored": 1}, {"errored": 1}, {"succeeded": 1}]


@pytest.mark.parametrize(
    ("script", "kind"), [("error=batch_expired", "expired"), ("error=canceled", "canceled")]
)
def test_a_request_may_expire_alone(run_scripted, script, kind):
    counts, lines = run_scripted(script)

    assert scripted_of(lines) == {"type": kind}
    assert counts == {"succeeded": 2, kind: 1}


def test_a_missing_request_is_counted_but_has_no_result(run_scripted):
    counts, lines = run_scripted("missing")

    assert (counts, len(lines)) == ({"succeeded": 3}, 2)


@pytest.mark.parametrize("script", ["duplicate", "duplicate=other", "both"])
def test_a_request_may_have_two_results(run_scripted, script):
    _, lines = run_scripted(script)

    twice = [line for line in map(json.loads, lines) if line["custom_id"] == "r-2"]
    assert (len(lines), len(twice)) == (4, 2)
    assert (twice[0] == twice[1]) == (script == "duplicate")
    assert [line["result"]["type"] for line in twice][1] == ("errored" if script == "both" else "succeeded")


def test_an_unknown_result_has_a_foreign_custom_id(run_scripted):
    _, lines = run_scripted("unknown")

    assert len(lines) == 4
    assert sum(json.loads(line)["custom_id"].startswith("unknown-") for line in lines) == 1


@pytest.mark.parametrize("script", ["garbled", "truncate"])
def test_a_line_that_is_no_json(run_scripted, script):
    _, lines = run_scripted(script)

    def readable(line):
        try:
            json.loads(line)
        except json.JSONDecodeError:
            return False
        return True

    assert (len(lines), sum(map(readable, lines))) == (3, 2)


def test_answers_of_a_certain_kind(claude, params):
    scripts = (
        "refusal",
        "empty",
        "huge=5000",
        "finish=pause_turn",
        "model=claude-x",
        "no_usage",
        "bad_usage",
    )
    batch = claude.run(*[params(f"[sim: {script}]") for script in scripts])

    results = {
        line["custom_id"]: line["result"]["message"] for line in map(json.loads, claude.lines(batch.id))
    }
    refusal, empty, huge, paused, renamed, free, wrong = (results[f"r-{number}"] for number in range(1, 8))
    assert (refusal["stop_reason"], refusal["content"]) == ("refusal", [])
    assert refusal["stop_details"]["type"] == "refusal"
    assert (empty["stop_reason"], empty["content"], empty["usage"]["output_tokens"]) == ("end_turn", [], 3)
    assert len(huge["content"][0]["text"]) == 5000
    assert paused["stop_reason"] == "pause_turn"
    assert renamed["model"] == "claude-x"
    assert "usage" not in free
    assert wrong["usage"]["output_tokens_details"]["thinking_tokens"] > wrong["usage"]["output_tokens"]


def test_broken_structure(claude, params):
    form = {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False}
    tool = {"name": "t", "input_schema": {**form, "required": ["a"]}}
    wanted = {"output_config": {"format": {"type": "json_schema", "schema": form}}}

    text = claude.answer(**params("[sim: bad_json]", **wanted)).content[0].text
    call = claude.answer(**params("[sim: bad_tool]", tools=[tool], tool_choice={"type": "any"})).content[0]

    with pytest.raises(json.JSONDecodeError):
        json.loads(text)
    assert "a" not in call.input
