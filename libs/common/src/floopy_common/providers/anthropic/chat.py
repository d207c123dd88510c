"""What chat completions requests are made of, as far as Anthropic can be asked the same."""

from typing import Literal

import msgspec
from msgspec import Raw


class Breakpoint(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    mode: Literal["explicit"]
    ttl: Raw = Raw()


class _Part(msgspec.Struct, tag_field="type", forbid_unknown_fields=True, gc=False):
    pass


class TextPart(_Part, tag="text", gc=False):
    text: str
    prompt_cache_breakpoint: Breakpoint | None = None


class RefusalPart(_Part, tag="refusal", gc=False):
    refusal: str


class ImageUrl(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    url: str
    detail: str | None = None


class ImagePart(_Part, tag="image_url", gc=False):
    image_url: ImageUrl
    prompt_cache_breakpoint: Breakpoint | None = None


class AudioPart(_Part, tag="input_audio", gc=False):
    input_audio: Raw = Raw()
    prompt_cache_breakpoint: Breakpoint | None = None


class FileRef(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    file_id: str | None = None
    file_data: str | None = None
    filename: str | None = None


class FilePart(_Part, tag="file", gc=False):
    file: FileRef
    prompt_cache_breakpoint: Breakpoint | None = None


UserPart = TextPart | ImagePart | AudioPart | FilePart


class Called(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    name: str
    arguments: str


class _Call(msgspec.Struct, tag_field="type", forbid_unknown_fields=True, gc=False):
    """`index` is left over from answers that were streamed."""

    id: str
    index: Raw = Raw()


class FunctionToolCall(_Call, tag="function", kw_only=True, gc=False):
    function: Called


class CustomToolCall(_Call, tag="custom", kw_only=True, gc=False):
    custom: Raw = Raw()


class _Message(msgspec.Struct, tag_field="role", forbid_unknown_fields=True, kw_only=True, gc=False):
    name: str | None = None
    annotations: Raw = Raw()


class _Unanswering(_Message, kw_only=True, gc=False):
    """Clients send the members that only an assistant's message has along as null."""

    refusal: None = None
    tool_calls: None = None
    function_call: None = None
    audio: None = None


class SystemMessage(_Unanswering, tag="system", kw_only=True, gc=False):
    content: str | list[TextPart]
    tool_call_id: None = None


class DeveloperMessage(SystemMessage, tag="developer", kw_only=True, gc=False):
    pass


class UserMessage(_Unanswering, tag="user", kw_only=True, gc=False):
    content: str | list[UserPart]
    tool_call_id: None = None


class AssistantMessage(_Message, tag="assistant", kw_only=True, gc=False):
    content: str | list[TextPart | RefusalPart] | None = None
    refusal: str | None = None
    tool_calls: list[FunctionToolCall | CustomToolCall] | None = None
    function_call: Called | None = None
    audio: Raw = Raw()
    tool_call_id: None = None


class ToolMessage(_Unanswering, tag="tool", kw_only=True, gc=False):
    content: str | list[TextPart | ImagePart]
    tool_call_id: str


class FunctionMessage(_Unanswering, tag="function", kw_only=True, gc=False):
    name: str
    content: str | None
    tool_call_id: None = None


Message = SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage | FunctionMessage


class Function(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    name: str
    description: str | None = None
    parameters: Raw = Raw()
    strict: bool | None = None


class FunctionTool(msgspec.Struct, tag_field="type", tag="function", forbid_unknown_fields=True, gc=False):
    function: Function


class CustomTool(msgspec.Struct, tag_field="type", tag="custom", forbid_unknown_fields=True, gc=False):
    custom: Raw = Raw()


class Named(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    name: str


class NamedChoice(msgspec.Struct, tag_field="type", tag="function", forbid_unknown_fields=True, gc=False):
    function: Named


class CustomChoice(msgspec.Struct, tag_field="type", tag="custom", forbid_unknown_fields=True, gc=False):
    custom: Raw = Raw()


class AllowedTools(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    mode: Literal["auto", "required"]
    tools: list[NamedChoice | CustomChoice]


class AllowedChoice(
    msgspec.Struct, tag_field="type", tag="allowed_tools", forbid_unknown_fields=True, gc=False
):
    allowed_tools: AllowedTools


class JsonSchema(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    name: str | None = None
    description: str | None = None
    schema: Raw = Raw()
    strict: bool | None = None


class ResponseFormat(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None
