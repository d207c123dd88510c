"""Answers a Messages request: content, the reason why it stopped, and usage."""

from typing import Any

import msgspec

from floopy_simulator.anthropic.message_request import (
    Adaptive,
    AnyChoice,
    AutoChoice,
    Enabled,
    MessageRequest,
    NamedChoice,
    NoChoice,
    Tool,
)
from floopy_simulator.anthropic.model_rules import thinks
from floopy_simulator.anthropic.models import resolve
from floopy_simulator.anthropic.prompt import Prompt
from floopy_simulator.anthropic.request_rules import Understood
from floopy_simulator.directives import Directive
from floopy_simulator.schema import make_instance
from floopy_simulator.text import (
    CHARACTERS_PER_TOKEN,
    count_tokens,
    write_filler,
    write_repetition,
    write_reply,
)

NO_DIRECTIVE = Directive()
THOUGHT_TOKENS = 64
"""The unit in which thinking is counted: an answer takes one to eight of them."""
EFFORT_FACTORS = {"low": 1, "medium": 2, "high": 4, "xhigh": 6, "max": 8}
EMPTY_ANSWER_TOKENS = 3
EXPLANATION = "This request was declined because it may be related to something harmful."
_encode = msgspec.json.encode


class Answered(msgspec.Struct, gc=False):
    """What the model said. `blocks` are JSON already; `characters` are those that were generated."""

    blocks: list[bytes]
    stop_reason: str
    characters: int
    stop_sequence: str | None = None
    text: str | None = None
    """Set when the answer is one text, which may be cut."""
    refused: bool = False


class Usage(msgspec.Struct, frozen=True, gc=False):
    """`wire` is the member `usage`, formatted once because two places show it."""

    output: int
    wire: bytes


def write_message(
    understood: Understood, digest: bytes, name: bytes, directive: Directive | None, tier: bytes
) -> tuple[bytes, Usage]:
    """`name` is the request's digest in hexadecimal; the same request has the same answer."""
    request, prompt = understood.request, understood.prompt
    asked = directive or NO_DIRECTIVE
    thought = _think(understood, digest)
    answered = _stop(_choose(request, prompt.question, digest, asked), request)
    answered, thought = _limit(answered, request.max_tokens, thought)
    if thought:
        answered.blocks.insert(0, _thought_wire(request, prompt.question, name))
    usage = _usage(prompt, answered, thought, asked, tier)
    wire = (
        b'{"id":"msg_01%b","type":"message","role":"assistant","model":%b,"content":[%b],'
        b'"stop_reason":%b,"stop_sequence":%b,"stop_details":%b,"container":null%b}'
        % (
            name[:22],
            _encode(asked.model or resolve(request.model)),
            b",".join(answered.blocks),
            _encode(asked.finish or answered.stop_reason),
            _encode(answered.stop_sequence),
            _refusal_wire() if answered.refused else b"null",
            b"" if asked.no_usage else b',"usage":' + usage.wire,
        )
    )
    return wire, usage


def _think(understood: Understood, digest: bytes) -> int:
    """Tokens of thinking, which come out of `max_tokens` first."""
    request = understood.request
    if not thinks(request, understood.model):
        return 0
    factor = EFFORT_FACTORS[request.output_config.effort or "high"]
    tokens = THOUGHT_TOKENS * (1 + digest[3] % 8) * factor // 4
    return min(tokens, request.thinking.budget_tokens) if isinstance(request.thinking, Enabled) else tokens


def _thought_wire(request: MessageRequest, question: str, name: bytes) -> bytes:
    """Only who asks for a summary sees one; it was the default before adaptive thinking."""
    kind = request.thinking
    display = kind.display if isinstance(kind, Adaptive | Enabled) else "omitted"
    shown = display == "summarized" or (display is None and isinstance(kind, Enabled))
    summary = f"The question is about {question[:80]!r}." if shown else ""
    return b'{"type":"thinking","thinking":%b,"signature":"%b"}' % (_encode(summary), name + name)


