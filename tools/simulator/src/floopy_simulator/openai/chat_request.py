"""What a chat completion request may contain, as OpenAI checks it."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from floopy_simulator.openai.errors import ApiError
from floopy_simulator.openai.models import is_reasoning, serves
from floopy_simulator.openai.problems import to_api_error

Penalty = Annotated[float, Meta(ge=-2.0, le=2.0)]
Fraction = Annotated[float, Meta(ge=0.0, le=1.0)]
ToolName = Annotated[str, Meta(pattern="^[a-zA-Z0-9_-]{1,64}$")]


class Part(msgspec.Struct, gc=False):
    type: Literal["text", "image_url", "input_audio", "file", "refusal"]
    text: str = ""
    refusal: str = ""


class FunctionCall(msgspec.Struct, gc=False):
    name: str
    arguments: str


class ToolCall(msgspec.Struct, gc=False):
    id: str
    type: Literal["function", "custom"]
    function: FunctionCall | None = None


class Message(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    function_call: FunctionCall | None = None
    audio: dict[str, Any] | None = None
    annotations: list[Any] | None = None


class Function(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(msgspec.Struct, gc=False):
    type: Literal["function", "custom"]
    function: Function | None = None


class ToolName_(msgspec.Struct, gc=False):  # noqa: N801 - the wire nests a bare name under this key
    name: str


class NamedTool(msgspec.Struct, gc=False):
    type: Literal["function", "custom", "allowed_tools"]
    function: ToolName_ | None = None


class JsonSchema(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    name: ToolName
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    description: str | None = None


class ResponseFormat(msgspec.Struct, gc=False):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class ChatRequest(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """Every top-level argument of the endpoint; an argument that changes no answer is only typed."""

    model: str
    messages: Annotated[list[Message], Meta(min_length=1)]
    audio: dict[str, Any] | None = None
    frequency_penalty: Penalty | None = None
    function_call: str | dict[str, Any] | None = None
    functions: list[Function] | None = None
    logit_bias: dict[str, float] | None = None
    logprobs: bool | None = None
    max_completion_tokens: Annotated[int, Meta(ge=1)] | None = None
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    metadata: dict[str, str] | None = None
    modalities: list[Literal["text", "audio"]] | None = None
    moderation: dict[str, Any] | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    parallel_tool_calls: bool | None = None
    prediction: dict[str, Any] | None = None
    presence_penalty: Penalty | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    prompt_cache_retention: Literal["in_memory", "24h"] | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    response_format: ResponseFormat | None = None
    safety_identifier: str | None = None
    seed: int | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast"] | None = None
    stop: str | list[str] | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    temperature: Annotated[float, Meta(ge=0.0, le=2.0)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    tools: list[Tool] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    top_p: Fraction | None = None
    user: str | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    web_search_options: dict[str, Any] | None = None


_decode = msgspec.json.Decoder(ChatRequest).decode


def read_chat_request(body: bytes) -> ChatRequest:
    """Raises ApiError as the endpoint refuses."""
    try:
        request = _decode(body)
    except msgspec.DecodeError as error:
        raise to_api_error(error, body, ChatRequest) from error
    if not serves(request.model, "/v1/chat/completions"):
        raise ApiError(
            404,
            "This is not a chat model and thus not supported in the v1/chat/completions endpoint. "
            "Did you mean to use v1/completions?",
            param="model",
        )
    if is_reasoning(request.model):
        _check_reasoning_limits(request)
    elif request.reasoning_effort is not None:
        raise ApiError(400, "Unrecognized request argument supplied: reasoning_effort")
    if request.response_format is not None:
        _check_format(request, body)
    if request.tool_choice is not None and not request.tools:
        raise ApiError(400, "'tool_choice' is only allowed when 'tools' are specified.", param="tool_choice")
    _check_conversation(request.messages)
    return request


def _check_reasoning_limits(request: ChatRequest) -> None:
    if request.max_tokens is not None:
        raise ApiError(
            400,
            "Unsupported parameter: 'max_tokens' is not supported with this model. "
            "Use 'max_completion_tokens' instead.",
            param="max_tokens",
            code="unsupported_parameter",
        )
    if request.temperature not in {None, 1.0}:
        raise ApiError(
            400,
            f"Unsupported value: 'temperature' does not support {request.temperature:g} with this model. "
            "Only the default (1) value is supported.",
            param="temperature",
            code="unsupported_value",
        )


def _check_format(request: ChatRequest, body: bytes) -> None:
    wanted = request.response_format
    if wanted is None or wanted.type == "text":
        return
    if wanted.type == "json_object":
        if b"json" not in "".join(text_of(message) for message in request.messages).lower().encode():
            raise ApiError(
                400,
                "'messages' must contain the word 'json' in some form, to use 'response_format' of type "
                "'json_object'.",
                param="messages",
            )
        return
    if wanted.json_schema is None:
        name = "response_format.json_schema"
        code = "missing_required_parameter"
        raise ApiError(400, f"Missing required parameter: '{name}'.", param=name, code=code)
    if wanted.json_schema.strict:
        _check_strict_schema(wanted.json_schema.name, wanted.json_schema.schema or {})


def _check_strict_schema(name: str, schema: dict[str, Any]) -> None:
    """Strict mode wants closed objects whose properties are all required."""
    if schema.get("type") != "object":
        return
    complaint = None
    if schema.get("additionalProperties") is not False:
        complaint = "'additionalProperties' is required to be supplied and to be false."
    elif set(schema.get("required", [])) != set(schema.get("properties", {})):
        complaint = (
            "'required' is required to be supplied and to be an array including every key in properties."
        )
    if complaint is not None:
        message = f"Invalid schema for response_format '{name}': In context=(), {complaint}"
        raise ApiError(400, message, param="response_format")
    for inner in schema.get("properties", {}).values():
        if isinstance(inner, dict):
            _check_strict_schema(name, inner)


def _check_conversation(messages: list[Message]) -> None:
    for number, message in enumerate(messages):
        if message.content is None and message.role not in {"assistant", "function"}:
            param = f"messages.[{number}].content"
            text = f"Invalid value for 'content': expected a string, got null. - '{param}'"
            raise ApiError(400, text, param=param)
        if message.role == "tool" and message.tool_call_id is None:
            param = f"messages.[{number}].tool_call_id"
            code = "missing_required_parameter"
            raise ApiError(400, f"Missing required parameter: '{param}'.", param=param, code=code)


def text_of(message: Message) -> str:
    content = message.content
    if isinstance(content, str):
        return content
    if content is None:
        return ""
    return "\n".join(part.text for part in content)
