"""Messages requests, piece by piece, and what the simulator's rules say to them."""

import base64
import json

import pytest

from floopy_simulator.anthropic.errors import ApiError
from floopy_simulator.anthropic.request_rules import Rules, read_request
from floopy_simulator.config import DEFAULT_ANTHROPIC_MODELS

OLD, NEW = "2023-06-01", "2026-10-21"
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n0000").decode()
JPEG = base64.b64encode(b"\xff\xd8\xff0000").decode()
PDF = base64.b64encode(b"%PDF-1.7").decode()
TOOL = {"name": "look", "input_schema": {"type": "object", "properties": {"what": {"type": "string"}}}}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"what": "up"}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "blue"}
CACHE = {"type": "ephemeral"}
CLOSED = {"type": "object", "additionalProperties": False}


def user(content="hi"):
    return {"role": "user", "content": content}


def assistant(content="hello"):
    return {"role": "assistant", "content": content}


def system(content="be brief"):
    return {"role": "system", "content": content}


def image(**source):
    return user([{"type": "image", "source": source}])


def document(**source):
    return user([{"type": "document", "source": source}])


def shape(**properties):
    return {"output_config": {"format": {"type": "json_schema", "schema": {**CLOSED, **properties}}}}


def one(schema):
    return shape(properties={"a": schema})


def check(body, version=OLD, betas=(), *, batch=True):
    whole = {"model": "claude-opus-4-8", "max_tokens": 4096, "messages": [user()], **body}
    whole = {name: value for name, value in whole.items() if value is not ...}
    rules = Rules(version, tuple(betas), DEFAULT_ANTHROPIC_MODELS, batch)
    return read_request(json.dumps(whole).encode(), rules)


def refusal(body, version=OLD, betas=(), *, batch=True):
    with pytest.raises(ApiError) as refused:
        check(body, version, betas, batch=batch)
    return refused.value
