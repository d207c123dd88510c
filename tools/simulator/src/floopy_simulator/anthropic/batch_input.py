"""What a create brings in: its envelope is checked at once, its requests are kept for later.

They are kept in one file, each as a line with its custom_id and length, followed by the bytes of `params`.
"""

import os
import random
import re
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from floopy_simulator.anthropic.errors import ApiError, invalid, too_large
from floopy_simulator.anthropic.problems import NOT_JSON, to_api_error

MAX_ID = 64
ID_PATTERN = "^[a-zA-Z0-9_-]{1,64}$"
_is_id = re.compile(ID_PATTERN[1:-1]).fullmatch


class Request(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    custom_id: str
    params: msgspec.Raw


class Create(msgspec.Struct, forbid_unknown_fields=True):
    requests: list[Request]


class Head(msgspec.Struct, gc=False):
    model: Any = None  # whatever was sent; it is checked when the request is executed


_decode_head = msgspec.json.Decoder(Head).decode


class Envelope(msgspec.Struct, frozen=True):
    total: int
    model: str | None


@dataclass
class Plan:
    """Where each request lies in the input, and the order in which they will be executed."""

    ids: list[bytes]
    offsets: "array[int]"
    lengths: "array[int]"
    order: "array[int]"

    @property
    def total(self) -> int:
        return len(self.ids)


def take_in(body_path: Path, input_path: Path, most: int) -> Envelope:
    """Checks the envelope and writes the input; raises ApiError, which refuses the whole create."""
    body = body_path.read_bytes()
    try:
        requests = msgspec.json.decode(body, type=Create).requests
        if not body.isascii():
            body.decode()
    except msgspec.DecodeError as error:
        raise to_api_error(error, body) from error
    except UnicodeDecodeError as error:
        raise invalid(NOT_JSON.format(error)) from error
    if not requests:
        raise invalid("requests: List should have at least 1 item after validation, not 0")
    if len(requests) > most:
        raise too_large()
    _check(requests)
    partial = input_path.with_suffix(".part")
    with partial.open("wb", buffering=1 << 20) as lines:
        for request in requests:
            params = bytes(request.params)
            lines.write(b"%b %d\n%b\n" % (request.custom_id.encode(), len(params), params))
    os.replace(partial, input_path)
    return Envelope(len(requests), _first_model(requests))


def _check(requests: list[Request]) -> None:
    seen: dict[str, int] = {}
    for number, request in enumerate(requests):
        if not _is_id(request.custom_id):
            raise _bad_id(number, request.custom_id)
        first = seen.setdefault(request.custom_id, number)
        if first != number:
            raise invalid(
                f"requests.{number}.custom_id: custom_id must be unique within a batch, but "
                f"'{request.custom_id}' is also that of requests.{first}"
            )
        if bytes(request.params)[:1] != b"{":
            raise invalid(f"requests.{number}.params: Input should be an object")


def _bad_id(number: int, custom_id: str) -> ApiError:
    if not custom_id:
        problem = "String should have at least 1 character"
    elif len(custom_id) > MAX_ID:
        problem = f"String should have at most {MAX_ID} characters"
    else:
        problem = f"String should match pattern '{ID_PATTERN}'"
    return invalid(f"requests.{number}.custom_id: {problem}")


def _first_model(requests: list[Request]) -> str | None:
    """The model of the first request; the ledger shows it, and nothing is decided by it."""
    model = _decode_head(bytes(requests[0].params)).model
    return model if isinstance(model, str) else None


def read_plan(path: Path, shuffle_seed: str | None) -> Plan:
    """Made again after a restart: it is a pure function of the input and the seed."""
    plan = Plan([], array("Q"), array("Q"), array("I"))
    with path.open("rb", buffering=1 << 20) as lines:
        while head := lines.readline():
            custom_id, _, length = head.partition(b" ")
            plan.ids.append(custom_id)
            plan.offsets.append(lines.tell())
            plan.lengths.append(int(length))
            lines.seek(int(length) + 1, os.SEEK_CUR)
    plan.order = array("I", range(plan.total))
    if shuffle_seed is not None:
        random.Random(shuffle_seed).shuffle(plan.order)  # noqa: S311 - an order, not a secret
    return plan
