"""The rules of a conversation: whose turn it is, what stands in it, which result answers which call."""

from collections.abc import Iterator

from floopy_simulator.anthropic.errors import invalid
from floopy_simulator.anthropic.message_request import (
    Block,
    Document,
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

MAX_MESSAGES = 100_000
EMPTY_TEXT = "messages: text content blocks must be non-empty"
BLANK_TEXT = "messages: text content blocks must contain non-whitespace text"
USER_ONLY = (Image, SearchResult, ToolResult)
ASSISTANT_ONLY = (Thinking, RedactedThinking, ToolUse)


def check_conversation(request: MessageRequest, model: Model, *, strict_documents: bool) -> None:
    """`strict_documents`: the API version refuses documents in what the assistant said."""
    messages = request.messages
    if not messages:
        raise invalid("messages: at least one message is required")
    if len(messages) > MAX_MESSAGES:
        raise invalid(f"messages: List should have at most {MAX_MESSAGES} items after validation")
    if messages[0].role == "assistant":
        raise invalid('messages: first message must use the "user" role')
    last = len(messages) - 1
    for number, message in enumerate(messages):
        if message.role == "system":
            _check_system_turn(messages, number, model)
        _check_content(message, number, is_last=number == last)
        if not isinstance(message.content, str):
            _check_placement(message, number, strict_documents=strict_documents)
    _check_tools(request)
    _check_ending(request, model)


def _check_system_turn(messages: list[Message], number: int, model: Model) -> None:
    """After a user turn, and before an assistant's or at the end."""
    if not model.system_turns:
        raise invalid("role 'system' is not supported on this model")
    before = next((other.role for other in reversed(messages[:number]) if other.role != "system"), None)
    after = next((other.role for other in messages[number + 1 :] if other.role != "system"), None)
    if before != "user":
        raise invalid(f"messages.{number}: a `system` message must directly follow a `user` message")
    if after == "user":
        raise invalid(
            f"messages.{number}: a `system` message must come last or directly before an `assistant` message"
        )


def _check_content(message: Message, number: int, *, is_last: bool) -> None:
    content = message.content
    if not content and not (is_last and message.role == "assistant"):
        raise invalid(
            f"messages.{number}: all messages must have non-empty content except for the optional final "
            "assistant message"
        )
    if isinstance(content, str):
        if content and not content.strip():
            raise invalid(BLANK_TEXT)
        return
    for block in content:
        if isinstance(block, ToolResult) and not isinstance(block.content, str):
            texts = [inner for inner in block.content if isinstance(inner, Text)]
        else:
            texts = [block] if isinstance(block, Text) else []
        for text in texts:
            _check_text(text.text)


def _check_text(text: str) -> None:
    if not text:
        raise invalid(EMPTY_TEXT)
    if text.isspace():
        raise invalid(BLANK_TEXT)


def _check_placement(message: Message, number: int, *, strict_documents: bool) -> None:
    for place, block in enumerate(message.content):
        tag, path = _tag(block), f"messages.{number}.content.{place}"
        if message.role != "assistant" and isinstance(block, ASSISTANT_ONLY):
            raise invalid(f"{path}: `{tag}` blocks can only be in `assistant` messages")
        if message.role != "user" and isinstance(block, USER_ONLY):
            raise invalid(f"{path}: `{tag}` blocks can only be in `user` messages")
        if isinstance(block, Document) and (
            message.role == "system" or (message.role == "assistant" and strict_documents)
        ):
            raise invalid(f"{path}: `document` blocks can only be in `user` messages")
        if isinstance(block, Text) and block.citations and message.role == "user" and strict_documents:
            raise invalid(f"{path}.text.citations: citations are not permitted on `user` text blocks")


def _tag(block: object) -> str:
    return str(getattr(type(block), "__struct_config__").tag)  # noqa: B009 - the type is only an object here


def _check_tools(request: MessageRequest) -> None:
    seen: set[str] = set()
    used = False
    for number, message in enumerate(request.messages):
        calls = [block for block in _blocks(message) if isinstance(block, ToolUse)]
        for block in calls:
            if block.id in seen:
                raise invalid(f"messages.{number}: `tool_use` ids must be unique")
            seen.add(block.id)
        _check_answers(request.messages, number, [block.id for block in calls])
        used = used or bool(calls)
    if used and not request.tools:
        raise invalid("Requests which include `tool_use` or `tool_result` blocks must define tools")


def _check_answers(messages: list[Message], number: int, called: list[str]) -> None:
    """The next message starts with one result for each call, and no result is without its call."""
    following = messages[number + 1] if number + 1 < len(messages) else None
    answered = _leading_results(following)
    unanswered = [name for name in called if name not in answered]
    if unanswered:
        raise invalid(
            f"messages.{number}: `tool_use` ids were found without `tool_result` blocks immediately after: "
            f"{', '.join(unanswered)}. Each `tool_use` block must have a corresponding `tool_result` "
            "block in the next message."
        )
    if number == 0:
        _refuse_orphans(messages[0], 0, [])
    if following is not None:
        _refuse_orphans(following, number + 1, called)


def _leading_results(message: Message | None) -> list[str]:
    """Results stand before anything else, or they do not count."""
    found: list[str] = []
    for block in _blocks(message):
        if not isinstance(block, ToolResult):
            break
        found.append(block.tool_use_id)
    return found


def _refuse_orphans(message: Message, number: int, called: list[str]) -> None:
    seen: set[str] = set()
    for place, block in enumerate(_blocks(message)):
        if not isinstance(block, ToolResult):
            continue
        path = f"messages.{number}.content.{place}"
        if block.tool_use_id not in called:
            raise invalid(
                f"{path}: unexpected `tool_use_id` found in `tool_result` blocks: {block.tool_use_id}. Each "
                "`tool_result` block must have a corresponding `tool_use` block in the previous message."
            )
        if block.tool_use_id in seen:
            raise invalid(
                f"{path}: each tool_use must have a single result. "
                f"Found multiple `tool_result` blocks with id: {block.tool_use_id}"
            )
        seen.add(block.tool_use_id)


def _blocks(message: Message | None) -> Iterator[Block]:
    if message is not None and not isinstance(message.content, str):
        yield from message.content


def _check_ending(request: MessageRequest, model: Model) -> None:
    """A last word of the assistant's asks the model to go on from there."""
    last = request.messages[-1]
    if last.role != "assistant":
        return
    if not model.prefills:
        raise invalid(
            "This model does not support assistant message prefill. "
            "The conversation must end with a user message."
        )
    if request.format is not None:
        raise invalid(
            "Your API request included an `assistant` message in the final position, which would pre-fill "
            "the `assistant` response. When using output format, pre-filling the `assistant` response is not "
            "supported."
        )
    content = last.content if isinstance(last.content, str) else ""
    for block in _blocks(last):
        content = block.text if isinstance(block, Text) else ""
    if content != content.rstrip():
        raise invalid("messages: final assistant content cannot end with trailing whitespace")
