"""What is sent is what the official client's types describe."""

import json
from typing import Any

from anthropic import types
from floopy_anthropic import CHAT_REQUESTS
from hypothesis import HealthCheck, given, settings
from pydantic import TypeAdapter

from floopy_common.providers.anthropic.policy import Context, Policy, StoredFile
from floopy_common.providers.anthropic.request import Translated, translate

CONTEXT = Context(
    files={"file-a": StoredFile(b"%PDF-", "a.pdf", None)},
    policy=Policy(unsupported="drop", forced_tool_choice="auto"),
)
PARAMS = types.message_create_params.MessageCreateParamsNonStreaming
OF_THE_OLD_VERSION = {"temperature", "top_p"}
"""Gone from the newest API version, which this client speaks."""
BLOCKS: dict[str, Any] = {
    "text": types.TextBlockParam,
    "image": types.ImageBlockParam,
    "document": types.DocumentBlockParam,
    "tool_use": types.ToolUseBlockParam,
    "tool_result": types.ToolResultBlockParam,
}
MEMBERS: dict[str, Any] = {
    "thinking": types.ThinkingConfigParam,
    "output_config": types.OutputConfigParam,
    "tool_choice": types.ToolChoiceParam,
    "metadata": types.MetadataParam,
}
ADAPTERS = {name: TypeAdapter(kind) for name, kind in {**BLOCKS, **MEMBERS, "tool": types.ToolParam}.items()}


def check(name: str, value: dict[str, Any]) -> None:
    """Of the right types, and with nothing that its type does not name."""
    ADAPTERS[name].validate_python(value, strict=True)
    kind = BLOCKS.get(name)
    if kind is not None:
        assert value.keys() <= kind.__annotations__.keys()


def check_params(params: dict[str, Any]) -> None:
    assert params.keys() - OF_THE_OLD_VERSION <= PARAMS.__annotations__.keys()
    assert {"model", "max_tokens", "messages"} <= params.keys()
    for name in MEMBERS.keys() & params.keys():
        check(name, params[name])
    for tool in params.get("tools", ()):
        check("tool", tool)
        assert tool.keys() <= types.ToolParam.__annotations__.keys()
    blocks = [*params.get("system", ())]
    for turn in params["messages"]:
        assert turn["role"] in {"user", "assistant", "system"}
        blocks += turn["content"]
    for block in blocks:
        check(block["type"], block)
        for inner in block.get("content", ()):
            check(inner["type"], inner)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(CHAT_REQUESTS)
def test_translated_params_are_of_the_official_types(asked: dict[str, Any]) -> None:
    outcome = translate(json.dumps(asked).encode(), CONTEXT)

    if isinstance(outcome, Translated):
        check_params(json.loads(outcome.params))


def test_the_official_client_reads_the_endings_that_are_mapped() -> None:
    from typing import get_args

    from floopy_common.providers.anthropic.completion import FINISH

    assert set(get_args(types.StopReason)) - set(FINISH) == {"pause_turn"}
