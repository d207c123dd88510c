"""What is sent to Anthropic is taken there, and what comes back is what OpenAI would answer: by property.

Translation and simulator share no code, so each is the other's witness.
"""

import json
from typing import Any

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

PDF = b"%PDF-1.7"
LENIENT = Context(
    files={"file-a": StoredFile(PDF, "a.pdf", None)},
    policy=Policy(unsupported="drop", forced_tool_choice="auto"),
)
RULES = Rules(version="2023-06-01", betas=(), models=tuple(MODELS), batch=True)
ENDED = 1_795_000_000


def _result(custom_id: str, answered: Answer) -> bytes:
    return b'{"custom_id":"%b","result":{"type":"succeeded","message":%b}}' % (
        custom_id.encode(),
        answered.message,
    )


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(PLAIN_REQUESTS | CHAT_REQUESTS, st.sampled_from(sorted(ROWS.keys() & MODELS.keys())))
def test_a_translated_request_is_taken_and_its_answer_is_a_chat_completion(
    asked: dict[str, Any], model: str
) -> None:
    body = json.dumps({**asked, "model": model}).encode()
    outcome = translate(body, LENIENT)
    if not isinstance(outcome, Translated):
        event("refused")
        return
    event("translated")

    answered = answer(outcome.params, RULES, lambda _: 0)

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
    assert translate(body, LENIENT) == outcome
    assert answer(outcome.params, RULES, lambda _: 0) == answered
    assert AnthropicResults().parse_answer(raw, body, ENDED).answer == parsed
