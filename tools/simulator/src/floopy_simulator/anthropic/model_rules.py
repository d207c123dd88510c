"""What one model takes and another refuses: sampling, thinking, effort, forced tools and output length."""

from collections.abc import Collection

import msgspec

from floopy_simulator.anthropic.errors import invalid
from floopy_simulator.anthropic.message_request import (
    Adaptive,
    BetweenTools,
    Disabled,
    Enabled,
    MessageRequest,
)
from floopy_simulator.anthropic.models import Model

NEWEST_VERSION = "2026-10-21"
VERSIONS = ("2023-06-01", NEWEST_VERSION)
LONG_OUTPUT_BETA = "output-300k-2026-03-24"
LONG_OUTPUT = 300_000
SAMPLING = ("temperature", "top_p", "top_k")
LEAST_TOP_P_WHILE_THINKING = 0.95


def check_model_rules(
    request: MessageRequest, model: Model, *, version: str, betas: Collection[str], batch: bool
) -> None:
    _check_length(request, model, long_output=batch and LONG_OUTPUT_BETA in betas)
    _check_thinking(request, model)
    _check_sampling(request, model, version)
    _check_effort(request, model)
    _check_forced_tool(request, model)


def thinks(request: MessageRequest, model: Model) -> bool:
    """Whether the answer is thought about first."""
    kind = request.thinking
    if isinstance(kind, msgspec.UnsetType):
        return model.thinks
    return not isinstance(kind, Disabled | BetweenTools)


def _check_length(request: MessageRequest, model: Model, *, long_output: bool) -> None:
    most = LONG_OUTPUT if long_output and model.long_output else model.max_tokens
    if request.max_tokens < 1:
        raise invalid("max_tokens: Input should be greater than or equal to 1")
    if request.max_tokens > most:
        raise invalid(
            f"max_tokens: {request.max_tokens} > {most}, which is the maximum allowed number of output "
            f"tokens for {request.model}"
        )


def _check_thinking(request: MessageRequest, model: Model) -> None:
    kind = request.thinking
    if isinstance(kind, msgspec.UnsetType):
        return
    name = str(kind.__struct_config__.tag)
    if name not in model.thinking:
        hint = ""
        if isinstance(kind, Enabled):
            hint = (
                ' Use "thinking.type.adaptive" and "output_config.effort" to control thinking behavior.'
                if "adaptive" in model.thinking
                else ""
            )
        elif isinstance(kind, Adaptive):
            raise invalid("adaptive thinking is not supported on this model")
        raise invalid(f'"thinking.type.{name}" is not supported for this model.{hint}')
    if isinstance(kind, Enabled):
        if kind.budget_tokens >= request.max_tokens:
            raise invalid("`max_tokens` must be greater than `thinking.budget_tokens`.")
        if request.messages[-1].role == "assistant":
            raise invalid("Prefilling the assistant's response is not supported when thinking is enabled.")


def _check_sampling(request: MessageRequest, model: Model, version: str) -> None:
    given = [name for name in SAMPLING if not isinstance(getattr(request, name), msgspec.UnsetType)]
    if not given:
        return
    if version == NEWEST_VERSION:
        raise invalid(f"{given[0]}: Extra inputs are not permitted")
    if not model.samples:
        changed = [name for name in given if name == "top_k" or getattr(request, name) != 1.0]
        if changed:
            raise invalid(f"`{changed[0]}` is deprecated for this model.")
        return
    if thinks(request, model):
        _check_sampling_while_thinking(request)
    if "temperature" in given and "top_p" in given:
        raise invalid(
            "`temperature` and `top_p` cannot both be specified for this model. Please use only one."
        )


def _check_sampling_while_thinking(request: MessageRequest) -> None:
    if not isinstance(request.temperature, msgspec.UnsetType) and request.temperature != 1.0:
        raise invalid("`temperature` may only be set to 1 when thinking is enabled or in adaptive mode.")
    if not isinstance(request.top_p, msgspec.UnsetType) and request.top_p < LEAST_TOP_P_WHILE_THINKING:
        raise invalid(
            "`top_p` must be greater than or equal to 0.95 or unset when thinking is enabled or in "
            "adaptive mode."
        )
    if not isinstance(request.top_k, msgspec.UnsetType):
        raise invalid("`top_k` must be unset when thinking is enabled or in adaptive mode.")


def _check_effort(request: MessageRequest, model: Model) -> None:
    effort = request.output_config.effort
    if effort is None:
        return
    if not model.efforts:
        raise invalid("This model does not support the effort parameter.")
    if effort not in model.efforts:
        supported = ", ".join(model.efforts)
        raise invalid(f"This model does not support effort level '{effort}'. Supported levels: {supported}.")
    if isinstance(request.thinking, Disabled | BetweenTools) and effort not in model.quiet_efforts:
        name = request.thinking.__struct_config__.tag
        raise invalid(
            f"\"thinking.type.{name}\" is not supported with effort level '{effort}' on this model."
        )


def _check_forced_tool(request: MessageRequest, model: Model) -> None:
    if not request.forces_tool:
        return
    if not model.forced_tools:
        raise invalid('tool_choice: type "tool" and "any" are not supported for this model.')
    if isinstance(request.thinking, Enabled):
        raise invalid("Thinking may not be enabled when tool_choice forces tool use.")
