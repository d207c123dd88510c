"""Executes a stretch of a batch's requests and appends what they produced to its results."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import msgspec

from floopy_simulator.anthropic.answers import Answer, answer
from floopy_simulator.anthropic.batch_input import Plan
from floopy_simulator.anthropic.batches import Totals
from floopy_simulator.anthropic.errors import plain_error
from floopy_simulator.anthropic.request_rules import Rules
from floopy_simulator.appending import Appender
from floopy_simulator.directives import Directive
from floopy_simulator.executions import count_executions

FLUSH_LINES = 512
"""Lines are written in groups of this many: few system calls, little memory."""
SPREAD = 0x9E3779B97F4A7C15F39CC0605CEDC835
LAST_96_BITS = (1 << 96) - 1


class Paths(msgspec.Struct, frozen=True):
    input: Path
    results: Path
    ledger: Path


class Writers(msgspec.Struct, frozen=True):
    results: Appender
    ledger: Appender


class Execution:
    """One batch's requests; runs in a worker thread and touches nothing but its own files."""

    def __init__(self, *, batch_id: str, rules: Rules, plan: Plan, paths: Paths) -> None:
        self._batch_id = batch_id.encode()
        self._origin = int.from_bytes(sha256(self._batch_id).digest()[:12])
        self._rules = rules
        self._plan = plan
        self._paths = paths

    def run(self, totals: Totals, until: int, known: dict[str, int]) -> tuple[Totals, dict[str, int]]:
        """Executes up to request `until` of the order; returns the new totals and execution counts.

        `totals` stays as it was: nothing counts until the caller has stored what is returned.
        """
        executed, fresh = count_executions(known)
        after = msgspec.structs.replace(totals)
        with self._writers(totals) as writers:
            for place, index, params in self._requests(totals.done, until):
                answered = answer(params, self._rules, executed)
                self._write(index, answered, writers)
                after.count(answered.kind)
                if place % FLUSH_LINES == 0:
                    writers.results.flush()
                    writers.ledger.flush()
        after.done = max(totals.done, until)
        after.results_bytes = writers.results.end
        after.ledger_bytes = writers.ledger.end
        return after, fresh

    def abandon(self, totals: Totals, kind: str) -> Totals:
        """Ends the requests that were never executed as `canceled` or `expired`."""
        after = msgspec.structs.replace(totals)
        with self._writers(totals) as writers:
            for place in range(totals.done, self._plan.total):
                custom_id = self._plan.ids[self._plan.order[place]]
                writers.results.add(_line(custom_id, b'{"type":"%b"}' % kind.encode()))
                if place % FLUSH_LINES == 0:
                    writers.results.flush()
        after.count(kind, self._plan.total - totals.done)
        after.results_bytes = writers.results.end
        return after

    @contextmanager
    def _writers(self, totals: Totals) -> Iterator[Writers]:
        results = Appender(self._paths.results, totals.results_bytes)
        ledger = Appender(self._paths.ledger, totals.ledger_bytes)
        try:
            yield Writers(results, ledger)
            results.flush()
            ledger.flush()
        finally:
            results.close()
            ledger.close()

    def _requests(self, start: int, stop: int) -> Iterator[tuple[int, int, bytes]]:
        """Place in the order, index in the input and parameters of each request."""
        plan = self._plan
        source = os.open(self._paths.input, os.O_RDONLY)
        try:
            for place in range(start, stop):
                index = plan.order[place]
                yield place, index, os.pread(source, plan.lengths[index], plan.offsets[index])
        finally:
            os.close(source)

    def _request_id(self, index: int) -> str:
        """The same for the same request of the same batch; an odd factor spreads it, hashing is slower."""
        return f"req_01{self._origin + index * SPREAD & LAST_96_BITS:024x}"

    def _write(self, index: int, answered: Answer, writers: Writers) -> None:
        custom_id = self._plan.ids[index]
        wire = _line(custom_id, self._result(index, answered))
        if answered.directive is None:
            writers.results.add(wire)
        else:
            self._write_scripted(answered.directive, index, wire, writers.results)
        writers.ledger.add(
            b'{"batch":"%b","custom_id":"%b","body_sha":"%b","status_code":%d,"usage":%b}\n'
            % (
                self._batch_id,
                custom_id,
                answered.body_sha.encode(),
                answered.status,
                b"null" if answered.usage is None else answered.usage.wire,
            )
        )

    def _result(self, index: int, answered: Answer) -> bytes:
        if answered.message is not None:
            return b'{"type":"succeeded","message":%b}' % answered.message
        if answered.error is not None:
            return b'{"type":"errored","error":%b}' % answered.error.body(self._request_id(index))
        return b'{"type":"%b"}' % answered.kind.encode()

    def _write_scripted(self, directive: Directive, index: int, wire: bytes, results: Appender) -> None:
        if directive.garbled:
            results.add(wire.replace(b'"custom_id":', b'"custom_id"', 1))
        elif directive.truncate:
            results.add(wire[: len(wire) // 2] + b"\n")
        elif not directive.missing:
            results.add(wire)
        if directive.duplicate is not None:
            same = directive.duplicate == "same"
            results.add(wire if same else wire.replace(b'"id":"msg_01', b'"id":"msg_again_01', 1))
        if directive.both:
            error = plain_error(500).body(self._request_id(index))
            results.add(_line(self._plan.ids[index], b'{"type":"errored","error":%b}' % error))
        if directive.unknown:
            foreign = b"unknown-" + self._request_id(index)[-8:].encode()
            results.add(wire.replace(self._plan.ids[index], foreign, 1))


def _line(custom_id: bytes, result: bytes) -> bytes:
    return b'{"custom_id":"%b","result":%b}\n' % (custom_id, result)
