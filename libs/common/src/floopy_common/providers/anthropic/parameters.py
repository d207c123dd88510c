"""Every parameter of chat completions, and what becomes of it: the code and its page read this table."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec
from msgspec import Raw

from floopy_common.providers.anthropic import reading, refusal
from floopy_common.providers.anthropic.policy import Judge


class Rule(StrEnum):
    MAPPED = "mapped"
    DROPPED = "dropped"
    REFUSED = "refused"


@dataclass(frozen=True)
class Parameter:
    """`harmless` are values of a refused parameter that ask for nothing, so that it is just left out."""

    name: str
    rule: Rule
    says: str
    harmless: tuple[Any, ...] = ()
    is_value: bool = False
    """Other values of it are supported: the refusal names the value, not the parameter."""


def _mapped(name: str, says: str) -> Parameter:
    return Parameter(name, Rule.MAPPED, says)


def _dropped(name: str, says: str) -> Parameter:
    return Parameter(name, Rule.DROPPED, says)


def _refused(name: str, says: str, *harmless: Any, is_value: bool = False) -> Parameter:
    return Parameter(name, Rule.REFUSED, says, harmless, is_value)


PARAMETERS = (
    _mapped(
        "model", "Sent as the model id, without `anthropic/`; names in the operator's table stand for ids."
    ),
    _mapped("messages", "System and developer messages become the system prompt; see Messages below."),
    _mapped("max_completion_tokens", "`max_tokens`; absent: the model's maximum. Beyond that it is refused."),
    _mapped("max_tokens", "The same; it must equal `max_completion_tokens` where both are given."),
    _mapped("temperature", "0 to 1 where the model samples freely; elsewhere, and while it reasons, only 1."),
    _mapped("top_p", "Like temperature; not together with it, and from 0.95 while the model reasons."),
    _mapped("stop", "`stop_sequences`; those of white space alone are applied to the finished answer."),
    _mapped("tools", "Functions become tools, schemas and all; `strict` schemas are transformed."),
    _mapped(
        "tool_choice", "auto, none, required, a name, allowed_tools; demands only where the model takes them."
    ),
    _mapped("parallel_tool_calls", "false: `disable_parallel_tool_use`."),
    _mapped("functions", "As tools, one call at a time; the answer has the deprecated shape too."),
    _mapped("function_call", "As `tool_choice`."),
    _mapped("response_format", "json_schema: `output_config.format`; json_object: asked for in words."),
    _mapped("reasoning_effort", "Effort, or a thinking budget on models that know no effort; see below."),
    _mapped("user", "`metadata.user_id` as a salted SHA-256, never as it is."),
    _mapped("safety_identifier", "Like `user`, which it replaces."),
    _dropped("metadata", "Has no use in a batch line; batches have their own."),
    _dropped("store", "Answers are not stored at the provider, whatever the value."),
    _dropped("verbosity", "No such control."),
    _dropped("seed", "Best effort at OpenAI, no such control at Anthropic."),
    _dropped("service_tier", "A batch has its own tier; answers say `default`."),
    _dropped("prediction", "It only makes answers faster."),
    _dropped("prompt_cache_key", "The prompt itself is the key."),
    _dropped("prompt_cache_options", "Breakpoints are cached for an hour, nothing else is cached."),
    _dropped("prompt_cache_retention", "Breakpoints are cached for an hour."),
    _refused("stream", "Except false: a batch cannot stream.", False),
    _refused("stream_options", "It belongs to `stream`."),
    _refused("n", "Except 1.", 1, is_value=True),
    _refused("logprobs", "Except false.", False),
    _refused("top_logprobs", "Except 0.", 0),
    _refused("logit_bias", "Except empty.", {}),
    _refused("presence_penalty", "Except 0.", 0, 0.0),
    _refused("frequency_penalty", "Except 0.", 0, 0.0),
    _refused("audio", "No audio."),
    _refused("modalities", "Except text alone.", ["text"], []),
    _refused("web_search_options", "No search."),
    _refused("moderation", "No such service."),
)

_BY_NAME = {parameter.name: parameter for parameter in PARAMETERS}


def select(members: dict[str, Raw], judge: Judge) -> dict[str, Raw]:
    """The members that are translated; null is absent. Raises LineRefused for one that cannot be had."""
    chosen: dict[str, Raw] = {}
    for name, raw in members.items():
        parameter = _BY_NAME.get(name)
        if parameter is None:
            raise refusal.unknown_parameter(name)
        if bytes(raw) == reading.NULL or parameter.rule is Rule.DROPPED:
            continue
        if parameter.rule is Rule.MAPPED:
            chosen[name] = raw
        elif not _is_harmless(parameter, raw):
            _leave_out(parameter, raw, judge)
    return chosen


def _is_harmless(parameter: Parameter, raw: Raw) -> bool:
    try:
        value = msgspec.json.decode(raw)
    except reading.UNREADABLE:
        return False
    return any(type(value) is type(harmless) and value == harmless for harmless in parameter.harmless)


def _leave_out(parameter: Parameter, raw: Raw, judge: Judge) -> None:
    name = parameter.name
    if name == "stream":
        message = "Streaming is not supported in a batch."
        raise refusal.LineRefused(message, param=name, code="streaming_unsupported")
    if not parameter.is_value:
        judge.leave_out(refusal.unsupported_parameter(name))
        return
    value = bytes(raw)[:50].decode(errors="replace")
    judge.leave_out(refusal.unsupported_value(name, f"does not support {value} with this model."))
