"""Every rule a Messages request has to keep, in the order in which the API looks."""

import re
from collections.abc import Collection

import msgspec

from floopy_simulator.anthropic.conversation import check_conversation
from floopy_simulator.anthropic.errors import invalid
from floopy_simulator.anthropic.message_request import MessageRequest, decode_request
from floopy_simulator.anthropic.model_rules import NEWEST_VERSION, check_model_rules
from floopy_simulator.anthropic.models import Model, require_model
from floopy_simulator.anthropic.output_schema import check_output_schema
from floopy_simulator.anthropic.problems import to_api_error
from floopy_simulator.anthropic.prompt import Prompt, read_prompt
from floopy_simulator.anthropic.tool_rules import check_tools

EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
PHONE = re.compile(r"\+[0-9][0-9 ()./-]{6,}[0-9]")
OLD_FORMAT_BETA = "structured-outputs-2025-11-13"


class Rules(msgspec.Struct, frozen=True):
    """What was said around the request: headers, and whether it stands in a batch."""

    version: str
    betas: tuple[str, ...]
    models: tuple[str, ...]
    batch: bool


class Understood(msgspec.Struct, frozen=True):
    """A request that keeps every rule."""

    request: MessageRequest
    model: Model
    prompt: Prompt


def read_request(body: bytes, rules: Rules) -> Understood:
    """Raises ApiError as the endpoint refuses."""
    try:
        request = decode_request(body)
    except msgspec.DecodeError as error:
        raise to_api_error(error, body) from error
    model = require_model(request.model, rules.models)
    _check_surroundings(request, rules.betas, batch=rules.batch)
    check_model_rules(request, model, version=rules.version, betas=rules.betas, batch=rules.batch)
    check_tools(request)
    check_conversation(request, model, strict_documents=rules.version == NEWEST_VERSION)
    if request.format is not None:
        check_output_schema(request.format.schema, "output_config.format.schema")
    return Understood(request, model, read_prompt(request, model))


def _check_surroundings(request: MessageRequest, betas: Collection[str], *, batch: bool) -> None:
    if request.stream:
        where = "in a message batch" if batch else "by this simulator"
        raise invalid(f"stream: streaming is not supported {where}.")
    if request.speed is not None and batch:
        raise invalid("speed: Extra inputs are not permitted")
    if request.output_format is not None and OLD_FORMAT_BETA not in betas:
        raise invalid("output_format: Extra inputs are not permitted")
    for sequence in request.stop_sequences:
        if not sequence.strip():
            raise invalid("stop_sequences: each stop sequence must contain non-whitespace")
    user_id = request.metadata.user_id
    if user_id is not None and (EMAIL.fullmatch(user_id) or PHONE.fullmatch(user_id)):
        raise invalid("metadata.user_id: user_id appears to contain an email address or phone number")
