"""The shape of a Messages request: every member there is, its type and its range."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

Identifier = Annotated[str, Meta(pattern="^[a-zA-Z0-9_-]+$")]
ToolName = Annotated[str, Meta(pattern="^[a-zA-Z0-9_-]{1,128}$")]
Fraction = Annotated[float, Meta(ge=0.0, le=1.0)]
Role = Literal["user", "assistant", "system"]
ImageType = Literal["image/jpeg", "image/png", "image/gif", "image/webp"]
Effort = Literal["low", "medium", "high", "xhigh", "max"]
Display = Literal["summarized", "omitted"]
Lifetime = Literal["5m", "1h"]
Tier = Literal["auto", "standard_only"]


class Ephemeral(msgspec.Struct, tag="ephemeral", forbid_unknown_fields=True, gc=False):
    ttl: Lifetime = "5m"


class Citations(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    enabled: bool = False


class Text(msgspec.Struct, tag="text", forbid_unknown_fields=True, gc=False):
    text: str
    cache_control: Ephemeral | None = None
    citations: list[dict[str, Any]] | None = None


class ImageBytes(msgspec.Struct, tag="base64", forbid_unknown_fields=True, gc=False):
    media_type: ImageType
    data: str


class PdfBytes(msgspec.Struct, tag="base64", forbid_unknown_fields=True, gc=False):
    media_type: Literal["application/pdf"]
    data: str


class PlainText(msgspec.Struct, tag="text", forbid_unknown_fields=True, gc=False):
    media_type: Literal["text/plain"]
    data: str


class Link(msgspec.Struct, tag="url", forbid_unknown_fields=True, gc=False):
    url: str


class StoredFile(msgspec.Struct, tag="file", forbid_unknown_fields=True, gc=False):
    file_id: str


class Image(msgspec.Struct, tag="image", forbid_unknown_fields=True, gc=False):
    source: ImageBytes | Link | StoredFile
    cache_control: Ephemeral | None = None
    transformations: dict[str, Literal["downsize", "error"]] | None = None


class Passages(msgspec.Struct, tag="content", forbid_unknown_fields=True, gc=False):
    content: str | list[Text | Image]


class Document(msgspec.Struct, tag="document", forbid_unknown_fields=True, gc=False):
    source: PdfBytes | PlainText | Passages | Link | StoredFile
    cache_control: Ephemeral | None = None
    citations: Citations | None = None
    context: str | None = None
    title: str | None = None


class SearchResult(msgspec.Struct, tag="search_result", forbid_unknown_fields=True, gc=False):
    content: list[Text]
    source: str
    title: str
    cache_control: Ephemeral | None = None
    citations: Citations | None = None


class Thinking(msgspec.Struct, tag="thinking", forbid_unknown_fields=True, gc=False):
    thinking: str
    signature: str


class RedactedThinking(msgspec.Struct, tag="redacted_thinking", forbid_unknown_fields=True, gc=False):
    data: str


class ToolUse(msgspec.Struct, tag="tool_use", forbid_unknown_fields=True, gc=False):
    id: Identifier
    name: ToolName
    input: dict[str, Any]
    cache_control: Ephemeral | None = None


class ToolResult(msgspec.Struct, tag="tool_result", forbid_unknown_fields=True, gc=False):
    tool_use_id: Identifier
    content: str | list[Text | Image | Document | SearchResult] = ""
    is_error: bool = False
    cache_control: Ephemeral | None = None


Block = Text | Image | Document | SearchResult | Thinking | RedactedThinking | ToolUse | ToolResult


class Message(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    role: Role
    content: str | list[Block]


class Tool(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A client tool; the server's own tools are not simulated."""

    name: ToolName
    input_schema: dict[str, Any]
    type: Literal["custom"] | None = None
    description: str = ""
    strict: bool = False
    cache_control: Ephemeral | None = None
    defer_loading: bool = False
    eager_input_streaming: bool | None = None
    input_examples: list[dict[str, Any]] = []
    allowed_callers: list[str] = []


class AutoChoice(msgspec.Struct, tag="auto", forbid_unknown_fields=True, gc=False):
    disable_parallel_tool_use: bool = False


class AnyChoice(msgspec.Struct, tag="any", forbid_unknown_fields=True, gc=False):
    disable_parallel_tool_use: bool = False


class NamedChoice(msgspec.Struct, tag="tool", forbid_unknown_fields=True, gc=False):
    name: str
    disable_parallel_tool_use: bool = False


class NoChoice(msgspec.Struct, tag="none", forbid_unknown_fields=True, gc=False):
    pass


class Adaptive(msgspec.Struct, tag="adaptive", forbid_unknown_fields=True, gc=False):
    display: Display | None = None


class Enabled(msgspec.Struct, tag="enabled", forbid_unknown_fields=True, gc=False):
    budget_tokens: Annotated[int, Meta(ge=1024)]
    display: Display | None = None


class Disabled(msgspec.Struct, tag="disabled", forbid_unknown_fields=True, gc=False):
    pass


class BetweenTools(msgspec.Struct, tag="between_tools", forbid_unknown_fields=True, gc=False):
    pass


class Format(msgspec.Struct, frozen=True, tag="json_schema", forbid_unknown_fields=True, gc=False):
    schema: dict[str, Any]


class OutputConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    effort: Effort | None = None
    format: Format | None = None


class Metadata(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    user_id: Annotated[str, Meta(max_length=256)] | None = None


class MessageRequest(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """Only what the API declares nullable takes null."""

    model: Annotated[str, Meta(min_length=1)]
    messages: list[Message]
    max_tokens: Annotated[int, Meta(ge=0)]
    cache_control: Ephemeral | None = None
    container: dict[str, Any] | str | None = None
    diagnostics: dict[str, Any] | None = None
    inference_geo: str | None = None
    metadata: Metadata = Metadata()
    output_config: OutputConfig = OutputConfig()
    output_format: Format | None = None
    service_tier: Tier = "auto"
    speed: Literal["standard", "fast"] | None = None
    stop_sequences: list[str] = []
    stream: bool = False
    system: str | list[Text] = ""
    temperature: Fraction | msgspec.UnsetType = msgspec.UNSET
    thinking: Adaptive | Enabled | Disabled | BetweenTools | msgspec.UnsetType = msgspec.UNSET
    tool_choice: AutoChoice | AnyChoice | NamedChoice | NoChoice | msgspec.UnsetType = msgspec.UNSET
    tools: list[Tool] = []
    top_k: Annotated[int, Meta(ge=0)] | msgspec.UnsetType = msgspec.UNSET
    top_p: Fraction | msgspec.UnsetType = msgspec.UNSET

    @property
    def format(self) -> Format | None:
        """Under its present name or the one it had in beta."""
        return self.output_config.format or self.output_format

    @property
    def forces_tool(self) -> bool:
        return isinstance(self.tool_choice, AnyChoice | NamedChoice)


CHOICES: dict[str, Any] = {
    "role": Role,
    "effort": Effort,
    "display": Display,
    "ttl": Lifetime,
    "service_tier": Tier,
    "speed": Literal["standard", "fast"],
}
"""Members that take one of a few words; media types depend on the block."""
decode_request = msgspec.json.Decoder(MessageRequest).decode
