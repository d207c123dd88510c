"""Lines of an Anthropic result file, member by member, and what is read from them."""

import json
from typing import Any

from floopy_common.providers.anthropic.memory import PLAIN, ResultContext
from floopy_common.providers.anthropic.result import AnthropicResults, Parsed

RESULTS = AnthropicResults()
KEY = "abcdefghij-12"
USAGE = {"input_tokens": 10, "output_tokens": 5}
TEXT = {"type": "text", "text": "Hi"}


def line(result: Any, key: str = KEY) -> bytes:
    return json.dumps({"custom_id": key, "result": result}, ensure_ascii=False).encode()


def message(*blocks: Any, **members: Any) -> bytes:
    said = {
        "id": "msg_01abc",
        "type": "message",
        "role": "assistant",
        "model": "claude-haiku-4-5-20251001",
        "content": list(blocks),
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": USAGE,
        **members,
    }
    return line({"type": "succeeded", "message": said})


def tool_use(name: str = "look", call_id: str = "toolu_1", **arguments: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": call_id, "name": name, "input": arguments}


def parse(raw: bytes, context: ResultContext = PLAIN) -> Parsed:
    return RESULTS.parse(raw, context, 1_700_000_000)


def body_of(raw: bytes, context: ResultContext = PLAIN) -> Any:
    body = parse(raw, context).answer.body
    assert body is not None
    return json.loads(body)


def choice_of(raw: bytes, context: ResultContext = PLAIN) -> Any:
    [choice] = body_of(raw, context)["choices"]
    return choice


def errored(kind: str, text: str = "Broken.", request_id: str | None = "req_1", **more: Any) -> bytes:
    error = {"type": "error", "error": {"type": kind, "message": text, **more}, "request_id": request_id}
    return line({"type": "errored", "error": error})
