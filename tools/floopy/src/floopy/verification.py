"""Recounts a batch from its rows and files, line by line, and says where they differ from the input."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from floopy_common.chassis.mongo import Document, Mongo
from floopy_common.domain.batch import BatchStatus
from floopy_common.domain.ids import batch_request_id, line_id
from floopy_common.domain.segment import Sink
from floopy_common.stores.blobs import BlobStore, FileReader

MAX_DIFFERENCES = 1_000
"""A batch that differs this often is broken as a whole; more rows would say nothing new."""

_BOM = b"\xef\xbb\xbf"
_SINK_STORES = {
    "requests": Sink.LOGGING,
    "usage_ledger": Sink.METERING,
    "scores": Sink.FEEDBACK,
}


class _InputLine(msgspec.Struct, gc=False):
    custom_id: str


class _FileLine(msgspec.Struct, gc=False):
    id: str
    custom_id: str


_decode_input = msgspec.json.Decoder(_InputLine).decode
_decode_file_line = msgspec.json.Decoder(_FileLine).decode


@dataclass(frozen=True)
class Difference:
    """`line` is the physical line number in the input, None where the fault is the batch's."""

    store: str
    line: int | None
    problem: str


@dataclass
class Report:
    """`ok` means: every line exactly once in the files and in each sink's rows, and every total agrees."""

    batch_id: str
    lines: int = 0
    differences: list[Difference] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.differences

    def differs(self, store: str, line: int | None, problem: str) -> None:
        if len(self.differences) < MAX_DIFFERENCES:
            self.differences.append(Difference(store, line, problem))

    def to_wire(self) -> dict[str, Any]:
        rows = [{"store": d.store, "line": d.line, "problem": d.problem} for d in self.differences]
        return {"batch_id": self.batch_id, "ok": self.ok, "lines": self.lines, "differences": rows}


class _Ahead:
    """An ordered stream whose next document can be looked at before it is taken."""

    def __init__(self, documents: AsyncIterator[Document]) -> None:
        self._documents = documents
        self.head: Document | None = None

    async def advance(self) -> Document | None:
        """Move on; what is now at the head, None at the end."""
        self.head = await anext(self._documents, None)
        return self.head

    async def take(self, key: str) -> Document | None:
        """The head if its `_id` is `key`, which is then consumed."""
        if self.head is None or self.head["_id"] != key:
            return None
        found = self.head
        await self.advance()
        return found


@dataclass
class _Sums:
    """What the lines and rows add up to."""

    completed: int = 0
    failed: int = 0
    rows: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_SINK_STORES, 0))
    parked: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_nano_usd: int = 0


