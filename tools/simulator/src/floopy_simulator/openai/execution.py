"""Executes a stretch of a batch's lines and appends what they produced to its files."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import msgspec

from floopy_simulator.appending import Appender
from floopy_simulator.directives import Directive
from floopy_simulator.executions import count_executions
from floopy_simulator.openai.answers import Answer, Asked, Usage, answer
from floopy_simulator.openai.batches import Totals
from floopy_simulator.openai.endpoints import ENDPOINTS
from floopy_simulator.openai.errors import plain_error
from floopy_simulator.openai.validation import Plan

FLUSH_LINES = 512
"""Lines are written in groups of this many: few system calls, little memory."""
UNEXECUTED = {
    "batch_expired": "This request could not be executed before the completion window expired.",
    "batch_cancelled": "This request was not executed because the batch was cancelled.",
}
SPREAD = 0x9E3779B97F4A7C15F39CC0605CEDC835
LAST_128_BITS = (1 << 128) - 1
FOREIGN_ID = "unknown-{}"


class InputLine(msgspec.Struct, gc=False):
    custom_id: msgspec.Raw
    body: msgspec.Raw


_decode_line = msgspec.json.Decoder(InputLine).decode


class Paths(msgspec.Struct, frozen=True):
    input: Path
    output: Path
    error: Path
    ledger: Path


class Writers(msgspec.Struct, frozen=True):
    output: Appender
    error: Appender
    ledger: Appender

    def flush(self) -> None:
        for writer in (self.output, self.error, self.ledger):
            writer.flush()

    def close(self) -> None:
        for writer in (self.output, self.error, self.ledger):
            writer.close()


class Execution:
    """One batch's lines; runs in a worker thread and touches nothing but its own files."""

    def __init__(self, *, batch_id: str, endpoint: str, created: int, plan: Plan, paths: Paths) -> None:
        self._batch_id = batch_id
        self._prefix = batch_id.encode()
        self._origin = int.from_bytes(sha256(self._prefix).digest()[:16])
        self._endpoint = ENDPOINTS.get(endpoint, _refuse)
        self._created = created
        self._plan = plan
        self._paths = paths

    def run(self, totals: Totals, until: int, known: dict[str, int]) -> tuple[Totals, dict[str, int]]:
        """Executes up to line `until` of the order; returns the new totals and execution counts.

        `totals` stays as it was: nothing counts until the caller has stored what is returned.
        """
        executed, fresh = count_executions(known)
        after = msgspec.structs.replace(totals)
        with self._writers(totals) as writers:
            for place, index, raw in self._lines(totals.done, until):
                line = _decode_line(raw)
                answered = answer(self._endpoint, bytes(line.body), created=self._created, executed=executed)
                failed = self._write(index, bytes(line.custom_id), answered, writers)
                after.failed += failed
                after.completed += not failed
                if answered.usage is not None:
                    _add_usage(after, answered.usage)
                if place % FLUSH_LINES == 0:
                    writers.flush()
        after.done = max(totals.done, until)
        after.output_bytes = writers.output.end
        after.error_bytes = writers.error.end
        after.ledger_bytes = writers.ledger.end
        return after, fresh

    def abandon(self, totals: Totals, code: str) -> Totals:
        """Writes the lines that were never executed to the error file and counts them as failed."""
        after = msgspec.structs.replace(totals)
        with self._writers(totals) as writers:
            for place, index, raw in self._lines(totals.done, self._plan.total):
                custom_id = bytes(_decode_line(raw).custom_id)
                writers.error.add(_error_wire(self._request_id(index), custom_id, code))
                if place % FLUSH_LINES == 0:
                    writers.flush()
        after.failed += self._plan.total - totals.done
        after.error_bytes = writers.error.end
        return after

    @contextmanager
    def _writers(self, totals: Totals) -> Iterator[Writers]:
        writers = Writers(
            Appender(self._paths.output, totals.output_bytes),
            Appender(self._paths.error, totals.error_bytes),
            Appender(self._paths.ledger, totals.ledger_bytes),
        )
        try:
            yield writers
            writers.flush()
        finally:
            writers.close()

    def _lines(self, start: int, stop: int) -> Iterator[tuple[int, int, bytes]]:
        """Place in the order, index in the input and bytes of each line."""
        offsets, lengths, order = self._plan.offsets, self._plan.lengths, self._plan.order
        source = os.open(self._paths.input, os.O_RDONLY)
        try:
            for place in range(start, stop):
                index = order[place]
                yield place, index, os.pread(source, lengths[index], offsets[index])
        finally:
            os.close(source)

    def _request_id(self, index: int) -> bytes:
        """The same for the same line of the same batch; an odd factor spreads it, hashing would be slower."""
        return b"%032x" % (self._origin + index * SPREAD & LAST_128_BITS)

    def _write(self, index: int, custom_id: bytes, answered: Answer, writers: Writers) -> bool:
        """Writes what a line led to; returns whether it failed."""
        request_id = self._request_id(index)
        directive, usage = answered.directive, answered.usage
        failed = answered.status != 200
        wire = (
            b'{"id":"batch_req_%b","custom_id":%b,"response":{"status_code":%d,"request_id":"%b","body":%b},'
            b'"error":null}\n' % (request_id, custom_id, answered.status, request_id[::-1], answered.body)
        )
        if directive is None:
            (writers.error if failed else writers.output).add(wire)
        else:
            _write_scripted(directive, failed, wire, writers)
        writers.ledger.add(
            b'{"batch":"%b","custom_id":%b,"body_sha":"%b","status_code":%d,"usage":%b}\n'
            % (
                self._prefix,
                custom_id,
                answered.body_sha.encode(),
                answered.status,
                b"null" if usage is None else usage.wire,
            )
        )
        return failed


def _add_usage(totals: Totals, usage: Usage) -> None:
    totals.prompt += usage.prompt
    totals.cached += usage.cached
    totals.completion += usage.completion
    totals.reasoning += usage.reasoning


def _refuse(_: Asked) -> tuple[bytes, Usage]:
    raise plain_error(400)


def _error_wire(request_id: bytes, custom_id: bytes, code: str) -> bytes:
    error = msgspec.json.encode({"code": code, "message": UNEXECUTED.get(code, code)})
    return b'{"id":"batch_req_%b","custom_id":%b,"response":null,"error":%b}\n' % (
        request_id,
        custom_id,
        error,
    )


def _write_scripted(directive: Directive, failed: bool, wire: bytes, writers: Writers) -> None:
    if directive.error is not None:
        line = msgspec.json.decode(wire)
        custom_id = msgspec.json.encode(line["custom_id"])
        wire = _error_wire(line["id"].removeprefix("batch_req_").encode(), custom_id, directive.error)
    target, other = (writers.error, writers.output) if failed else (writers.output, writers.error)
    if directive.garbled:
        target.add(wire.replace(b'"custom_id":', b'"custom_id"', 1))
    elif directive.truncate:
        target.add(wire[: len(wire) // 2] + b"\n")
    elif not directive.missing:
        target.add(wire)
    if directive.duplicate is not None:
        same = directive.duplicate == "same"
        target.add(wire if same else wire.replace(b'"id":"chatcmpl-', b'"id":"chatcmpl-again-', 1))
    if directive.both:
        other.add(wire)
    if directive.unknown:
        line = msgspec.json.decode(wire)
        line["custom_id"] = FOREIGN_ID.format(line["id"][-8:])
        target.add(msgspec.json.encode(line) + b"\n")
