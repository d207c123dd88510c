"""How long, how freely and how deeply the model may answer: limits, stops, sampling, thinking."""

from collections.abc import Sequence
from dataclasses import dataclass

from floopy_common.providers.anthropic import refusal
from floopy_common.providers.anthropic.capabilities import Capabilities
from floopy_common.providers.anthropic.policy import Judge
from floopy_common.providers.anthropic.wire import Thinking

MAX_STOPS = 4
MIN_BUDGET = 1_024
BUDGETS = {"minimal": 1_024, "low": 2_048, "medium": 8_192, "high": 16_384, "xhigh": 32_000, "max": 32_000}
"""Tokens a model without adaptive thinking may think for."""
EFFORTS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "max"}
MIN_THINKING_TOP_P = 0.95


def max_tokens(completion: int | None, legacy: int | None, capabilities: Capabilities) -> int:
    """The request's ceiling, else the model's: one that is not reached costs nothing."""
    if completion is not None and legacy is not None and completion != legacy:
        raise refusal.invalid_value("max_tokens", "it differs from 'max_completion_tokens'.")
    asked, param = (legacy, "max_tokens") if completion is None else (completion, "max_completion_tokens")
    if asked is None:
        return capabilities.max_output
    if asked < 1:
        raise refusal.invalid_value(param, f"expected a value >= 1, but got {asked} instead.")
    if asked > capabilities.max_output:
        why = f"this model writes at most {capabilities.max_output} tokens, but {asked} were asked for."
        raise refusal.invalid_value(param, why)
    return asked


def stop_sequences(stop: str | Sequence[str] | None) -> tuple[list[str], list[str]]:
    """Those that can be sent, and those of white space alone, at which we cut the answer ourselves."""
    stops = [stop] if isinstance(stop, str) else list(stop or ())
    if len(stops) > MAX_STOPS:
        raise refusal.invalid_value("stop", f"at most {MAX_STOPS} sequences are supported.")
    if "" in stops:
        raise refusal.invalid_value("stop", "a sequence may not be empty.")
    return [text for text in stops if not text.isspace()], [text for text in stops if text.isspace()]


@dataclass(frozen=True)
class Thought:
    """How the model is told to think; None is its own default."""

    thinking: Thinking | None = None
    effort: str | None = None

    @property
    def is_manual(self) -> bool:
        return self.thinking is not None and self.thinking.type == "enabled"

    @property
    def is_active(self) -> bool:
        return self.thinking is not None and self.thinking.type in {"enabled", "adaptive"}


def thought(effort: str | None, capabilities: Capabilities, limit: int, judge: Judge) -> Thought:
    if effort is None:
        return Thought()
    if effort == "none":
        return _unthinking(capabilities, judge)
    if capabilities.adaptive:
        return _adaptive(effort, capabilities, judge)
    return _on_a_budget(effort, capabilities, limit, judge)


def _unthinking(capabilities: Capabilities, judge: Judge) -> Thought:
    if not capabilities.adaptive:
        return Thought()
    if "disabled" in capabilities.thinking:
        return Thought(Thinking("disabled"))
    if "between_tools" in capabilities.thinking:
        return Thought(Thinking("between_tools"))
    why = "does not support 'none' with this model: it always thinks."
    judge.leave_out(refusal.unsupported_value("reasoning_effort", why))
    return Thought()


def _adaptive(effort: str, capabilities: Capabilities, judge: Judge) -> Thought:
    name = EFFORTS[effort]
    if name not in capabilities.effort:
        why = f"does not support '{effort}' with this model."
        judge.leave_out(refusal.unsupported_value("reasoning_effort", why))
        return Thought()
    thinking = Thinking("adaptive") if capabilities.thinking_default == "off" else None
    return Thought(thinking, name)


def _on_a_budget(effort: str, capabilities: Capabilities, limit: int, judge: Judge) -> Thought:
    name = EFFORTS[effort]
    said = name if name in capabilities.effort else None
    if limit <= MIN_BUDGET or "enabled" not in capabilities.thinking:
        judge.note("reasoning_effort: no thinking, max_tokens leaves no room for it")
        return Thought(effort=said)
    return Thought(Thinking("enabled", min(BUDGETS[effort], limit - 1)), said)


@dataclass(frozen=True)
class Sampling:
    temperature: float | None = None
    top_p: float | None = None


_NEITHER = Sampling()


def sampling(
    temperature: float | None, top_p: float | None, *, free: bool, thought: Thought, judge: Judge
) -> Sampling:
    """`free`: the model takes other values than 1. Both at once are not taken; a 1 asks for nothing."""
    if temperature is None and top_p is None:
        return _NEITHER
    for name, value, most in (("temperature", temperature, 2.0), ("top_p", top_p, 1.0)):
        if value is not None and not 0 <= value <= most:
            why = f"expected a value between 0 and {most:g}, but got {value:g} instead."
            raise refusal.invalid_value(name, why)
    temperature = _temperature(temperature, judge, free=free, thinks=thought.is_active)
    top_p = _top_p(top_p, judge, free=free, thinks=thought.is_active)
    if temperature is None or top_p is None:
        return Sampling(temperature, top_p)
    if temperature == 1:
        return Sampling(None, top_p)
    if top_p != 1:
        judge.leave_out(refusal.unsupported_value("top_p", "is not supported together with 'temperature'."))
    return Sampling(temperature, None)


def _temperature(value: float | None, judge: Judge, *, free: bool, thinks: bool) -> float | None:
    if value is None:
        return None
    if not free or thinks:
        if value != 1:
            _only_default("temperature", value, judge)
        return None
    if value > 1:
        why = f"does not support {value:g} with this model. Only values from 0 to 1 are supported."
        judge.leave_out(refusal.unsupported_value("temperature", why))
        return None
    return value


def _top_p(value: float | None, judge: Judge, *, free: bool, thinks: bool) -> float | None:
    if value is None:
        return None
    if not free:
        if value != 1:
            _only_default("top_p", value, judge)
        return None
    if thinks and value < MIN_THINKING_TOP_P:
        why = (
            f"does not support {value:g} with reasoning. Only values from {MIN_THINKING_TOP_P} are supported."
        )
        judge.leave_out(refusal.unsupported_value("top_p", why))
        return None
    return value


def _only_default(name: str, value: float, judge: Judge) -> None:
    why = f"does not support {value:g} with this model. Only the default (1) value is supported."
    judge.leave_out(refusal.unsupported_value(name, why))
