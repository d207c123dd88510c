"""From the body of a chat completions line to the params of a Message Batches request: pure, no I/O."""

import hashlib
from typing import Any, Literal, get_type_hints

import msgspec
from msgspec import Raw

from floopy_common.providers.anthropic import reading, refusal
from floopy_common.providers.anthropic.caching import mark_prefix, prefix_key
from floopy_common.providers.anthropic.capabilities import Capabilities
from floopy_common.providers.anthropic.chat import (
    AllowedChoice,
    CustomChoice,
    CustomTool,
    Function,
    FunctionTool,
    Message,
    Named,
    NamedChoice,
    ResponseFormat,
)
from floopy_common.providers.anthropic.content import Blocks
from floopy_common.providers.anthropic.messages import Conversation, convert
from floopy_common.providers.anthropic.parameters import select
from floopy_common.providers.anthropic.plain import translate_plain
from floopy_common.providers.anthropic.policy import Context, Judge
from floopy_common.providers.anthropic.refusal import LineRefused, Refused
from floopy_common.providers.anthropic.sampling import (
    Thought,
    max_tokens,
    sampling,
    stop_sequences,
    thought,
)
from floopy_common.providers.anthropic.schema import Allowance, transform
from floopy_common.providers.anthropic.tools import Asked, Toolbox, toolbox
from floopy_common.providers.anthropic.wire import (
    Metadata,
    OutputConfig,
    OutputFormat,
    Params,
    TextBlock,
)

TRANSLATOR_VERSION = 1
"""Pinned in a batch's plan; a change of the bytes that the same line gives raises it."""
JSON_INSTRUCTION = "Respond with a single JSON object and nothing else: no explanation, no code fence."

BATCH_HEAD = b'{"requests":['
BATCH_TAIL = b"]}"


class Translated(msgspec.Struct, frozen=True, gc=False):
    """`params` is the request as JSON; `notes` say what the operator's policy left out of it."""

    params: bytes
    notes: tuple[str, ...] = ()


class Request(msgspec.Struct, kw_only=True, gc=False):
    """The parameters that are translated, in the types they must have."""

    model: str
    messages: list[Message]
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: str | list[str] | None = None
    tools: list[FunctionTool | CustomTool] | None = None
    tool_choice: Literal["auto", "none", "required"] | NamedChoice | CustomChoice | AllowedChoice | None = (
        None
    )
    parallel_tool_calls: bool | None = None
    functions: list[Function] | None = None
    function_call: Literal["auto", "none"] | Named | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    user: str | None = None
    safety_identifier: str | None = None


_DECODERS: dict[str, msgspec.json.Decoder[Any]] = {
    name: msgspec.json.Decoder(kind) for name, kind in get_type_hints(Request).items()
}
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
_encode = msgspec.json.Encoder().encode


def translate(body: bytes | Raw, context: Context) -> Translated | Refused:
    """The same body and context give the same bytes; nothing is raised whatever the body is."""
    try:
        plain = translate_plain(body, context)
        return _Translation(context).run(body) if plain is None else Translated(*plain)
    except LineRefused as refused:
        return refused.refused
    except (RecursionError, UnicodeError):
        return refusal.not_json("it is nested too deeply or no valid Unicode.").refused


def upstream_element(nonce: str, line_no: int, params: bytes) -> bytes:
    """One element of `requests`; its custom_id is ours, since Anthropic takes few of the user's."""
    return b'{"custom_id":"%b-%d","params":%b}' % (nonce.encode(), line_no, params)


def file_ids_of(body: bytes | Raw) -> list[str]:
    """Files the messages refer to by id, each once, in order."""
    raw = bytes(body)
    # one byte is looked for ten times as fast as two, and most texts have no escapes at all
    if b"file_id" not in raw and (b"\\" not in raw or b"\\u" not in raw):
        return []
    try:
        asked = reading.load_exact(raw)
    except reading.UNREADABLE:
        return []
    found = [
        _file_id(part) for message in _list_in(asked, "messages") for part in _list_in(message, "content")
    ]
    return list(dict.fromkeys(file_id for file_id in found if isinstance(file_id, str)))


def _list_in(value: Any, name: str) -> list[Any]:
    member = value.get(name) if isinstance(value, dict) else None
    return member if isinstance(member, list) else []


def _file_id(part: Any) -> Any:
    file = part.get("file") if isinstance(part, dict) else None
    return file.get("file_id") if isinstance(file, dict) else None


