"""What a request to create a batch must say."""

from typing import Any

import pytest

from floopy_api.core.create import (
    CreateBatch,
    check_supported,
    choose_account,
    fingerprint,
    read_create,
)
from floopy_api.errors import BadRequest

GOOD = {
    "input_file_id": "file-1",
    "endpoint": "/v1/chat/completions",
    "completion_window": "24h",
}


def refused(changes: dict[str, Any]) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        read_create({**GOOD, **changes})
    return caught.value


def test_the_least_that_is_needed_is_enough() -> None:
    assert read_create(GOOD) == CreateBatch("file-1", "/v1/chat/completions", "24h", None, None)


def test_unknown_fields_have_no_influence() -> None:
    forged = {"org_id": "org_2", "status": "completed", "id": "batch_x", "created_at": 1, "cost": 0}

    assert read_create({**GOOD, **forged}) == read_create(GOOD)


@pytest.mark.parametrize(
    ("changes", "param", "code"),
    [
        ({"input_file_id": None}, "input_file_id", "missing_required_parameter"),
        ({"input_file_id": {"$ne": None}}, "input_file_id", "invalid_type"),
        ({"input_file_id": "x" * 257}, "input_file_id", "string_above_max_length"),
        ({"endpoint": None}, "endpoint", "missing_required_parameter"),
        ({"endpoint": "/v1/images/generations"}, "endpoint", "invalid_value"),
        ({"endpoint": ["/v1/chat/completions"]}, "endpoint", "invalid_value"),
        ({"completion_window": None}, "completion_window", "missing_required_parameter"),
        ({"completion_window": "1h"}, "completion_window", "invalid_value"),
        ({"completion_window": ""}, "completion_window", "invalid_value"),
        ({"completion_window": 24}, "completion_window", "invalid_value"),
        ({"metadata": []}, "metadata", "invalid_type"),
        ({"metadata": {"tags": ["a"]}}, "metadata.tags", "invalid_type"),
        ({"metadata": {"n": 1}}, "metadata.n", "invalid_type"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata", "object_above_max_properties"),
        ({"metadata": {"k" * 65: ""}}, "metadata", "string_above_max_length"),
        ({"metadata": {"k": "v" * 513}}, "metadata.k", "string_above_max_length"),
        ({"metadata": {"a\0b": ""}}, "metadata", "invalid_value"),
        ({"output_expires_after": 3600}, "output_expires_after", "invalid_type"),
        ({"output_expires_after": {}}, "output_expires_after.anchor", "missing_required_parameter"),
        (
            {"output_expires_after": {"anchor": "completed_at", "seconds": 3600}},
            "output_expires_after.anchor",
            "invalid_value",
        ),
        (
            {"output_expires_after": {"anchor": "created_at", "seconds": True}},
            "output_expires_after.seconds",
            "invalid_type",
        ),
        (
            {"output_expires_after": {"anchor": "created_at", "seconds": 1}},
            "output_expires_after.seconds",
            "integer_below_min_value",
        ),
    ],
)
@pytest.mark.surface("3.1 metadata and output_expires_after: the rules; 5 bad completion_window; 5 metadata")
def test_every_broken_rule_is_named(changes: dict[str, Any], param: str, code: str) -> None:
    refusal = refused(changes)

    assert (refusal.param, refusal.code) == (param, code)


@pytest.mark.parametrize("body", [None, [], "text", 1])
def test_the_body_must_be_an_object(body: object) -> None:
    with pytest.raises(BadRequest):
        read_create(body)


def test_metadata_up_to_the_limits_is_kept() -> None:
    metadata = {f"{n:064d}": "v" * 512 for n in range(16)}

    assert read_create({**GOOD, "metadata": metadata}).metadata == metadata


TAKEN = ("/v1/chat/completions", "/v1/embeddings", "/v1/completions", "/v1/responses", "/v1/moderations")


@pytest.mark.parametrize("endpoint", TAKEN)
@pytest.mark.surface("9.4 endpoints that are taken; 3.1 endpoint")
def test_five_of_openais_eight_endpoints_are_taken(endpoint: str) -> None:
    assert read_create({**GOOD, "endpoint": endpoint}).endpoint == endpoint


@pytest.mark.parametrize(
    "endpoint",
    ["/v1/images/generations", "/v1/images/edits", "/v1/videos", "", "chat/completions", TAKEN[0] + "/"],
)
@pytest.mark.surface("5 unsupported endpoint; 9.4 the three others are refused")
def test_a_refused_endpoint_names_the_supported_ones(endpoint: str) -> None:
    refusal = refused({"endpoint": endpoint})

    assert (refusal.param, refusal.code) == ("endpoint", "invalid_value")
    supported = ", ".join(f"'{name}'" for name in TAKEN)
    assert refusal.message == f"Invalid endpoint: '{endpoint}'. Supported values are: {supported}."


def test_the_metadata_message_says_what_was_found() -> None:
    message = "Invalid type for 'metadata.tags': expected a string, but got an array instead."

    assert refused({"metadata": {"tags": []}}).message == message


OPENAI = {"_id": "acct_1", "provider": "openai"}
OPENAI_TOO = {"_id": "acct_2", "provider": "openai"}
ANTHROPIC = {"_id": "acct_3", "provider": "anthropic"}
ANTHROPIC_TOO = {"_id": "acct_4", "provider": "anthropic"}


@pytest.mark.parametrize(
    ("accounts", "wanted", "chosen"),
    [
        ([OPENAI], None, OPENAI),
        ([OPENAI, ANTHROPIC], "openai", OPENAI),
        ([OPENAI, ANTHROPIC], "anthropic", ANTHROPIC),
        ([OPENAI, OPENAI_TOO], "acct_2", OPENAI_TOO),
        ([ANTHROPIC], None, ANTHROPIC),
        ([ANTHROPIC, OPENAI], None, OPENAI),
    ],
)
def test_the_account_follows_from_the_header_or_is_the_only_one_or_the_default(
    accounts: list[dict[str, str]], wanted: str | None, chosen: dict[str, str]
) -> None:
    assert choose_account(accounts, wanted) is chosen


@pytest.mark.parametrize(
    ("accounts", "wanted", "named"),
    [
        ([OPENAI, OPENAI_TOO, ANTHROPIC], None, "'acct_1' (openai), 'acct_2' (openai), 'anthropic'"),
        ([ANTHROPIC, ANTHROPIC_TOO], None, "'acct_3' (anthropic), 'acct_4' (anthropic)"),
        ([OPENAI], "anthropic", "'openai'"),
        ([OPENAI, OPENAI_TOO], "openai", "'acct_1' (openai), 'acct_2' (openai)"),
        ([], None, "no provider account"),
    ],
)
def test_an_unclear_account_is_refused_with_the_choices(
    accounts: list[dict[str, str]], wanted: str | None, named: str
) -> None:
    with pytest.raises(BadRequest) as caught:
        choose_account(accounts, wanted)

    assert named in caught.value.message


@pytest.mark.parametrize(
    "endpoint", ["/v1/embeddings", "/v1/completions", "/v1/responses", "/v1/moderations"]
)
def test_an_endpoint_the_provider_lacks_is_refused_with_those_it_has(endpoint: str) -> None:
    check_supported("openai", endpoint)
    with pytest.raises(BadRequest) as caught:
        check_supported("anthropic", endpoint)

    assert (caught.value.param, caught.value.code) == ("endpoint", "invalid_value")
    assert f"for provider 'anthropic': '{endpoint}'" in caught.value.message
    assert caught.value.message.endswith("Supported values are: '/v1/chat/completions'.")


def test_the_fingerprint_ignores_spacing_and_order_but_not_the_provider() -> None:
    reordered = dict(reversed(GOOD.items()))

    assert fingerprint(GOOD, {}) == fingerprint(reordered, {"floopy-session-id": "s"})
    assert fingerprint(GOOD, {}) != fingerprint(GOOD, {"floopy-provider": "openai"})
    assert fingerprint(GOOD, {}) != fingerprint({**GOOD, "metadata": {}}, {})
