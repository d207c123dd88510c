"""Segments made of bytes: an input, shards with their archived results, and what rendering needs of them."""

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from tempfile import TemporaryFile
from typing import Any

import pytest

from floopy_common.domain.index import (
    FLAG_OK,
    FLAG_OVERSIZED,
    FLAG_RETRYABLE,
    InputEntry,
    ResultEntry,
    pack_input,
    pack_result,
)
from floopy_common.domain.line import RETRYABLE_STATUS
from floopy_common.providers.formats import RESULT_FORMATS
from floopy_common.providers.openai.result import OpenAiResults
from floopy_reconciler.adapters.files import StoredFile
from floopy_reconciler.adapters.render_process import carry_out
from floopy_reconciler.adapters.renderer import in_memory, packed
from floopy_reconciler.core import jobs
from floopy_reconciler.core.jobs import Finished, Job, decode_reply, encode_job, encode_reply
from floopy_reconciler.core.line_events import facts_of
from floopy_reconciler.core.materials import NOTHING, format_of
from floopy_reconciler.core.render import PartIds, Tally, manifest_of
from floopy_reconciler.core.sources import sources_of
from floopy_reconciler.ports import Archived

CREATED = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
SUBMITTED = datetime(2026, 11, 24, 12, 5, tzinfo=UTC)
SETTLED = datetime(2026, 11, 24, 13, 0, 0, 250_000, tzinfo=UTC)
WRITTEN = datetime(2026, 11, 24, 13, 0, 1, tzinfo=UTC)
RATES = {"input_nano": 150_000_000, "cached_nano": 75_000_000, "output_nano": 600_000_000, "flag": None}


class Stored(bytes):
    """Bytes, read as a file is."""

    path = None

    def read(self, offset: int, length: int) -> bytes:
        found = self[offset : offset + length]
        assert len(found) == length
        return found


FORMATS = {**RESULT_FORMATS, "ours": OpenAiResults()}


@dataclass
class Shard:
    """One shard: raw result lines by line number; None is a line the provider says nothing of."""

    lines: list[int]
    results: dict[int, bytes | None]
    group: int = 0
    depth: int = 0
    ended: str = "finished"
    refused: dict[str, Any] | None = None
    oversized: frozenset[int] = frozenset()
    provider: str = "openai"
    written_by: str | None = None
    """The format of the archive where it is not the provider's own."""

    def document(self, no: int) -> dict[str, Any]:
        archive: dict[str, Any] = {"index_blob": f"index-{no}", "error": None}
        archive["output"] = {"blob": f"out-{no}", "length": 1}
        if self.written_by:
            archive["format"] = self.written_by
        return {
            "_id": f"plan:{no:05d}",
            "no": no,
            "depth": self.depth,
            "group": self.group,
            "provider": self.provider,
            "provider_batch_id": f"batch_up{no}",
            "ranges": [[line, line] for line in self.lines],
            "state": "refused" if self.refused else "settled",
            "ended": "refused" if self.refused else self.ended,
            "ended_at": SETTLED,
            "submitted_at": SUBMITTED,
            "archive": archive if self.results else None,
            "refused": self.refused,
        }

    def archived(self) -> tuple[dict[int, ResultEntry], bytes]:
        raw, entries = bytearray(), {}
        for line, result in sorted(self.results.items()):
            if result is not None:
                entries[line] = ResultEntry(line, len(raw), len(result), 0, self._flags(line, result))
                raw += result + b"\n"
        return entries, bytes(raw)

    def _flags(self, line: int, raw: bytes) -> int:
        if line in self.oversized:
            return FLAG_OVERSIZED
        answer = FORMATS[self.written_by or self.provider].parse_result(raw)
        return FLAG_OK if answer.ok else FLAG_RETRYABLE if answer.retryable else 0


@dataclass
class Rendered:
    """What came out of one pass."""

    output: bytes
    error: bytes
    events: list[tuple[bytes, bytes]]
    tally: Tally

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for part in (self.output, self.error) for line in part.split(b"\n")[:-1]]


