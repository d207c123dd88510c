"""First pass over a batch's input: which lines there are, and whether the file is acceptable at all."""

import os
import random
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from floopy_simulator.openai.batches import LineError
from floopy_simulator.openai.endpoints import REQUIRED
from floopy_simulator.openai.models import is_known
from floopy_simulator.text import count_tokens

MAX_ERRORS = 100
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


ABSENT = msgspec.Raw(b"null")


class BodyHead(msgspec.Struct, gc=False):
    model: str
    messages: msgspec.Raw = ABSENT
    input: msgspec.Raw = ABSENT
    prompt: msgspec.Raw = ABSENT
    stream: bool | None = None


class LineHead(msgspec.Struct, gc=False):
    custom_id: str
    method: str
    url: str
    body: BodyHead


_decode_head = msgspec.json.Decoder(LineHead).decode


@dataclass
class Plan:
    """Where each request lies in the input, and the order in which they will be executed."""

    offsets: "array[int]"
    lengths: "array[int]"
    order: "array[int]"
    model: str | None
    tokens: int
    errors: list[LineError]

    @property
    def total(self) -> int:
        return len(self.offsets)


class Rules(msgspec.Struct, frozen=True):
    endpoint: str
    models: tuple[str, ...]
    max_lines: int
    shuffle_seed: str | None


def validate(path: Path, rules: Rules) -> Plan:
    plan = Plan(array("Q"), array("I"), array("I"), None, 0, [])
    _scan(path, rules, plan)
    if plan.total == 0 and not plan.errors:
        plan.errors.append(LineError("empty_file", "The batch input file contains no requests."))
    if plan.total > rules.max_lines:
        message = f"The batch input file contains more than the maximum of {rules.max_lines} requests."
        plan.errors = [LineError("invalid_request", message)]
    plan.order = array("I", range(plan.total))
    if rules.shuffle_seed is not None:
        random.Random(rules.shuffle_seed).shuffle(plan.order)  # noqa: S311 - an order, not a secret
    return plan


def _scan(path: Path, rules: Rules, plan: Plan) -> None:
    seen: set[str] = set()
    position = 0
    size = os.path.getsize(path)
    with path.open("rb", buffering=1 << 20) as lines:
        for number, physical in enumerate(lines, start=1):
            raw = physical.removeprefix(BYTE_ORDER_MARK) if number == 1 else physical
            position += len(physical)
            if raw.isspace() or not raw:
                continue
            plan.offsets.append(position - len(raw))
            plan.lengths.append(len(raw))
            _check(raw, number, rules, plan, seen)
            if len(plan.errors) >= MAX_ERRORS or plan.total > rules.max_lines:
                break
    plan.tokens = count_tokens(size)


def _check(raw: bytes, number: int, rules: Rules, plan: Plan, seen: set[str]) -> None:
    try:
        head = _decode_head(raw)
        if not raw.isascii():
            raw.decode()
    except (msgspec.DecodeError, UnicodeDecodeError):
        plan.errors.extend(_diagnose(raw, number, rules))
        return
    body = head.body
    if plan.model is None:
        plan.model = body.model
        if not is_known(body.model, rules.models):
            plan.errors.append(_unknown_model(body.model, number))
    if head.custom_id in seen:
        plan.errors.append(_duplicate(head.custom_id, number))
    seen.add(head.custom_id)
    if body.model != plan.model or head.url != rules.endpoint or head.method != "POST" or body.stream:
        plan.errors.extend(_faults(head, number, rules, plan.model))
    required = REQUIRED.get(rules.endpoint)
    if required is not None and bytes(getattr(body, required)) == b"null":
        message = f"{required.capitalize()} parameter is required."
        plan.errors.append(LineError("invalid_request", message, f"body.{required}", number))


def _unknown_model(model: str, number: int) -> LineError:
    message = f"The provided model '{model}' is not supported by the Batch API."
    return LineError("model_not_found", message, "body.model", number)


def _duplicate(custom_id: str, number: int) -> LineError:
    message = (
        f"The custom_id '{custom_id}' for this request is a duplicate of another request. "
        "The custom_id parameter must be unique for each request in a batch."
    )
    return LineError("duplicate_custom_id", message, "custom_id", number)


def _faults(head: LineHead, number: int, rules: Rules, model: str) -> list[LineError]:
    faults = []
    if head.method != "POST":
        message = f"Invalid method: '{head.method}'. The only supported method is 'POST'."
        faults.append(LineError("invalid_method", message, "method", number))
    if head.url != rules.endpoint:
        message = "The URL provided for this request does not match the batch endpoint."
        faults.append(LineError("invalid_url", message, "url", number))
    if head.body.model != model:
        message = (
            f"The model '{head.body.model}' for this request does not match the rest of the batch. "
            "Each batch must contain requests for a single model."
        )
        faults.append(LineError("mismatched_model", message, "body.model", number))
    if head.body.stream:
        message = "Chat Completions: Streaming is not supported in the Batch API."
        faults.append(LineError("streaming_unsupported", message, "body.stream", number))
    return faults


def _diagnose(raw: bytes, number: int, rules: Rules) -> list[LineError]:
    """Why a line is not even a request."""
    try:
        raw.decode()
        line: Any = msgspec.json.decode(raw)  # JSON may hold anything
    except (msgspec.DecodeError, UnicodeDecodeError):
        line = None
    if not isinstance(line, dict):
        return [LineError("invalid_json_line", "This line is not parseable as valid JSON.", None, number)]
    for name, kind, wanted in (
        ("custom_id", str, "a string"),
        ("method", str, "a string"),
        ("url", str, "a string"),
        ("body", dict, "an object"),
    ):
        if line.get(name) is None:
            message = f"Missing required parameter: '{name}'."
            return [LineError("missing_required_parameter", message, name, number)]
        if not isinstance(line[name], kind):
            message = f"Invalid type for '{name}': expected {wanted}."
            return [LineError("invalid_type", message, name, number)]
    return [_diagnose_body(line["body"], number)]


def _diagnose_body(body: dict[str, Any], number: int) -> LineError:
    if body.get("model") is None:
        return LineError("invalid_request", "Model parameter is required.", "body.model", number)
    if not isinstance(body["model"], str):
        message = "Invalid type for 'body.model': expected a string."
        return LineError("invalid_type", message, "body.model", number)
    message = "Invalid type for 'body.stream': expected a boolean."
    return LineError("invalid_type", message, "body.stream", number)
