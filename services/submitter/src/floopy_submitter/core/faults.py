"""What can be wrong with a batch's input, in OpenAI's codes and words."""

from dataclasses import dataclass
from typing import Any

MAX_FAULTS = 100
"""Nobody reads more, and the first ones are reported the sooner."""

_SHOWN = 200
"""Characters of a value of the user's that a message repeats."""


@dataclass(frozen=True)
class Fault:
    """One entry of a failed batch's `errors`; `line` counts physical lines from 1."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None

    def to_document(self) -> dict[str, Any]:
        return {"code": self.code, "line": self.line, "message": self.message, "param": self.param}


def invalid_json(line: int, why: str = "") -> Fault:
    message = "This line is not parseable as valid JSON."
    return Fault("invalid_json_line", f"{message} {why}" if why else message, None, line)


def missing(line: int, param: str) -> Fault:
    return Fault("missing_required_parameter", f"Missing required parameter: '{param}'.", param, line)


def required(line: int, name: str) -> Fault:
    return Fault("invalid_request", f"{name.capitalize()} parameter is required.", f"body.{name}", line)


def wrong_type(line: int, param: str, expected: str) -> Fault:
    return Fault("invalid_request", f"Invalid type for '{param}': expected {expected}.", param, line)


def wrong_length(line: int, param: str, shortest: int, longest: int) -> Fault:
    message = f"Invalid '{param}': expected a string of {shortest} to {longest} characters."
    return Fault("invalid_request", message, param, line)


def duplicate(line: int, custom_id: str) -> Fault:
    message = (
        f"The custom_id '{custom_id}' for this request is a duplicate of another request. "
        "The custom_id parameter must be unique for each request in a batch."
    )
    return Fault("duplicate_custom_id", message, "custom_id", line)


def invalid_method(line: int, method: str) -> Fault:
    message = f"The method '{_shown(method)}' is not supported by the Batch API; every request is a 'POST'."
    return Fault("invalid_method", message, "method", line)


def invalid_url(line: int) -> Fault:
    message = "The URL provided for this request does not match the batch endpoint."
    return Fault("invalid_url", message, "url", line)


def streaming(line: int, endpoint: str) -> Fault:
    message = "Streaming is not supported in the Batch API."
    if endpoint == "/v1/chat/completions":
        message = f"Chat Completions: {message}"
    return Fault("streaming_unsupported", message, "body.stream", line)


def mismatched_model(line: int, model: str) -> Fault:
    message = (
        f"The model '{model}' for this request does not match the rest of the batch. "
        "Each batch must contain requests for a single model."
    )
    return Fault("mismatched_model", message, "body.model", line)


def too_many_models(line: int, most: int) -> Fault:
    message = f"A batch may name {most} different models at most."
    return Fault("mismatched_model", message, "body.model", line)


def empty_file() -> Fault:
    return Fault("empty_file", "The input file contains no requests.")


def unknown_file(file_id: str, org_id: str) -> Fault:
    message = f"Cannot find file {_shown(file_id)}, or organization {org_id} does not have access to it."
    return Fault("invalid_request", message, "file_id")


def wrong_purpose(file_id: str, purpose: str) -> Fault:
    message = f"File {_shown(file_id)} has the purpose '{purpose}'; the input of a batch needs 'batch'."
    return Fault("invalid_request", message, "file_id")


def damaged_file(file_id: str) -> Fault:
    message = f"The stored bytes of file {_shown(file_id)} are damaged. Upload it again."
    return Fault("invalid_request", message, "file_id")


def over_cap(lines: int, cap: int | None) -> Fault:
    message = (
        f"This batch has {lines} requests, which is more than what is left of the {cap} "
        "that your organisation's plan includes this month."
    )
    return Fault("insufficient_quota", message)


def gave_up(tries: int) -> Fault:
    message = (
        f"This batch could not be planned: {tries} tries were interrupted. Nothing of it ran. "
        "Create it again, or ask your operator if that happens once more."
    )
    return Fault("planning_failed", message)


def _shown(value: str) -> str:
    return value if len(value) <= _SHOWN else f"{value[:_SHOWN]}..."
