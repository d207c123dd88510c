"""Validation: every line of the input is read once, and each is either a request or a fault.

`LineCheck` reads a good line on a short path; whatever is unusual goes through `_judge`, which decides alone
and in a fixed order: JSON, the four fields, their types, custom_id, method, url, then the body. A line gets
one fault, the first.
"""

import re
from collections.abc import Iterator
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from floopy_common.openai.jsonl import Block
from floopy_submitter.core import faults
from floopy_submitter.core.faults import MAX_FAULTS, Fault

MAX_DEPTH = 128
"""Objects and arrays inside each other. Decoders of this product's later steps give up at about 1,000, the
deeper their own stack the sooner; a request needs 20."""
MAX_CUSTOM_ID = 512
MAX_MODEL = 256
MAX_MODELS = 100
"""Different ones in a batch whose provider takes any: each has shards and a price of its own."""

_DIGEST = 15
"""Bytes kept of a custom_id: 120 bits never collide by chance, and 16 would cost another 16 in memory."""
_FIELDS = ("custom_id", "method", "url", "body")
_REQUIRED = {"/v1/chat/completions": "messages", "/v1/moderations": "input"}
_EMBEDDINGS = "/v1/embeddings"
_NOT_STREAMING = (b"", b"false")
_TRUE = b"true"


class Request(NamedTuple):
    """A line that may run: where it is (without BOM and line end), its model's group, its body's length.

    `inputs` is how many texts it wants embedded; 1 for anything else.
    """

    line_no: int
    offset: int
    length: int
    group: int
    body_length: int
    inputs: int


class _Line(msgspec.Struct, gc=False):
    custom_id: str
    method: str
    url: str
    body: msgspec.Raw


class _Body(msgspec.Struct, gc=False):
    model: str
    stream: msgspec.Raw = msgspec.Raw()
    messages: msgspec.Raw = msgspec.Raw()
    input: msgspec.Raw = msgspec.Raw()


class _Refused(Exception):  # noqa: N818 - a way out of a judgement, not an error of the program
    def __init__(self, fault: Fault) -> None:
        self.fault = fault


_decode_line = msgspec.json.Decoder(_Line).decode
_decode_body = msgspec.json.Decoder(_Body).decode
_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_string = msgspec.json.Decoder(str).decode
_decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_STRUCTURE = b'"[]{}'
_REST = bytes(set(range(256)) - set(_STRUCTURE))
_TOKENS = re.compile(rb'"[^"]*(?:"|\Z)|[\[{]+|[\]}]+')
"""Strings as a whole, also one that never ends: no byte is looked at twice, whatever the line holds."""


