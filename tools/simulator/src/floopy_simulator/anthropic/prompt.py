"""One walk over a request: what was asked, how many tokens it has, and how much of it is cached."""

import msgspec

from floopy_simulator.anthropic.errors import invalid
from floopy_simulator.anthropic.media import check_document, check_image
from floopy_simulator.anthropic.message_request import (
    Block,
    Document,
    Ephemeral,
    Image,
    Message,
    MessageRequest,
    RedactedThinking,
    SearchResult,
    Text,
    Thinking,
    ToolResult,
    ToolUse,
)
from floopy_simulator.anthropic.models import Model
from floopy_simulator.text import CHARACTERS_PER_TOKEN, count_tokens

MESSAGE_OVERHEAD = 4
"""Tokens a message costs besides its text."""
MAX_MARKS = 4
CACHE_FLOOR = 1024
"""Prompts shorter than this many tokens are not cached."""
SMALL_CONTEXT = 200_000
MAX_IMAGES, MAX_IMAGES_SMALL = 600, 100


class Prompt(msgspec.Struct):
    """Sizes are in characters until `tokens` and `cached` are asked for."""

    question: str = ""
    characters: int = 0
    images: int = 0
    marks: int = 0
    marked: int = 0
    """Characters up to the last cache breakpoint."""
    lifetime: str = "5m"

    @property
    def tokens(self) -> int:
        return count_tokens(self.characters)

    @property
    def cached(self) -> int:
        """Tokens that are written to the cache or read from it."""
        tokens = count_tokens(self.marked)
        return tokens if self.marks and tokens >= CACHE_FLOOR else 0

    def mark(self, control: Ephemeral | None) -> None:
        if control is None:
            return
        if self.marks and self.lifetime == "5m" and control.ttl == "1h":
            raise invalid(
                "a ttl='1h' cache_control block must not come after a ttl='5m' cache_control block. "
                "Note that blocks are processed in the following order: `tools`, `system`, `messages`."
            )
        self.marks += 1
        self.marked = self.characters
        self.lifetime = control.ttl


def read_prompt(request: MessageRequest, model: Model) -> Prompt:
    """Raises ApiError for media that cannot be taken and prompts that are too long."""
    prompt = Prompt()
    for tool in request.tools:
        prompt.characters += (
            len(msgspec.json.encode(tool.input_schema)) + len(tool.name) + len(tool.description)
        )
        prompt.mark(tool.cache_control)
    _read_system(request.system, prompt)
    last = ""
    for number, message in enumerate(request.messages):
        last = _read_message(message, number, prompt)
        if message.role == "user" and last:
            prompt.question = last
    prompt.question = prompt.question or last
    prompt.mark(request.cache_control)
    _check_sizes(prompt, model)
    return prompt


def _read_system(system: str | list[Text], prompt: Prompt) -> None:
    if isinstance(system, str):
        prompt.characters += len(system)
        return
    for block in system:
        if not block.text.strip():
            raise invalid("system: text content blocks must be non-empty")
        prompt.characters += len(block.text)
        prompt.mark(block.cache_control)


def _read_message(message: Message, number: int, prompt: Prompt) -> str:
    """Returns the text of the message."""
    prompt.characters += MESSAGE_OVERHEAD * CHARACTERS_PER_TOKEN
    if isinstance(message.content, str):
        prompt.characters += len(message.content)
        return message.content
    texts: list[str] = []
    for place, block in enumerate(message.content):
        if isinstance(block, Text):
            texts.append(block.text)
        _read_block(block, f"messages.{number}.content.{place}", prompt)
    return "\n".join(texts)


def _read_block(block: Block, path: str, prompt: Prompt) -> None:
    if isinstance(block, Thinking | RedactedThinking):
        return  # earlier thinking is not read again
    if isinstance(block, ToolResult):
        if isinstance(block.content, str):
            prompt.characters += len(block.content)
        else:
            for place, inner in enumerate(block.content):
                _read_block(inner, f"{path}.tool_result.content.{place}", prompt)
    else:
        prompt.characters += _measure(block, path)
        prompt.images += isinstance(block, Image)
    prompt.mark(block.cache_control)


def _measure(block: Text | Image | Document | SearchResult | ToolUse, path: str) -> int:
    """Characters, or as many as stand for its tokens."""
    match block:
        case Text():
            return len(block.text)
        case Image():
            return check_image(block, path) * CHARACTERS_PER_TOKEN
        case Document():
            return check_document(block, path)
        case SearchResult():
            return sum(len(part.text) for part in block.content)
        case ToolUse():
            return len(block.name) + len(msgspec.json.encode(block.input))


def _check_sizes(prompt: Prompt, model: Model) -> None:
    if prompt.marks > MAX_MARKS:
        raise invalid(
            f"A maximum of {MAX_MARKS} blocks with cache_control may be provided. Found {prompt.marks}."
        )
    most = MAX_IMAGES_SMALL if model.context <= SMALL_CONTEXT else MAX_IMAGES
    if prompt.images > most:
        raise invalid(f"messages: Too many images: {prompt.images} > {most}")
    if prompt.tokens > model.context:
        raise invalid(f"prompt is too long: {prompt.tokens} tokens > {model.context} maximum")
