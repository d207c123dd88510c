"""CloudEvents 1.0 in structured mode: the value alone says everything."""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

import msgspec

CONTENT_TYPE = "application/cloudevents+json"
SPEC_VERSION: Final = "1.0"
DATA_VERSION: Final = 1
"""Major version of every event's data; a new major is a new topic."""


class Envelope(msgspec.Struct, frozen=True):
    """The attributes of a received event; `data` stays raw until its type is known."""

    id: str
    type: str
    source: str
    subject: str
    time: str
    data: msgspec.Raw
    specversion: str = SPEC_VERSION
    dataversion: int = DATA_VERSION


class _Sent(msgspec.Struct, frozen=True, gc=False):
    """An event on its way out. Not a dict, because there are several of these for every line."""

    specversion: str
    id: str
    type: str
    source: str
    subject: str
    time: str
    datacontenttype: str
    dataversion: int
    data: object


_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(Envelope)


@lru_cache(maxsize=1024)
def rfc3339(moment: datetime) -> str:
    """UTC with milliseconds, as CloudEvents' `time` wants it."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def encode(*, id: str, type: str, source: str, subject: str, time: datetime, data: object) -> bytes:
    """The event's bytes; the same arguments give the same bytes."""
    content = "application/json"
    return _encode(_Sent(SPEC_VERSION, id, type, source, subject, rfc3339(time), content, DATA_VERSION, data))


def decode(value: bytes) -> Envelope:
    """Raises msgspec.ValidationError or msgspec.DecodeError for anything but a CloudEvent of ours."""
    return _decoder.decode(value)