def _choose(request: MessageRequest, question: str, digest: bytes, directive: Directive) -> Answered:
    if directive is not NO_DIRECTIVE:
        scripted = _choose_scripted(question, digest, directive)
        if scripted is not None:
            return scripted
    tools = _pick_tools(request, question)
    if tools:
        return _call_tools(tools, request, question, digest, directive)
    if request.format is not None:
        value = make_instance(request.format.schema, " ".join(question.split()[:8]) or "text")
        text = _encode(value).decode()
        return _say(text[: len(text) // 2 + 1] if directive.bad_json else text)
    reply = write_reply(question, digest, directive.words)
    return _say("{" + reply if directive.bad_json else reply)


def _choose_scripted(question: str, digest: bytes, directive: Directive) -> Answered | None:
    if directive.refusal:
        return Answered([], "refusal", 20, refused=True)
    if directive.empty:
        return Answered([], "end_turn", EMPTY_ANSWER_TOKENS * CHARACTERS_PER_TOKEN)
    if directive.huge:
        return _say(write_filler(directive.huge, digest))
    if directive.repeat:
        return _say(write_repetition(question, digest))
    return None


def _say(text: str) -> Answered:
    return Answered([], "end_turn", len(text), text=text)


def _pick_tools(request: MessageRequest, question: str) -> list[Tool]:
    """The forced tool; any for `any`; otherwise those that the question names."""
    choice = request.tool_choice
    if not request.tools or isinstance(choice, NoChoice):
        return []
    if isinstance(choice, NamedChoice):
        return [tool for tool in request.tools if tool.name == choice.name]
    named = [tool for tool in request.tools if tool.name in question]
    if isinstance(choice, AnyChoice) and not named:
        named = request.tools[:1]
    alone = isinstance(choice, AutoChoice | AnyChoice) and choice.disable_parallel_tool_use
    return named[:1] if alone else named


def _call_tools(
    tools: list[Tool], request: MessageRequest, question: str, digest: bytes, directive: Directive
) -> Answered:
    """Who is free to choose says first what it is about to do."""
    text = "" if request.forces_tool else write_reply(question, digest, directive.words)
    blocks, characters = ([_text_wire(text)] if text else []), len(text)
    for number, tool in enumerate(tools):
        value: Any = make_instance(tool.input_schema)
        if directive.bad_tool:
            value = {"unexpected": value}
        wire = _encode(value)
        characters += len(wire) + len(tool.name)
        call = b'{"type":"tool_use","id":"toolu_01%b%02d","name":%b,"input":%b}'
        blocks.append(call % (digest.hex()[:20].encode(), number, _encode(tool.name), wire))
    return Answered(blocks, "tool_use", characters)


def _stop(answered: Answered, request: MessageRequest) -> Answered:
    """Cuts a text at the first stop sequence in it."""
    text = answered.text
    if text is None or not request.stop_sequences:
        return answered
    found = [(text.find(sequence), sequence) for sequence in request.stop_sequences if sequence in text]
    if not found:
        return answered
    place, sequence = min(found)
    return Answered([], "stop_sequence", place, stop_sequence=sequence, text=text[:place])


def _limit(answered: Answered, most: int, thought: int) -> tuple[Answered, int]:
    """Cuts an answer that would pass the limit, and makes its blocks; returns the thinking that fits too."""
    tokens = count_tokens(answered.characters)
    if thought + tokens > most:
        thought = min(thought, most)
        room = (most - thought) * CHARACTERS_PER_TOKEN
        text = None if answered.text is None else answered.text[:room]
        blocks = [*answered.blocks[:-1], _cut_call(answered.blocks[-1])] if answered.blocks and room else []
        answered = Answered(blocks, "max_tokens", room, text=text)
    if answered.text:
        answered.blocks = [_text_wire(answered.text)]
    return answered, thought


def _cut_call(wire: bytes) -> bytes:
    """A call that was cut keeps its name and loses its input."""
    block = msgspec.json.decode(wire)
    return _encode({**block, "input": {}}) if block["type"] == "tool_use" else wire


def _text_wire(text: str) -> bytes:
    return b'{"type":"text","text":%b,"citations":null}' % _encode(text)


def _refusal_wire() -> bytes:
    return _encode({"type": "refusal", "category": "general_harms", "explanation": EXPLANATION})


def _usage(prompt: Prompt, answered: Answered, thought: int, directive: Directive, tier: bytes) -> Usage:
    """Half of what can be cached has been read from the cache, the rest is written to it."""
    read = prompt.cached // 2
    written = prompt.cached - read
    output = count_tokens(answered.characters) + thought
    shown = output * 10 + 1 if directive.bad_usage else thought
    details = b'{"thinking_tokens":%d}' % shown if shown else b"null"
    hour = written if prompt.lifetime == "1h" else 0
    wire = (
        b'{"input_tokens":%d,"cache_creation_input_tokens":%d,"cache_read_input_tokens":%d,'
        b'"cache_creation":{"ephemeral_5m_input_tokens":%d,"ephemeral_1h_input_tokens":%d},'
        b'"output_tokens":%d,"output_tokens_details":%b,"server_tool_use":null,"service_tier":"%b",'
        b'"inference_geo":"not_available"}'
        % (prompt.tokens - prompt.cached, written, read, written - hour, hour, output, details, tier)
    )
    return Usage(output, wire)
