"""A conversation as Anthropic wants it: system apart, turns in turn, results right behind their calls."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Literal

from msgspec import Raw

from floopy_common.providers.anthropic import reading, refusal
from floopy_common.providers.anthropic.chat import (
    AssistantMessage,
    Called,
    CustomToolCall,
    FunctionMessage,
    Message,
    SystemMessage,
    ToolMessage,
    UserMessage,
)
from floopy_common.providers.anthropic.content import Blocks
from floopy_common.providers.anthropic.wire import Block, TextBlock, ToolResultBlock, ToolUseBlock, Turn

MAX_MESSAGES = 100_000

_PLAIN_ID = re.compile(r"[A-Za-z0-9_-]+")
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_EMPTY_OBJECT = Raw(b"{}")

Role = Literal["user", "assistant", "system"]


@dataclass
class Conversation:
    """`called` are the names of the tools in the history, in order of appearance."""

    system: list[TextBlock] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    called: dict[str, None] = field(default_factory=dict)


def convert(messages: Sequence[Message], blocks: Blocks, *, mid_system: bool) -> Conversation:
    """Raises LineRefused for a conversation that Anthropic does not take, or takes to mean something else."""
    if len(messages) > MAX_MESSAGES:
        raise refusal.invalid_value("messages", f"there may be {MAX_MESSAGES} messages at most.")
    history = _History(blocks)
    for number, message in enumerate(messages):
        history.add(message, f"messages[{number}]")
    history.require_results("messages")
    conversation = Conversation(history.system, called=history.called)
    _place(history.turns, conversation, mid_system=mid_system)
    _check_ends(conversation.turns)
    return conversation


class _History:
    """Reads the messages in order; `waiting` are the calls whose results must come next."""

    def __init__(self, blocks: Blocks) -> None:
        self.system: list[TextBlock] = []
        self.turns: list[Turn] = []
        self.called: dict[str, None] = {}
        self._blocks = blocks
        self._ids: set[str] = set()
        self._waiting: dict[str, str] = {}
        self._functions: list[tuple[str, str]] = []
        self._made = 0

    def add(self, message: Message, param: str) -> None:
        match message:
            case SystemMessage():
                self._system(message, param)
            case UserMessage():
                self.require_results(param)
                self._append("user", self._blocks.of(message.content, f"{param}.content"))
            case AssistantMessage():
                self.require_results(param)
                self._append("assistant", self._assistant(message, param))
            case ToolMessage():
                self._append("user", [self._tool_result(message, param)])
            case FunctionMessage():
                self._append("user", [self._function_result(message, param)])

    def require_results(self, param: str) -> None:
        if self._waiting or self._functions:
            calls = ", ".join([*self._waiting, *(name for _, name in self._functions)])
            why = f"an assistant message with tool calls must be followed by their results: {calls}."
            raise refusal.invalid_value(param, why)

    def _append(self, role: Role, blocks: list[Block]) -> None:
        if blocks:
            self.turns.append(Turn(role, blocks))

    def _system(self, message: SystemMessage, param: str) -> None:
        blocks = self._blocks.of(message.content, f"{param}.content")
        if self.turns:
            self._append("system", blocks)
        else:
            self.system += blocks

    def _assistant(self, message: AssistantMessage, param: str) -> list[Block]:
        if bytes(message.audio) not in (b"", reading.NULL):
            raise refusal.unsupported_value(f"{param}.audio", "does not support audio with this model.")
        blocks: list[Block] = self._blocks.of(message.content, f"{param}.content")
        blocks += self._blocks.of(message.refusal, f"{param}.refusal")
        for number, call in enumerate(message.tool_calls or ()):
            at = f"{param}.tool_calls[{number}]"
            if isinstance(call, CustomToolCall):
                raise refusal.unsupported_value(f"{at}.type", "does not support 'custom' with this model.")
            blocks.append(self._tool_use(call.id, call.function, at))
        if message.function_call is not None:
            blocks.append(self._function_use(message.function_call, f"{param}.function_call"))
        return blocks

    def _tool_use(self, call_id: str, called: Called, param: str) -> Block:
        if call_id in self._ids:
            raise refusal.invalid_value(f"{param}.id", f"the tool call id '{call_id}' is used twice.")
        self._ids.add(call_id)
        self._waiting[call_id] = _upstream_id(call_id)
        return self._use(self._waiting[call_id], called, f"{param}.function")

    def _function_use(self, called: Called, param: str) -> Block:
        """A call of the days before tools has no id: its result is the next `function` message."""
        use_id = f"fc_{self._made}"
        while use_id in self._ids:
            self._made += 1
            use_id = f"fc_{self._made}"
        self._made += 1
        self._ids.add(use_id)
        self._functions.append((use_id, called.name))
        return self._use(use_id, called, param)

    def _use(self, use_id: str, called: Called, param: str) -> Block:
        if not _TOOL_NAME.fullmatch(called.name):
            raise refusal.invalid_value(f"{param}.name", "a name is 1 to 64 letters, digits, '_' and '-'.")
        self.called[called.name] = None
        return ToolUseBlock(id=use_id, name=called.name, input=_arguments(called.arguments, param))

    def _tool_result(self, message: ToolMessage, param: str) -> Block:
        use_id = self._waiting.pop(message.tool_call_id, None)
        if use_id is None:
            why = f"no preceding assistant message has an open tool call '{message.tool_call_id}'."
            raise refusal.invalid_value(f"{param}.tool_call_id", why)
        block = ToolResultBlock(tool_use_id=use_id)
        block.content = self._blocks.of(message.content, f"{param}.content") or None
        for inner in block.content or ():
            if inner.cache_control is not None:  # only whole results can be cached
                block.cache_control, inner.cache_control = inner.cache_control, None
        return block

    def _function_result(self, message: FunctionMessage, param: str) -> Block:
        if not self._functions or self._functions[0][1] != message.name:
            why = f"no preceding assistant message has an open call of '{message.name}'."
            raise refusal.invalid_value(f"{param}.name", why)
        use_id, _ = self._functions.pop(0)
        content = self._blocks.of(message.content, f"{param}.content")
        return ToolResultBlock(tool_use_id=use_id, content=content or None)


def _place(said: Sequence[Turn], conversation: Conversation, *, mid_system: bool) -> None:
    """Merge turns of one role; a system message stays where it may, else it ends the system prompt."""
    turns = conversation.turns
    for number, turn in enumerate(said):
        if turn.role != "system":
            if turns and turns[-1].role == turn.role:
                turns[-1].content += turn.content
            else:
                turns.append(turn)
        elif mid_system and turns[-1].role != "assistant" and _speaks_next(said, number) != "user":
            turns.append(turn)
        else:
            conversation.system += _texts(turn.content)


def _speaks_next(said: Sequence[Turn], number: int) -> Role | None:
    return next((turn.role for turn in said[number + 1 :] if turn.role != "system"), None)


def _texts(blocks: Sequence[Block]) -> list[Any]:
    return list(blocks)


def _check_ends(turns: Sequence[Turn]) -> None:
    if not turns:
        raise refusal.invalid_value("messages", "at least one user message with content is needed.")
    if turns[0].role == "assistant":
        raise refusal.unsupported_value("messages", "does not support starting with an assistant message.")
    last = next(turn.role for turn in reversed(turns) if turn.role != "system")
    if last == "assistant":
        why = "does not support ending with an assistant message with this model: it would be continued."
        raise refusal.unsupported_value("messages", why)


def _upstream_id(call_id: str) -> str:
    """The id itself where Anthropic takes it, else one that follows from it."""
    if _PLAIN_ID.fullmatch(call_id):
        return call_id
    return f"call_{blake2b(call_id.encode(), digest_size=16).hexdigest()}"


def _arguments(text: str, param: str) -> Raw:
    if not text:
        return _EMPTY_OBJECT
    try:
        value = reading.load_exact(text)
        if isinstance(value, dict):
            return Raw(reading.dump(value))
    except reading.UNREADABLE:
        pass
    raise refusal.invalid_value(f"{param}.arguments", "it must be a JSON object.")
