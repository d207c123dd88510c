"""Lines that script their own fate."""

import json

import pytest


@pytest.fixture
def run_scripted(account, requests):
    """Runs one scripted line between two plain ones; returns the batch and the raw lines of both files."""

    def run(script, **more):
        bodies = [
            requests.body("first"),
            requests.body("scripted", metadata={"sim": script}, **more),
            requests.body("last"),
        ]
        batch = account.run(requests.lines(bodies))
        return batch, account.raw_lines(batch.output_file_id), account.raw_lines(batch.error_file_id)

    return run


def choice_of(lines):
    (line,) = [line for line in map(json.loads, lines) if line["custom_id"] == "line-2"]
    return line["response"]["body"]["choices"][0]


@pytest.mark.parametrize(
    ("script", "status", "kind", "code"),
    [
        ("status=429", 429, "requests", "rate_limit_exceeded"),
        ("status=500", 500, "server_error", None),
        ("status=503", 503, "server_error", None),
        ("status=400 code=context_length_exceeded", 400, "invalid_request_error", "context_length_exceeded"),
    ],
)
def test_a_status_lands_in_the_error_file(run_scripted, script, status, kind, code):
    batch, output, errors = run_scripted(script)

    (failed,) = map(json.loads, errors)
    error = failed["response"]["body"]["error"]
    assert (failed["response"]["status_code"], error["type"], error["code"]) == (status, kind, code)
    assert len(output) == 2
    assert batch.request_counts.failed == 1


def test_times_lets_the_same_body_succeed_in_a_later_batch(account, requests):
    content = requests.lines([requests.body("flaky", metadata={"sim": "status=500 times=2"})])

    outcomes = [account.run(content).request_counts.completed for _ in range(4)]

    assert outcomes == [0, 0, 1, 1]


def test_a_marker_in_the_text_works_like_metadata(account, requests):
    line = account.answer(**requests.body("Please [sim: status=418] fail"))

    assert line["response"]["status_code"] == 418


def test_a_missing_line_is_counted_but_in_no_file(run_scripted):
    batch, output, errors = run_scripted("missing")

    assert (len(output), len(errors), batch.request_counts.completed) == (2, 0, 3)


@pytest.mark.parametrize("script", ["duplicate", "duplicate=other"])
def test_a_duplicate_appears_twice(run_scripted, script):
    _, output, _ = run_scripted(script)

    twice = [line for line in output if json.loads(line)["custom_id"] == "line-2"]
    assert len(output) == 4
    assert len(twice) == 2
    assert (twice[0] == twice[1]) == (script == "duplicate")


def test_both_is_in_both_files(run_scripted):
    _, output, errors = run_scripted("both")

    assert len(output) == 3
    assert json.loads(errors[0])["custom_id"] == "line-2"


def test_an_unknown_line_is_added(run_scripted):
    _, output, _ = run_scripted("unknown")

    foreign = [line for line in map(json.loads, output) if line["custom_id"].startswith("unknown-")]
    assert len(output) == 4
    assert len(foreign) == 1


@pytest.mark.parametrize("script", ["garbled", "truncate"])
def test_a_broken_line_is_no_json(run_scripted, script):
    _, output, _ = run_scripted(script)

    broken = []
    for line in output:
        try:
            json.loads(line)
        except json.JSONDecodeError:
            broken.append(line)
    assert len(output) == 3
    assert len(broken) == 1


def test_an_error_line_has_no_response(run_scripted):
    batch, _, errors = run_scripted("error=batch_expired")

    (line,) = map(json.loads, errors)
    assert (line["response"], line["error"]["code"]) == (None, "batch_expired")
    assert batch.request_counts.failed == 1


def test_huge_has_that_many_characters(run_scripted):
    _, output, _ = run_scripted("huge=3000000")

    assert len(choice_of(output)["message"]["content"]) == 3_000_000


def test_contents_can_be_poor(run_scripted):
    contents = {
        script: choice_of(run_scripted(script)[1])["message"]
        for script in ("refusal", "empty", "repeat", "words=3")
    }

    assert contents["refusal"]["content"] is None
    assert contents["refusal"]["refusal"]
    assert contents["empty"]["content"] == ""
    assert contents["repeat"]["content"] == " ".join(["scripted"] * 40)
    assert contents["words=3"]["content"]


def test_bad_json_and_bad_tool_break_off(run_scripted):
    schema = {"type": "object", "properties": {"name": {"type": "string"}}}
    as_json = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    tool = {"type": "function", "function": {"name": "act", "parameters": schema}}

    _, text, _ = run_scripted("bad_json", response_format=as_json)
    _, call, _ = run_scripted("bad_tool", tools=[tool], tool_choice="required")

    arguments = choice_of(call)["message"]["tool_calls"][0]["function"]["arguments"]
    for broken in (choice_of(text)["message"]["content"], arguments):
        with pytest.raises(json.JSONDecodeError):
            json.loads(broken)


def test_usage_model_and_finish_can_be_wrong(run_scripted):
    def scripted_body(script):
        _, output, _ = run_scripted(script)
        return next(
            line["response"]["body"] for line in map(json.loads, output) if line["custom_id"] == "line-2"
        )

    assert "usage" not in scripted_body("no_usage")
    bad = scripted_body("bad_usage")["usage"]
    assert bad["prompt_tokens_details"]["cached_tokens"] > bad["prompt_tokens"]
    assert scripted_body("model=house-7")["model"] == "house-7"
    assert scripted_body("finish=length")["choices"][0]["finish_reason"] == "length"


def test_an_unknown_word_fails_the_line_and_says_so(run_scripted):
    _, _, errors = run_scripted("statsu=429")

    (line,) = map(json.loads, errors)
    assert line["response"]["status_code"] == 400
    assert "statsu" in line["response"]["body"]["error"]["message"]
