"""What a Message Batches request is made of: the blocks and parameters that are sent."""

from typing import Literal

import msgspec
from msgspec import Raw


class CacheControl(msgspec.Struct, tag_field="type", tag="ephemeral", frozen=True, gc=False):
    """One hour: the five minutes of the default are over before a batch gets to its next line."""

    ttl: Literal["1h"] = "1h"


CACHED = CacheControl()


class _Block(msgspec.Struct, tag_field="type", omit_defaults=True, kw_only=True, gc=False):
    cache_control: CacheControl | None = None


class TextBlock(_Block, tag="text", kw_only=True, gc=False):
    text: str


class Base64Source(msgspec.Struct, tag_field="type", tag="base64", gc=False):
    media_type: str
    data: str


class UrlSource(msgspec.Struct, tag_field="type", tag="url", gc=False):
    url: str


class PlainSource(msgspec.Struct, tag_field="type", tag="text", gc=False):
    media_type: str
    data: str


class ImageBlock(_Block, tag="image", kw_only=True, gc=False):
    source: Base64Source | UrlSource


class DocumentBlock(_Block, tag="document", kw_only=True, gc=False):
    source: Base64Source | PlainSource
    title: str | None = None


class ToolUseBlock(_Block, tag="tool_use", kw_only=True, gc=False):
    id: str
    name: str
    input: Raw


class ToolResultBlock(_Block, tag="tool_result", kw_only=True, gc=False):
    tool_use_id: str
    content: list[TextBlock | ImageBlock | DocumentBlock] | None = None


Block = TextBlock | ImageBlock | DocumentBlock | ToolUseBlock | ToolResultBlock


class Turn(msgspec.Struct, gc=False):
    role: Literal["user", "assistant", "system"]
    content: list[Block]


class ToolDefinition(msgspec.Struct, omit_defaults=True, kw_only=True, gc=False):
    name: str
    description: str | None = None
    input_schema: Raw
    strict: bool | None = None
    cache_control: CacheControl | None = None


class ToolChoice(msgspec.Struct, omit_defaults=True, gc=False):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(msgspec.Struct, omit_defaults=True, frozen=True, gc=False):
    type: Literal["adaptive", "enabled", "disabled", "between_tools"]
    budget_tokens: int | None = None


class OutputFormat(msgspec.Struct, tag_field="type", tag="json_schema", gc=False):
    schema: Raw


class OutputConfig(msgspec.Struct, omit_defaults=True, gc=False):
    effort: str | None = None
    format: OutputFormat | None = None


class Metadata(msgspec.Struct, gc=False):
    user_id: str


class Params(msgspec.Struct, omit_defaults=True, kw_only=True, gc=False):
    """What is None is not sent."""

    model: str
    max_tokens: int
    system: list[TextBlock] | None = None
    messages: list[Turn]
    metadata: Metadata | None = None
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    tools: list[ToolDefinition] | None = None
    tool_choice: ToolChoice | None = None
