"""Answers chat completion requests."""

import msgspec

from floopy_simulator.directives import Directive
from floopy_simulator.openai.answers import Asked, Usage, make_usage
from floopy_simulator.openai.chat_request import (
    ChatRequest,
    NamedTool,
    Tool,
    read_chat_request,
    text_of,
)
from floopy_simulator.openai.models import is_reasoning, resolve
from floopy_simulator.schema import make_instance
from floopy_simulator.text import (
    CHARACTERS_PER_TOKEN,
    count_tokens,
    write_filler,
    write_repetition,
    write_reply,
)

MESSAGE_OVERHEAD = 4
"""Tokens a chat message costs besides its text."""
CACHE_FLOOR = 1024
CACHE_STEP = 128
"""Prompt caching starts at 1,024 tokens and grows in steps of 128."""
NO_DIRECTIVE = Directive()
_encode = msgspec.json.encode


class Choice(msgspec.Struct, gc=False):
    """`content` is JSON already; `tool_calls` too, when there are any."""

    content: bytes
    finish: str
    characters: int
    tool_calls: bytes = b""
    refusal: bytes = b"null"


def complete_chat(asked: Asked) -> tuple[bytes, Usage]:
    request = read_chat_request(asked.body)
    directive = asked.directive or NO_DIRECTIVE
    question, prompt = _read_prompt(request)
    reasoning = 64 * (1 + asked.digest[3] % 8) if is_reasoning(request.model) else 0
    wires, completion = [], 0
    for index in range(request.n or 1):
        digest = asked.digest if index == 0 else asked.digest[index % 29 :] + asked.digest
        choice = _limit(_choose(request, question, digest, directive), request, reasoning)
        wires.append(_choice_wire(index, choice, directive.finish))
        completion += count_tokens(choice.characters) + reasoning
    cached = prompt // 2 // CACHE_STEP * CACHE_STEP if prompt >= CACHE_FLOOR else 0
    if directive.bad_usage:
        cached = prompt * 10 + 1
    usage = make_usage(prompt, completion, cached, reasoning * len(wires))
    wire = (
        b'{"id":"chatcmpl-%b","object":"chat.completion","created":%d,"model":%b,"choices":[%b]%b,'
        b'"service_tier":"default","system_fingerprint":"fp_%b"}'
        % (
            asked.name[:29],
            asked.created,
            _encode(directive.model or resolve(request.model)),
            b",".join(wires),
            b"" if directive.no_usage else b',"usage":' + usage.wire,
            asked.name[-10:],
        )
    )
    return wire, usage


def _read_prompt(request: ChatRequest) -> tuple[str, int]:
    """The last thing the user said, and the tokens of the whole prompt."""
    question, text, characters = "", "", 0
    for message in request.messages:
        text = message.content if isinstance(message.content, str) else text_of(message)
        characters += len(text)
        if message.role == "user":
            question = text
    tokens = count_tokens(characters) + MESSAGE_OVERHEAD * len(request.messages) + 3
    if request.tools:
        tokens += count_tokens(len(_encode(request.tools)))
    return question or text, tokens


def _choose(request: ChatRequest, question: str, digest: bytes, directive: Directive) -> Choice:
    if directive is not NO_DIRECTIVE:
        scripted = _choose_scripted(question, digest, directive)
        if scripted is not None:
            return scripted
    if request.tools:
        called = _pick_tool(request, question)
        if called is not None:
            return _tool_choice(called, request, digest, directive)
    if request.response_format is not None and request.response_format.type != "text":
        return _json_choice(request, question, digest, directive)
    return _text_choice(write_reply(question, digest, directive.words))


def _choose_scripted(question: str, digest: bytes, directive: Directive) -> Choice | None:
    if directive.refusal:
        return Choice(b"null", "stop", 20, refusal=_encode("I'm sorry, but I can't help with that."))
    if directive.empty:
        return Choice(b'""', "stop", 0)
    if directive.huge:
        return _text_choice(write_filler(directive.huge, digest))
    if directive.repeat:
        return _text_choice(write_repetition(question, digest))
    return None


def _text_choice(text: str) -> Choice:
    return Choice(_encode(text), "stop", len(text))


def _json_choice(request: ChatRequest, question: str, digest: bytes, directive: Directive) -> Choice:
    wanted = request.response_format
    if wanted is not None and wanted.json_schema is not None:
        value = make_instance(wanted.json_schema.schema or {}, " ".join(question.split()[:8]) or "text")
    else:
        value = {"answer": write_reply(question, digest, directive.words), "ok": True}
    text = _encode(value).decode()
    return _text_choice(text[: len(text) // 2 + 1] if directive.bad_json else text)


def _pick_tool(request: ChatRequest, question: str) -> Tool | None:
    """The forced tool; any for `required`; for `auto` only one that the question names."""
    tools = [tool for tool in request.tools or () if tool.function is not None]
    choice = request.tool_choice
    if not tools or choice == "none":
        return None
    if isinstance(choice, NamedTool):
        wanted = choice.function.name if choice.function else None
        return next((tool for tool in tools if tool.function and tool.function.name == wanted), tools[0])
    if choice == "required":
        return tools[0]
    return next((tool for tool in tools if tool.function and tool.function.name in question), None)


def _tool_choice(tool: Tool, request: ChatRequest, digest: bytes, directive: Directive) -> Choice:
    function = tool.function
    name = function.name if function else ""
    schema = (function.parameters if function else None) or {"type": "object"}
    arguments = _encode(make_instance(schema)).decode()
    if directive.bad_tool:
        arguments = arguments[: len(arguments) // 2]
    calls = _encode(
        [
            {
                "id": f"call_{digest.hex()[:24]}",
                "type": "function",
                "function": {"name": name, "arguments": arguments},
            }
        ]
    )
    # A tool forced by name finishes with "stop"; only a free choice says "tool_calls".
    finish = "stop" if isinstance(request.tool_choice, NamedTool) else "tool_calls"
    return Choice(b"null", finish, len(arguments) + len(name), tool_calls=calls)


def _limit(choice: Choice, request: ChatRequest, reasoning: int) -> Choice:
    """Cuts an answer that would pass the token limit; reasoning is spent first, as at the real one."""
    limit = request.max_completion_tokens or request.max_tokens
    if limit is None or count_tokens(choice.characters) + reasoning <= limit:
        return choice
    room = max(limit - reasoning, 0) * CHARACTERS_PER_TOKEN
    if choice.content == b"null":
        return Choice(
            choice.content, "length", min(room, choice.characters), choice.tool_calls, choice.refusal
        )
    text = msgspec.json.decode(choice.content, type=str)[:room]
    return Choice(_encode(text), "length", len(text))


def _choice_wire(index: int, choice: Choice, finish: str | None) -> bytes:
    calls = b',"tool_calls":' + choice.tool_calls if choice.tool_calls else b""
    return (
        b'{"index":%d,"message":{"role":"assistant","content":%b%b,"refusal":%b,"annotations":[]},'
        b'"logprobs":null,"finish_reason":%b}'
        % (index, choice.content, calls, choice.refusal, _encode(finish or choice.finish))
    )