@dataclass
class Case:
    """A segment; `inputs` has the raw line of each line number."""

    inputs: dict[int, bytes]
    shards: list[Shard]
    groups: dict[int, int] = field(default_factory=dict)
    models: tuple[str, ...] = ("gpt-4o-mini",)
    policy: str = "reference"
    max_event_bytes: int = 1_000_000
    blob_sizes: tuple[int, ...] = ()
    session: str = "session-1"
    rates: dict[str, Any] = field(default_factory=lambda: dict(RATES))

    def render(self) -> Rendered:
        """The same whether it is rendered here or was packed for the process that renders."""
        job = self.job(Stored)
        renderer = job.renderer()
        pieces = list(renderer.pieces())
        rendered = Rendered(
            b"".join(part for piece in pieces for part in piece.output),
            b"".join(part for piece in pieces for part in piece.error),
            [event for piece in pieces for event in piece.events],
            renderer.tally,
        )
        if all(format_of(source) in RESULT_FORMATS for source in job.sources):
            assert self._rendered_packed() == rendered
        return rendered

    def _rendered_packed(self) -> Rendered:
        with ExitStack() as files:

            def stored(raw: bytes) -> StoredFile:
                file = files.enter_context(TemporaryFile())
                file.write(raw)
                file.flush()
                return StoredFile(file.fileno())

            job = self.job(stored)
            pieces: list[Any] = []
            with in_memory(job.stored.data) as data:
                last = carry_out(bytearray(encode_job(packed(job, data))), pieces.append)
        told = [decode_reply(encode_reply(piece)) for piece in pieces]
        word = decode_reply(encode_reply(last))
        assert isinstance(word, Finished), word
        return Rendered(
            b"".join(part for piece in told for part in piece.output),
            b"".join(part for piece in told for part in piece.error),
            [event for piece in told for event in piece.events],
            word.tally,
        )

    def job(self, stored: Callable[[bytes], Archived]) -> Job:
        entries, data = self._input()
        segment = {
            "no": 0,
            "first_line": min(self.inputs),
            "last_line": max(self.inputs),
            "lines": len(entries),
        }
        batch = self.batch()
        ordered = sorted(enumerate(self.shards), key=lambda pair: (-pair[1].depth, pair[0]))
        sources = sources_of(
            [shard.document(no) for no, shard in ordered], segment["first_line"], segment["last_line"]
        )
        manifest = dict(manifest_of(batch, sources, WRITTEN))
        archived = [shard.archived() for _, shard in ordered]
        segment_bytes = jobs.Stored(
            pack_input(entries),
            data,
            [pack_result(found.values()) for found, _ in archived],
            [(stored(raw), NOTHING) for _, raw in archived],
            [FORMATS[format_of(source)] for source in sources],
        )
        facts = facts_of(batch, segment, manifest, self.max_event_bytes)
        return Job(facts, sources, segment_bytes, PartIds("blob_out", "blob_err"))

    def _input(self) -> tuple[list[InputEntry], bytes]:
        raw, entries = bytearray(), []
        for line in range(1, max(self.inputs) + 1):
            text = self.inputs.get(line, b"")
            if text:
                entries.append(InputEntry(line, len(raw), len(text), self.groups.get(line, 0)))
            raw += text + b"\n"
        return entries, bytes(raw[entries[0].offset :])

    def file(self) -> bytes:
        return b"".join(self.inputs.get(line, b"") + b"\n" for line in range(1, max(self.inputs) + 1))

    def batch(self) -> dict[str, Any]:
        sizes = self.blob_sizes or (len(self.file()),)
        return {
            "_id": "batch_1",
            "org_id": "org_1",
            "api_key_id": "key_1",
            "provider": "openai",
            "endpoint": "/v1/chat/completions",
            "created_at": CREATED,
            "ending": None,
            "input": {"ranges": [{"blob": f"in-{n}", "offset": 7, "length": s} for n, s in enumerate(sizes)]},
            "context": {"session_id": self.session, "content_policy": self.policy},
            "plan": {
                "plan_id": "plan",
                "segments": 1,
                "price_version": "prices==1",
                "groups": [{"model": model, "rates": self.rates} for model in self.models],
            },
        }


def raw_input(custom_id: str, question: str = "Hello?", *, ascii_only: bool = True) -> bytes:
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": question}]}
    line = {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}
    return json.dumps(line, ensure_ascii=ascii_only).encode()


def completion(text: str = "Hi.", model: str = "gpt-4o-mini-2024-07-18") -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text, "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14},
    }


def raw_result(line: int, status: int, body: dict[str, Any], request_id: str | None = "req_1") -> bytes:
    response = {"status_code": status, "request_id": request_id, "body": body}
    return json.dumps({"custom_id": f"n-{line}", "response": response, "error": None}).encode()


def raw_failure(line: int, status: int) -> bytes:
    kind = "server_error" if status in RETRYABLE_STATUS else "invalid_request_error"
    error = {"message": f"no {status}", "type": kind, "param": None, "code": f"code_{status}"}
    return raw_result(line, status, {"error": error})


def raw_never_ran(line: int, code: str = "batch_expired") -> bytes:
    error = {"code": code, "message": "It did not run."}
    return json.dumps({"custom_id": f"n-{line}", "response": None, "error": error}).encode()


def raw_message(line: int, text: str = "Hi.", **changes: Any) -> bytes:
    """A line of Anthropic's results."""
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5-20250929",
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 10, "output_tokens": 4},
        **changes,
    }
    result = {"type": "succeeded", "message": message}
    return json.dumps({"custom_id": f"n-{line}", "result": result}).encode()


class Making:
    """Makes the parts of a case."""

    case = Case
    shard = Shard
    input = staticmethod(raw_input)
    completion = staticmethod(completion)
    result = staticmethod(raw_result)
    message = staticmethod(raw_message)
    stored = Stored
    failure = staticmethod(raw_failure)
    never_ran = staticmethod(raw_never_ran)

    def success(self, line: int, text: str = "Hi.", model: str = "gpt-4o-mini-2024-07-18") -> bytes:
        return raw_result(line, 200, completion(text, model))


@pytest.fixture(scope="session")
def make() -> Making:
    return Making()
