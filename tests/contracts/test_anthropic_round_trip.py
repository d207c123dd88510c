"""What is sent to Anthropic is taken there, and what comes back is what OpenAI would answer: by property.

Translation and simulator share no code, so each is the other's witness.
"""

import itertools
import json
from typing import Any

import pytest
from floopy_anthropic import CHAT_REQUESTS, PLAIN_REQUESTS
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion

from floopy_common.providers.anthropic.capabilities import ROWS
from floopy_common.providers.anthropic.policy import Context, Policy, StoredFile
from floopy_common.providers.anthropic.request import Translated, translate, upstream_element
from floopy_common.providers.anthropic.result import AnthropicResults
from floopy_simulator.anthropic.answers import Answer, answer
from floopy_simulator.anthropic.models import MODELS
from floopy_simulator.anthropic.request_rules import Rules

VERSIONS = ("2023-06-01", "2026-10-21")
FILES = {"file-a": StoredFile(b"%PDF-1.7", "a.pdf", None)}
ENDED = 1_795_000_000


def _result(custom_id: str, answered: Answer) -> bytes:
    return b'{"custom_id":"%b","result":{"type":"succeeded","message":%b}}' % (
        custom_id.encode(),
        answered.message,
    )


def _with_a_question(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The user speaks first and last, as in nearly all that is ever sent: most is taken, not refused."""
    system = list(itertools.takewhile(lambda message: message["role"] in {"system", "developer"}, messages))
    said = messages[len(system) :]
    return [*system, {"role": "user", "content": "Hi"}, *said, {"role": "user", "content": "Why?"}]


@pytest.mark.parametrize("version", VERSIONS)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(PLAIN_REQUESTS | CHAT_REQUESTS, st.sampled_from(sorted(ROWS.keys() & MODELS.keys())))
def test_a_translated_request_is_taken_and_its_answer_is_a_chat_completion(
    version: str, asked: dict[str, Any], model: str
) -> None:
    body = json.dumps({**asked, "model": model, "messages": _with_a_question(asked["messages"])}).encode()
    policy = Policy(unsupported="drop", forced_tool_choice="auto", api_version=version)
    context = Context(files=FILES, policy=policy)
    rules = Rules(version=version, betas=(), models=tuple(MODELS), batch=True)
    outcome = translate(body, context)
    if not isinstance(outcome, Translated):
        event("refused")
        return
    event("translated")

    answered = answer(outcome.params, rules, lambda _: 0)

    assert answered.error is None, (answered.error.message, outcome.params)
    element = json.loads(upstream_element("abcdefghij", 1, outcome.params))
    raw = _result(element["custom_id"], answered)
    parsed = AnthropicResults().parse_answer(raw, body, ENDED).answer
    assert parsed.status_code == 200
    assert parsed.body is not None
    completion = ChatCompletion.model_validate_json(parsed.body, strict=True)
    assert completion.created == ENDED
    assert completion.usage is not None
    assert completion.usage.completion_tokens == answered.usage.output
    # the same line again gives the same bytes at every step
    assert translate(body, context) == outcome
    assert answer(outcome.params, rules, lambda _: 0) == answered
    assert AnthropicResults().parse_answer(raw, body, ENDED).answer == parsed
