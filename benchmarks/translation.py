"""Chat completions lines to Anthropic's params and results back, beside just decoding the same JSON.

Figures are lines per second of processor time, so that other work on the machine does not count.
"""

import json
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from benchmarks.data import chat_line
from benchmarks.harness import Options, Outcome
from floopy_common.providers.anthropic.memory import result_context
from floopy_common.providers.anthropic.policy import Context
from floopy_common.providers.anthropic.request import Translated, translate, upstream_element
from floopy_common.providers.anthropic.result import AnthropicResults

LINE_BYTES = 1_200
MODEL = "claude-haiku-4-5"

_T = TypeVar("_T")


async def run(options: Options) -> Outcome:
    lines = 500 if options.small else 20_000
    bodies, rich, results = _bodies(lines), _rich_bodies(lines), _results(lines)
    outcome = Outcome("translation", "lines/s")
    rows = []
    for number in range(1, options.rounds + 1):
        there, there_limit = _rate(bodies, _translate), _rate(bodies, msgspec.json.decode)
        long_way = _rate(rich, _translate)
        back = _rate(list(zip(results, bodies, strict=True)), _tell)
        back_limit = _rate(results, msgspec.json.decode)
        outcome.values.append(min(there, back))
        outcome.limits.append(there_limit if there < back else back_limit)
        rows.append([number, *map(round, (there, there_limit, long_way, back, back_limit))])
    header = ("round", "requests", "decode only", "requests with tools", "results", "decode only")
    outcome.tables.append((header, rows))
    for name, column in (("requests", 1), ("requests_with_tools", 3), ("results", 4)):
        outcome.details[name] = sorted(row[column] for row in rows)[len(rows) // 2]
    return outcome


_CONTEXT = Context()
_RESULTS = AnthropicResults()


def _translate(body: bytes) -> None:
    outcome = translate(body, _CONTEXT)
    assert isinstance(outcome, Translated), outcome
    upstream_element("abcdefghij", 1, outcome.params)


def _tell(line: tuple[bytes, bytes]) -> None:
    """What a segment needs of one result: the request is read for what the way back must know."""
    result, body = line
    if not _RESULTS.parse(result, result_context(body), 1_764_000_000).answer.ok:
        raise RuntimeError("an answer is none")


def _rate(items: Sequence[_T], work: Callable[[_T], object]) -> float:
    for item in items[:100]:
        work(item)
    started = time.process_time()
    for item in items:
        work(item)
    return len(items) / (time.process_time() - started)


def _bodies(lines: int) -> list[bytes]:
    bodies = (json.loads(chat_line(number, LINE_BYTES, "bench"))["body"] for number in range(lines))
    return [_compact({**body, "model": MODEL, "max_tokens": 500}) for body in bodies]


def _rich_bodies(lines: int) -> list[bytes]:
    """With what takes the long way: a tool, a system prompt in parts, a user, a schema."""
    tool = {"name": "look_up", "description": "Looks up.", "parameters": {"type": "object", "properties": {}}}
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    more = {
        "tools": [{"type": "function", "function": tool}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}},
        "user": "somebody",
    }
    system = {"role": "system", "content": [{"type": "text", "text": "Be brief."}]}
    bodies = map(json.loads, _bodies(lines))
    return [_compact({**body, **more, "messages": [system, *body["messages"]]}) for body in bodies]


def _results(lines: int) -> list[bytes]:
    usage = {
        "input_tokens": 250,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens": 200,
        "service_tier": "batch",
    }
    return [
        _compact({"custom_id": f"abcdefghij-{number}", "result": {"type": "succeeded", "message": message}})
        for number in range(lines)
        for message in [
            {
                "id": f"msg_{number:024d}",
                "type": "message",
                "role": "assistant",
                "model": f"{MODEL}-20251001",
                "content": [{"type": "text", "text": f"answer {number} " + "of some words " * 80}],
                "stop_reason": "end_turn",
                "stop_sequence": None,
                "usage": usage,
            }
        ]
    ]


def _compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