class _Translation:
    """One line, the long way."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._judge = Judge(context.policy)
        self._allowance = Allowance()

    def run(self, body: bytes | Raw) -> Translated:
        asked = self._read(body)
        model = self._context.model(asked.model)
        capabilities = model.capabilities
        blocks = Blocks(capabilities, self._context.files)
        conversation = convert(asked.messages, blocks, mid_system=capabilities.mid_system)
        limit = max_tokens(asked.max_completion_tokens, asked.max_tokens, capabilities)
        tools = self._tools(asked, conversation, capabilities)
        thinking = self._thought(asked, conversation, tools, capabilities, limit)
        sampled = sampling(
            asked.temperature,
            asked.top_p,
            free=self._context.policy.sampling(capabilities),
            thought=thinking,
            judge=self._judge,
        )
        output = self._output(asked.response_format, thinking, conversation, capabilities)
        sent, _ = stop_sequences(asked.stop)
        params = Params(
            model=model.id,
            max_tokens=limit,
            system=conversation.system or None,
            messages=conversation.turns,
            metadata=self._metadata(asked),
            stop_sequences=sent or None,
            temperature=sampled.temperature,
            top_p=sampled.top_p,
            thinking=thinking.thinking,
            output_config=output,
            tools=tools.tools,
            tool_choice=tools.choice,
        )
        if not blocks.finish() and self._shares_prefix(body):
            mark_prefix(params)
        return Translated(_encode(params), tuple(self._judge.notes))

    def _read(self, body: bytes | Raw) -> Request:
        raw = bytes(body)
        try:
            if not raw.isascii():
                raw.decode()
            members = _decode_members(raw)
        except msgspec.ValidationError:
            raise refusal.invalid_type(None, "expected the body to be an object") from None
        except reading.UNREADABLE as error:
            raise refusal.not_json("it is not JSON in UTF-8.") from error
        chosen = select(members, self._judge)
        for name in ("model", "messages"):
            if name not in chosen:
                raise refusal.missing(name)
        return Request(**{name: reading.read(name, raw, _DECODERS[name]) for name, raw in chosen.items()})

    def _tools(self, asked: Request, conversation: Conversation, capabilities: Capabilities) -> Toolbox:
        said = Asked(
            tools=asked.tools,
            tool_choice=asked.tool_choice,
            parallel=asked.parallel_tool_calls,
            functions=asked.functions,
            function_call=asked.function_call,
        )
        return toolbox(said, conversation.called, capabilities, self._allowance, self._judge)

    def _thought(
        self,
        asked: Request,
        conversation: Conversation,
        tools: Toolbox,
        capabilities: Capabilities,
        limit: int,
    ) -> Thought:
        """Thinking on a budget wants its own blocks in the history, and goes with no demanded call."""
        found = thought(asked.reasoning_effort, capabilities, limit, self._judge)
        if found.is_manual and (conversation.called or tools.is_forced):
            self._judge.note("reasoning_effort: no thinking, it does not go with these tool calls")
            return Thought(effort=found.effort)
        return found

    def _output(
        self,
        wanted: ResponseFormat | None,
        thinking: Thought,
        conversation: Conversation,
        capabilities: Capabilities,
    ) -> OutputConfig | None:
        output = OutputConfig(thinking.effort)
        if wanted is not None and wanted.type == "json_object":
            conversation.system.append(TextBlock(text=JSON_INSTRUCTION))
        elif wanted is not None and wanted.type == "json_schema":
            output.format = OutputFormat(self._schema(wanted, capabilities))
        return None if output.effort is None and output.format is None else output

    def _schema(self, wanted: ResponseFormat, capabilities: Capabilities) -> Raw:
        if wanted.json_schema is None:
            raise refusal.missing("response_format.json_schema")
        raw = bytes(wanted.json_schema.schema)
        param = "response_format.json_schema.schema"
        if raw in {b"", reading.NULL}:
            raise refusal.missing(param)
        if not capabilities.structured_outputs:
            why = "does not support 'json_schema' with this model."
            raise refusal.unsupported_value("response_format.type", why)
        return self._allowance.take(transform(raw, param), param)

    def _metadata(self, asked: Request) -> Metadata | None:
        """Who the end user is stays with us; who abuses the provider can still be told from others."""
        user = asked.safety_identifier or asked.user
        if not user:
            return None
        return Metadata(hashlib.sha256(self._context.salt + user.encode()).hexdigest())

    def _shares_prefix(self, body: bytes | Raw) -> bool:
        if not self._context.policy.auto_cache:
            return False
        key = prefix_key(body)
        return key is not None and key in self._context.shared_prefixes