class LineCheck:
    """Remembers what one batch's lines must agree on; a hundred bytes a line."""

    def __init__(self, endpoint: str, *, mixed_models: bool = False) -> None:
        self.faults: list[Fault] = []
        self.models: dict[str, int] = {}
        """The group of each model, in order of appearance."""
        self._endpoint = endpoint
        self._required = _REQUIRED.get(endpoint)
        self._mixed = mixed_models
        self._seen: set[bytes] = set()

    @property
    def is_hopeless(self) -> bool:
        """Enough faults for a report."""
        return len(self.faults) >= MAX_FAULTS

    def check(self, block: Block) -> Iterator[Request]:
        """The requests among the block's lines; faults are noted, blank lines only counted."""
        if block.oversized:
            self.faults.append(faults.invalid_json(block.first_line, "It is longer than 16 MiB."))
            return
        line_no, offset = block.first_line, block.offset
        for line in block.lines:
            if line:
                request = self._quick(line_no, offset, line) or self._careful(line_no, offset, line)
                if request is not None:
                    yield request
                elif self.is_hopeless:
                    return
            line_no += 1
            offset += len(line) + 1

    def _quick(self, line_no: int, offset: int, line: bytes) -> Request | None:
        """The request, where everything about the line is as usual."""
        try:
            if not line.isascii():
                line.decode()
            request = _decode_line(line)
            body = _decode_body(request.body)
        except _UNREADABLE:
            return None
        custom_id, model = request.custom_id, body.model
        group = self.models.get(model)
        if (
            group is None
            or not 0 < len(custom_id) <= MAX_CUSTOM_ID
            or request.method != "POST"
            or request.url != self._endpoint
            or bytes(body.stream) not in _NOT_STREAMING
            or self._lacks(body)
            or line.count(b"[") + line.count(b"{") > MAX_DEPTH
        ):
            return None
        digest = _digest(custom_id)
        if digest in self._seen:
            return None
        self._seen.add(digest)
        inputs = _inputs(body.input) if self._endpoint == _EMBEDDINGS else 1
        return Request(line_no, offset, _length(line), group, len(request.body), inputs)

    def _lacks(self, body: _Body) -> bool:
        """A field this endpoint cannot do without may be missing; null is left to the careful path."""
        if self._required is None:
            return False
        return len(body.messages if self._required == "messages" else body.input) <= len(b"null")

    def _careful(self, line_no: int, offset: int, line: bytes) -> Request | None:
        if line.isspace():
            return None
        try:
            model, body = self._judge(line_no, line)
        except _Refused as refused:
            self.faults.append(refused.fault)
            return None
        group = self.models.setdefault(model, len(self.models))
        inputs = 1
        if self._endpoint == _EMBEDDINGS:
            inputs = _inputs(_decode_object(body).get("input", msgspec.Raw()))
        return Request(line_no, offset, _length(line), group, len(body), inputs)

    def _judge(self, line_no: int, line: bytes) -> tuple[str, msgspec.Raw]:
        """Model and body of the request; _Refused says what is wrong with it."""
        fields = _fields(line_no, line)
        for name in _FIELDS:
            if name not in fields:
                raise _Refused(faults.missing(line_no, name))
        custom_id, method, url = (_string(line_no, name, fields[name]) for name in _FIELDS[:3])
        body = _object(line_no, fields["body"])
        self._judge_custom_id(line_no, custom_id)
        if method != "POST":
            raise _Refused(faults.invalid_method(line_no, method))
        if url != self._endpoint:
            raise _Refused(faults.invalid_url(line_no))
        return self._judge_body(line_no, body), fields["body"]

    def _judge_custom_id(self, line_no: int, custom_id: str) -> None:
        if not 0 < len(custom_id) <= MAX_CUSTOM_ID:
            raise _Refused(faults.wrong_length(line_no, "custom_id", 1, MAX_CUSTOM_ID))
        digest = _digest(custom_id)
        if digest in self._seen:
            raise _Refused(faults.duplicate(line_no, custom_id))
        # a line that is refused for another reason still has its name
        self._seen.add(digest)

    def _judge_body(self, line_no: int, body: dict[str, msgspec.Raw]) -> str:
        if _is_null(body.get("model")):
            raise _Refused(faults.required(line_no, "model"))
        model = _string(line_no, "body.model", body["model"])
        if not 0 < len(model) <= MAX_MODEL:
            raise _Refused(faults.wrong_length(line_no, "body.model", 1, MAX_MODEL))
        if self._required is not None and _is_null(body.get(self._required)):
            raise _Refused(faults.required(line_no, self._required))
        if bytes(body.get("stream", b"")) == _TRUE:
            raise _Refused(faults.streaming(line_no, self._endpoint))
        if self.models and model not in self.models:
            self._judge_new_model(line_no, model)
        return model

    def _judge_new_model(self, line_no: int, model: str) -> None:
        if not self._mixed:
            raise _Refused(faults.mismatched_model(line_no, model))
        if len(self.models) >= MAX_MODELS:
            raise _Refused(faults.too_many_models(line_no, MAX_MODELS))


def _fields(line_no: int, line: bytes) -> dict[str, msgspec.Raw]:
    """The line as an object; the last of equal keys counts."""
    try:
        line.decode()
    except UnicodeDecodeError:
        raise _Refused(faults.invalid_json(line_no, "It is not UTF-8.")) from None
    if line.count(b"[") + line.count(b"{") > MAX_DEPTH and _depth(line) > MAX_DEPTH:
        raise _Refused(faults.invalid_json(line_no, f"It is nested deeper than {MAX_DEPTH} levels."))
    try:
        return _decode_object(line)
    except msgspec.ValidationError:
        raise _Refused(faults.invalid_json(line_no, "It is not a JSON object.")) from None
    except (msgspec.DecodeError, RecursionError):
        raise _Refused(faults.invalid_json(line_no)) from None


def _string(line_no: int, param: str, raw: msgspec.Raw) -> str:
    try:
        return _decode_string(raw)
    except msgspec.DecodeError:
        raise _Refused(faults.wrong_type(line_no, param, "a string")) from None


def _object(line_no: int, raw: msgspec.Raw) -> dict[str, msgspec.Raw]:
    try:
        return _decode_object(raw)
    except msgspec.DecodeError:
        raise _Refused(faults.wrong_type(line_no, "body", "an object")) from None


def _is_null(raw: msgspec.Raw | None) -> bool:
    return raw is None or bytes(raw) == b"null"


def _inputs(raw: msgspec.Raw) -> int:
    """How many texts an embeddings request holds: an array of numbers is one text already cut into tokens."""
    try:
        items = _decode_array(raw)
    except msgspec.DecodeError:
        return 1
    first = bytes(items[0])[:1] if items else b""
    return len(items) if first in {b'"', b"["} else 1


def _digest(custom_id: str) -> bytes:
    return blake2b(custom_id.encode(), digest_size=_DIGEST).digest()


def _length(line: bytes) -> int:
    """Without the carriage return of files from elsewhere."""
    return len(line) - line.endswith(b"\r")


def _depth(line: bytes) -> int:
    """How deep objects and arrays lie inside each other; brackets in strings do not count."""
    bare = line.replace(b"\\\\", b"").replace(b'\\"', b"").translate(None, _REST)
    depth = deepest = 0
    for token in _TOKENS.finditer(bare):
        start, end = token.span()
        if bare[start] in b"[{":
            depth += end - start
            deepest = max(deepest, depth)
        elif bare[start] in b"]}":
            depth -= end - start
    return deepest
