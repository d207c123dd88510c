"""Our own answers to lines that no provider is sent, stored and read like a provider's results."""

import msgspec

from floopy_common.domain.errors import Invalid
from floopy_common.domain.line import LineAnswer

PROVIDER = "floopy"
"""Stands where a shard that was never sent has to name whose results it holds."""


class _Row(msgspec.Struct, gc=False):
    status: int
    body: msgspec.Raw


_decode = msgspec.json.Decoder(_Row).decode


def unsent_row(status: int, body: bytes) -> bytes:
    """One line of the blob that holds them, newline included; `body` is JSON on one line."""
    return b'{"status":%d,"body":%b}\n' % (status, body)


class UnsentResults:
    """How those lines are read back."""

    def read_success(self, raw: bytes) -> str | None:
        """None: only a row that is read says what it is."""
        return None

    def read_key(self, raw: bytes) -> str | None:
        """They have none: an index says which line each belongs to."""
        return None

    def parse_result(self, raw: bytes) -> LineAnswer:
        """Raises Invalid when the row cannot be read."""
        try:
            row = _decode(raw)
        except msgspec.MsgspecError as error:
            raise Invalid(f"a refusal that cannot be read: {error}") from error
        return LineAnswer(status_code=row.status, request_id=None, body=bytes(row.body))

    def parse_answer(self, raw: bytes, asked: bytes, ended: int) -> tuple[LineAnswer, tuple[str, ...]]:
        """The same: nothing in it depends on a provider."""
        return self.parse_result(raw), ()