class Verification:
    """Reads only, in line order, with bounded memory."""

    def __init__(self, mongo: Mongo) -> None:
        self._mongo = mongo
        self._reader = FileReader(BlobStore(mongo))

    async def run(self, batch_id: str) -> Report | None:
        """The report; None for an unknown batch."""
        batch = await self._mongo.collection("batches").find_one({"_id": batch_id})
        if batch is None:
            return None
        report, sums = Report(batch_id), _Sums()
        await self._compare_lines(batch, report, sums)
        await self._compare_totals(batch, report, sums)
        return report

    async def _compare_lines(self, batch: Document, report: Report, sums: _Sums) -> None:
        files = {
            "output_file": _Ahead(self._file_lines(batch["output_file_id"])),
            "error_file": _Ahead(self._file_lines(batch["error_file_id"])),
        }
        rows = {name: _Ahead(self._rows(name, batch["_id"])) for name in _SINK_STORES}
        for stream in (*files.values(), *rows.values()):
            await stream.advance()
        async for line_no, custom_id in self._input_lines(batch):
            report.lines += 1
            await _match_files(files, batch["_id"], line_no, custom_id, report, sums)
            for name, stream in rows.items():
                await _match_row(name, stream, batch["_id"], line_no, custom_id, report, sums)
        for name, stream in {**files, **rows}.items():
            while stream.head is not None:
                report.differs(name, stream.head.get("line_no"), f"not of this input: {stream.head['_id']}")
                await stream.advance()

    async def _compare_totals(self, batch: Document, report: Report, sums: _Sums) -> None:
        total = batch["plan"]["total"] if _has_lines(batch) else 0
        audit = batch["audit"]
        expected = {
            "plan.total": (total, report.lines),
            "counts.total": (batch["counts"]["total"], report.lines),
            "counts.completed": (batch["counts"]["completed"], sums.completed),
            "counts.failed": (batch["counts"]["failed"], sums.failed),
            "audit.answered": (audit["answered"], sums.completed + sums.failed),
            "audit.logged": (audit["logged"], sums.rows["requests"]),
            "audit.metered": (audit["metered"], sums.rows["usage_ledger"]),
            "audit.scored": (audit["scored"], sums.rows["scores"]),
            "audit.parked": (audit["parked"], sums.parked),
        }
        for name, (said, counted) in expected.items():
            if said != counted:
                report.differs("batches", None, f"{name} says {said}, counted {counted}")
        await self._compare_receipts(batch, report)
        await self._compare_rollups(batch, report, sums)

    async def _compare_receipts(self, batch: Document, report: Report) -> None:
        grouped = await self._mongo.collection("receipts").aggregate(
            [
                {"$match": {"batch_id": batch["_id"]}},
                {"$group": {"_id": "$sink", "lines": {"$sum": "$lines"}}},
            ]
        )
        confirmed = {row["_id"]: row["lines"] for row in grouped}
        for sink in _SINK_STORES.values():
            if confirmed.get(sink.value, 0) != report.lines:
                problem = f"{sink.value} confirmed {confirmed.get(sink.value, 0)} of {report.lines} lines"
                report.differs("receipts", None, problem)

    async def _compare_rollups(self, batch: Document, report: Report, sums: _Sums) -> None:
        fields = ("input_tokens", "output_tokens", "cost_nano_usd")
        grouped = await self._mongo.collection("usage_rollups").aggregate(
            [
                {"$match": {"batch_id": batch["_id"]}},
                {"$unwind": "$groups"},
                {"$group": {"_id": None, **{name: {"$sum": f"$groups.{name}"} for name in fields}}},
            ]
        )
        rolled = grouped[0] if grouped else dict.fromkeys(fields, 0)
        for name in fields:
            if rolled[name] != getattr(sums, name):
                problem = f"{name} is {rolled[name]}, the ledger adds up to {getattr(sums, name)}"
                report.differs("usage_rollups", None, problem)

    async def _input_lines(self, batch: Document) -> AsyncIterator[tuple[int, str]]:
        """(physical line number, custom_id) of each line that must be accounted for."""
        if not _has_lines(batch):
            return
        number = 0
        async for raw in self._lines(batch["input"]["ranges"]):
            number += 1
            line = raw.removeprefix(_BOM) if number == 1 else raw
            if line.strip():
                yield number, _decode_input(line).custom_id

    async def _file_lines(self, file_id: str | None) -> AsyncIterator[Document]:
        """{_id, custom_id} of each line of an output or error file."""
        if file_id is None:
            return
        document = await self._mongo.collection("files").find_one({"_id": file_id})
        if document is None:
            return
        async for raw in self._lines(document["ranges"]):
            line = _decode_file_line(raw)
            yield {"_id": line.id, "custom_id": line.custom_id}

    async def _lines(self, ranges: list[Document]) -> AsyncIterator[bytes]:
        rest = b""
        size = sum(part["length"] for part in ranges)
        async for chunk in self._reader.read_ranges(ranges, 0, size):
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                yield line
        if rest:
            yield rest

    def _rows(self, name: str, batch_id: str) -> AsyncIterator[Document]:
        scope = {"_id": {"$gte": f"{batch_id}:", "$lt": f"{batch_id};"}}
        return self._mongo.collection(name).find(scope, sort=[("_id", 1)], batch_size=1_000)


def _has_lines(batch: Document) -> bool:
    """A batch without a plan has none, nor has one that every provider refused before anything ran."""
    planned = batch["plan"] is not None and batch["input"] is not None
    return planned and batch["status"] != BatchStatus.FAILED.value


async def _match_files(
    files: dict[str, _Ahead], batch_id: str, line_no: int, custom_id: str, report: Report, sums: _Sums
) -> None:
    key = batch_request_id(line_id(batch_id, line_no))
    found = {name: line for name, stream in files.items() if (line := await stream.take(key)) is not None}
    sums.completed += "output_file" in found
    sums.failed += "error_file" in found and "output_file" not in found
    if len(found) != 1:
        report.differs("files", line_no, "in both files" if found else "in neither file")
    for name, line in found.items():
        if line["custom_id"] != custom_id:
            report.differs(name, line_no, f"custom_id is {line['custom_id']!r}, not {custom_id!r}")


async def _match_row(
    name: str, stream: _Ahead, batch_id: str, line_no: int, custom_id: str, report: Report, sums: _Sums
) -> None:
    key = line_id(batch_id, line_no)
    while stream.head is not None and stream.head["_id"] < key:
        report.differs(name, stream.head.get("line_no"), f"not of this input: {stream.head['_id']}")
        await stream.advance()
    row = await stream.take(key)
    if row is None:
        report.differs(name, line_no, "no row")
        return
    sums.rows[name] += 1
    if row.get("status") == "parked":
        sums.parked += 1
        report.differs(name, line_no, "parked: the sink could not take this line")
    if "custom_id" in row and row["custom_id"] != custom_id:
        report.differs(name, line_no, f"custom_id is {row['custom_id']!r}, not {custom_id!r}")
    if name == "usage_ledger":
        sums.input_tokens += row.get("input_tokens") or 0
        sums.output_tokens += row.get("output_tokens") or 0
        sums.cost_nano_usd += row.get("cost_nano_usd") or 0
