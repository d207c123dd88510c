"""Executes a stretch of a batch's lines and appends what they produced to its files."""

import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import msgspec

from floopy_simulator.directives import Directive
from floopy_simulator.openai.answers import Answer, answer
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
FOREIGN_ID = "unknown-{}"


class InputLine(msgspec.Struct):
    custom_id: msgspec.Raw
    body: msgspec.Raw


_decode_line = msgspec.json.Decoder(InputLine).decode


class Paths(msgspec.Struct, frozen=True):
    input: Path
    output: Path
    error: Path
    ledger: Path


def count_executions(known: dict[str, int]) -> tuple[Callable[[str], int], dict[str, int]]:
    """A counter over `known`, and the totals it changed, which the caller stores with what they led to."""
    fresh: dict[str, int] = {}

    def executed(body_sha: str) -> int:
        before = known.get(body_sha, 0)
        known[body_sha] = fresh[body_sha] = before + 1
        return before

    return executed, fresh


class Appender:
    """Writes at the recorded end of a file, so what a killed run had left behind it is overwritten."""

    def __init__(self, path: Path, end: int) -> None:
        self._fd = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
        os.ftruncate(self._fd, end)
        self.end = end
        self._parts: list[bytes] = []

    def add(self, line: bytes) -> None:
        self._parts.append(line)

    def flush(self) -> None:
        block = memoryview(b"".join(self._parts))
        self._parts.clear()
        while block:
            written = os.pwrite(self._fd, block, self.end)
            self.end += written
            block = block[written:]

    def close(self) -> None:
        os.close(self._fd)


class Execution:
    """One batch's lines; runs in a worker thread and touches nothing but its own files."""

    def __init__(self, *, batch_id: str, endpoint: str, created: int, plan: Plan, paths: Paths) -> None:
        self._batch_id = batch_id
        self._prefix = batch_id.encode()
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
        writers = self._open(totals)
        source = os.open(self._paths.input, os.O_RDONLY)
        try:
            for place in range(totals.done, until):
                self._execute(self._read(source, place), place, after, executed, writers)
                if place % FLUSH_LINES == 0:
                    self._flush(writers)
            self._flush(writers)
        finally:
            os.close(source)
            for writer in writers:
                writer.close()
        after.done = max(totals.done, until)
        after.output_bytes, after.error_bytes, after.ledger_bytes = (writer.end for writer in writers)
        return after, fresh

    def abandon(self, totals: Totals, code: str) -> Totals:
        """Writes the lines that were never executed to the error file and counts them as failed."""
        after = msgspec.structs.replace(totals)
        writers = self._open(totals)
        error = msgspec.json.encode({"code": code, "message": UNEXECUTED[code]})
        source = os.open(self._paths.input, os.O_RDONLY)
        try:
            for place in range(totals.done, self._plan.total):
                custom_id = bytes(_decode_line(self._read(source, place)).custom_id)
                writers[1].add(
                    b'{"id":"batch_req_%b","custom_id":%b,"response":null,"error":%b}\n'
                    % (self._request_id(place), custom_id, error)
                )
                if place % FLUSH_LINES == 0:
                    self._flush(writers)
            self._flush(writers)
        finally:
            os.close(source)
            for writer in writers:
                writer.close()
        after.failed += self._plan.total - totals.done
        after.error_bytes = writers[1].end
        return after

    def _open(self, totals: Totals) -> tuple[Appender, Appender, Appender]:
        return (
            Appender(self._paths.output, totals.output_bytes),
            Appender(self._paths.error, totals.error_bytes),
            Appender(self._paths.ledger, totals.ledger_bytes),
        )

    @staticmethod
    def _flush(writers: tuple[Appender, ...]) -> None:
        for writer in writers:
            writer.flush()

    def _read(self, source: int, place: int) -> bytes:
        index = self._plan.order[place]
        return os.pread(source, self._plan.lengths[index], self._plan.offsets[index])

    def _request_id(self, place: int) -> bytes:
        return sha256(b"%b:%d" % (self._prefix, self._plan.order[place])).hexdigest()[:32].encode()

    def _execute(
        self,
        raw: bytes,
        place: int,
        after: Totals,
        executed: Callable[[str], int],
        writers: tuple[Appender, Appender, Appender],
    ) -> None:
        line = _decode_line(raw)
        custom_id = bytes(line.custom_id)
        answered = answer(self._endpoint, bytes(line.body), created=self._created, executed=executed)
        request_id = self._request_id(place)
        wire = _line_wire(request_id, custom_id, answered)
        output, error, ledger = writers
        directive = answered.directive
        usage = answered.usage
        if directive is not None and directive.error is not None:
            failed = True
            usage = None
            wire = _error_wire(request_id, custom_id, directive.error)
        else:
            failed = answered.status >= 400
        target, other = (error, output) if failed else (output, error)
        if directive is None or not directive.shapes_the_file:
            target.add(wire)
        else:
            _add_scripted(directive, wire, target, other)
        after.failed += failed
        after.completed += not failed
        if usage is not None:
            after.prompt += usage.prompt
            after.cached += usage.cached
            after.completion += usage.completion
            after.reasoning += usage.reasoning
        ledger.add(
            b'{"batch":"%b","custom_id":%b,"body_sha":"%b","status_code":%d,"usage":%b}\n'
            % (
                self._prefix,
                custom_id,
                answered.body_sha.encode(),
                answered.status,
                b"null" if usage is None else usage.chat_wire,
            )
        )


def _refuse(_: object) -> tuple[bytes, None]:
    raise plain_error(400)


def _line_wire(request_id: bytes, custom_id: bytes, answered: Answer) -> bytes:
    return (
        b'{"id":"batch_req_%b","custom_id":%b,"response":{"status_code":%d,"request_id":"%b","body":%b},'
        b'"error":null}\n' % (request_id, custom_id, answered.status, request_id[::-1], answered.body)
    )


def _error_wire(request_id: bytes, custom_id: bytes, code: str) -> bytes:
    error = msgspec.json.encode({"code": code, "message": UNEXECUTED.get(code, code)})
    return b'{"id":"batch_req_%b","custom_id":%b,"response":null,"error":%b}\n' % (
        request_id,
        custom_id,
        error,
    )


def _add_scripted(directive: Directive, wire: bytes, target: Appender, other: Appender) -> None:
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
