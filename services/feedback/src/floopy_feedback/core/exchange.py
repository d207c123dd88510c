"""The parts of a chat request and its response that scoring looks at; everything else is skipped."""

import msgspec

_ABSENT = msgspec.Raw(b"")


class Unreadable(Exception):  # noqa: N818 - says what happened
    """A body that is not what its endpoint sends; `args[0]` is the reason."""


class Named(msgspec.Struct, gc=False):
    name: str | None = None


class FunctionSpec(msgspec.Struct, gc=False):
    """A function the model may call; `parameters` is its JSON Schema, empty where there is none."""

    name: str | None = None
    parameters: msgspec.Raw = _ABSENT


class ToolSpec(msgspec.Struct, gc=False):
    type: str | None = None
    function: FunctionSpec | None = None
    custom: Named | None = None


class JsonSchema(msgspec.Struct, gc=False):
    schema: msgspec.Raw = _ABSENT


class ResponseFormat(msgspec.Struct, gc=False):
    type: str | None = None
    json_schema: JsonSchema | None = None


class AllowedTools(msgspec.Struct, gc=False):
    mode: str | None = None
    tools: list[ToolSpec] | None = None


class ToolChoice(msgspec.Struct, gc=False):
    """A choice that names tools; `name` is the older `function_call` form."""

    type: str | None = None
    name: str | None = None
    function: Named | None = None
    custom: Named | None = None
    allowed_tools: AllowedTools | None = None


class Request(msgspec.Struct, gc=False):
    response_format: ResponseFormat | None = None
    tools: list[ToolSpec] | None = None
    functions: list[FunctionSpec] | None = None
    tool_choice: str | ToolChoice | None = None
    function_call: str | ToolChoice | None = None


class FunctionCall(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class ToolCall(msgspec.Struct, gc=False):
    type: str | None = None
    function: FunctionCall | None = None
    custom: Named | None = None


class Part(msgspec.Struct, gc=False):
    text: str | None = None
    refusal: str | None = None


class Message(msgspec.Struct, gc=False):
    content: str | list[Part] | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    function_call: FunctionCall | None = None
    audio: Named | None = None

    def text(self) -> str:
        """What the answer says, the empty string where it says nothing."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content if part.text)
        return self.content or ""

    def refuses(self) -> bool:
        """Whether the provider itself marked the answer as a refusal."""
        if self.refusal:
            return True
        return isinstance(self.content, list) and any(part.refusal for part in self.content)


class Choice(msgspec.Struct, gc=False):
    message: Message
    finish_reason: str | None = None


class Response(msgspec.Struct, gc=False):
    choices: list[Choice]


_decode_request = msgspec.json.Decoder(Request).decode
_decode_response = msgspec.json.Decoder(Response).decode
_BROKEN = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def read_request(body: bytes | msgspec.Raw) -> Request:
    """Raises Unreadable for anything but a chat request."""
    try:
        return _decode_request(body)
    except _BROKEN as error:
        raise Unreadable("request_unreadable") from error


def read_response(body: bytes | msgspec.Raw) -> Response:
    """Raises Unreadable for anything but a chat completion with a choice."""
    try:
        response = _decode_response(body)
    except _BROKEN as error:
        raise Unreadable("response_unreadable") from error
    if not response.choices:
        raise Unreadable("no_choices")
    return response
