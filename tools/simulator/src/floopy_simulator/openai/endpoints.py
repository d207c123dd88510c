"""The endpoints a batch may name, and the lesser of them: embeddings, completions, responses, moderations."""

import base64
import struct
from functools import lru_cache
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from floopy_simulator.openai.answers import Asked, Endpoint, Usage, make_usage
from floopy_simulator.openai.chat import complete_chat
from floopy_simulator.openai.errors import ApiError
from floopy_simulator.openai.models import is_reasoning, resolve, serves
from floopy_simulator.openai.problems import to_api_error
from floopy_simulator.text import count_tokens, write_reply

CHAT = "/v1/chat/completions"
BATCH_ENDPOINTS = (
    "/v1/responses",
    CHAT,
    "/v1/embeddings",
    "/v1/completions",
    "/v1/moderations",
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/videos",
)
REQUIRED = {
    CHAT: "messages",
    "/v1/embeddings": "input",
    "/v1/moderations": "input",
    "/v1/completions": "prompt",
}
"""Argument without which a line of that endpoint spoils its whole batch."""
VECTOR_POOL = 16
"""Embeddings are drawn from this many vectors: 1,536 new numbers would cost more than the rest of a line."""
_encode = msgspec.json.encode


class EmbeddingsRequest(msgspec.Struct, forbid_unknown_fields=True):
    model: str
    input: str | list[str | int | list[int]]
    dimensions: Annotated[int, Meta(ge=1, le=3072)] | None = None
    encoding_format: Literal["float", "base64"] = "float"
    user: str | None = None


class CompletionsRequest(msgspec.Struct):
    model: str
    prompt: str | list[str]
    max_tokens: Annotated[int, Meta(ge=0)] | None = None
    temperature: Annotated[float, Meta(ge=0.0, le=2.0)] | None = None


class ResponsesRequest(msgspec.Struct):
    model: str
    input: str | list[Any]
    instructions: str | None = None
    max_output_tokens: Annotated[int, Meta(ge=16)] | None = None
    metadata: dict[str, str] | None = None
    temperature: Annotated[float, Meta(ge=0.0, le=2.0)] | None = None


class ModerationsRequest(msgspec.Struct, forbid_unknown_fields=True):
    input: str | list[Any]
    model: str = "omni-moderation-latest"


Request = TypeVar("Request", EmbeddingsRequest, CompletionsRequest, ResponsesRequest, ModerationsRequest)


def _read(asked: Asked, kind: type[Request], endpoint: str) -> Request:
    try:
        request = msgspec.json.decode(asked.body, type=kind)
    except msgspec.DecodeError as error:
        raise to_api_error(error, asked.body, kind) from error
    if not serves(request.model, endpoint):
        message = f"The model `{request.model}` is not supported in the {endpoint.lstrip('/')} endpoint."
        raise ApiError(404, message, param="model")
    return request


@lru_cache(maxsize=256)
def _vector(number: int, dimensions: int, encoding: str) -> bytes:
    """A unit vector, as JSON."""
    size = dimensions**-0.5
    values = [size if (number * 31 + place * 17) % 5 < 3 else -size for place in range(dimensions)]
    if encoding == "base64":
        return _encode(base64.b64encode(struct.pack(f"<{dimensions}f", *values)).decode())
    return _encode(values)


def _embedding_inputs(given: str | list[str | int | list[int]]) -> list[str | list[int]]:
    """Token arrays count as one text; a list of texts or of token arrays as many."""
    if isinstance(given, str):
        return [given]
    tokens = [token for token in given if isinstance(token, int)]
    return [tokens] if tokens else [text for text in given if not isinstance(text, int)]


def embed(asked: Asked) -> tuple[bytes, Usage]:
    request = _read(asked, EmbeddingsRequest, "/v1/embeddings")
    inputs = _embedding_inputs(request.input)
    if not inputs or "" in inputs:
        raise ApiError(400, "'$.input' is invalid. Please check the API reference.")
    dimensions = request.dimensions or (3072 if request.model.endswith("large") else 1536)
    entries = [
        b'{"object":"embedding","index":%d,"embedding":%b}'
        % (index, _vector((asked.digest[0] + index) % VECTOR_POOL, dimensions, request.encoding_format))
        for index in range(len(inputs))
    ]
    tokens = sum(count_tokens(len(text)) if isinstance(text, str) else len(text) for text in inputs)
    wire = b'{"object":"list","data":[%b],"model":%b,"usage":{"prompt_tokens":%d,"total_tokens":%d}}'
    return wire % (b",".join(entries), _encode(request.model), tokens, tokens), make_usage(tokens, 0)


def complete_text(asked: Asked) -> tuple[bytes, Usage]:
    request = _read(asked, CompletionsRequest, "/v1/completions")
    prompts = [request.prompt] if isinstance(request.prompt, str) else request.prompt
    texts = [write_reply(prompt, asked.digest) for prompt in prompts]
    usage = make_usage(
        sum(count_tokens(len(text)) for text in prompts), sum(count_tokens(len(text)) for text in texts)
    )
    choices = [
        {"index": index, "text": text, "logprobs": None, "finish_reason": "stop"}
        for index, text in enumerate(texts)
    ]
    wire = {
        "id": f"cmpl-{asked.name[:29].decode()}",
        "object": "text_completion",
        "created": asked.created,
        "model": request.model,
        "choices": choices,
        "usage": msgspec.Raw(usage.wire),
    }
    return _encode(wire), usage


def respond(asked: Asked) -> tuple[bytes, Usage]:
    request = _read(asked, ResponsesRequest, "/v1/responses")
    question = request.input if isinstance(request.input, str) else _encode(request.input).decode()
    text = write_reply(question, asked.digest)
    reasoning = 64 * (1 + asked.digest[3] % 8) if is_reasoning(request.model) else 0
    prompt = count_tokens(len(question) + len(request.instructions or ""))
    usage = make_usage(prompt, count_tokens(len(text)) + reasoning, 0, reasoning)
    name = asked.name.decode()
    content = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    message = {
        "id": f"msg_{name}",
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": [content],
    }
    wire = {
        "id": f"resp_{name}",
        "object": "response",
        "created_at": asked.created,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "metadata": request.metadata or {},
        "model": resolve(request.model),
        "output": [message],
        "parallel_tool_calls": True,
        "temperature": request.temperature if request.temperature is not None else 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": {
            "input_tokens": usage.prompt,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": usage.completion,
            "output_tokens_details": {"reasoning_tokens": reasoning},
            "total_tokens": usage.prompt + usage.completion,
        },
    }
    return _encode(wire), usage


CATEGORIES = ("harassment", "hate", "illicit", "self-harm", "sexual", "violence")


def moderate(asked: Asked) -> tuple[bytes, Usage]:
    request = _read(asked, ModerationsRequest, "/v1/moderations")
    count = 1 if isinstance(request.input, str) else len(request.input)
    result = {
        "flagged": False,
        "categories": dict.fromkeys(CATEGORIES, False),
        "category_scores": dict.fromkeys(CATEGORIES, 0.0001),
        "category_applied_input_types": {name: ["text"] for name in CATEGORIES},
    }
    wire = {"id": f"modr-{asked.name[:32].decode()}", "model": request.model, "results": [result] * count}
    return _encode(wire), make_usage(0, 0)


ENDPOINTS: dict[str, Endpoint] = {
    CHAT: complete_chat,
    "/v1/embeddings": embed,
    "/v1/completions": complete_text,
    "/v1/responses": respond,
    "/v1/moderations": moderate,
}
