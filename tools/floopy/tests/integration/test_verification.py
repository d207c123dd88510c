"""`floopy verify` finds nothing in a sound batch, and whatever is wrong with another one."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from floopy.verification import MAX_DIFFERENCES, Report, Verification
from floopy_common.chassis.mongo import Mongo
from floopy_common.domain.ids import batch_request_id, line_id
from floopy_common.stores.blobs import BlobStore

BATCH = "batch_1"
ANSWERED, FAILED = (1, 3, 4), (6,)
"""Physical lines; 2 and 5 are blank."""
LINES = (*ANSWERED, *FAILED)


class Planted:
    """A balanced batch of four lines, as every service leaves it."""

    def __init__(self, mongo: Mongo) -> None:
        self.mongo = mongo
        self.blobs = BlobStore(mongo)

    async def plant(self) -> None:
        raw = [b"\xef\xbb\xbf" + self.line(1), b"", self.line(3), self.line(4), b" \r", self.line(6)]
        content = b"\n".join(raw)  # no newline at the end
        first = await self._range(content[:30])
        batch = {
            "_id": BATCH,
            "org_id": "org_1",
            "status": "completed",
            "plan": {"total": 4},
            "input": {"ranges": [first, await self._range(content[30:])]},
            "output_file_id": await self._file("file-out", ANSWERED),
            "error_file_id": await self._file("file-err", FAILED),
            "counts": {"total": 4, "completed": 3, "failed": 1},
            "audit": {"answered": 4, "logged": 4, "metered": 4, "scored": 4, "parked": 0},
            "idempotency_key": None,
        }
        await self.mongo.collection("batches").insert_new(batch)
        for number in LINES:
            await self._rows(number)
        await self._sums()

    @staticmethod
    def line(number: int) -> bytes:
        return json.dumps({"custom_id": f"é {number}", "url": "/v1/x", "body": {}}).encode()

    async def _range(self, content: bytes) -> dict[str, Any]:
        blob = await self.blobs.put("input", content, [BATCH])
        return {"blob": blob.id, "offset": 0, "length": len(content)}

    async def _file(self, file_id: str, numbers: tuple[int, ...]) -> str:
        ids = [(batch_request_id(line_id(BATCH, number)), f"é {number}") for number in numbers]
        lines = [json.dumps({"id": public, "custom_id": custom}).encode() + b"\n" for public, custom in ids]
        ranges = [await self._range(b"".join(lines))]
        await self.mongo.collection("files").insert_new({"_id": file_id, "ranges": ranges})
        return file_id

    async def _rows(self, number: int) -> None:
        row = {
            "_id": line_id(BATCH, number),
            "batch_id": BATCH,
            "line_no": number,
            "custom_id": f"é {number}",
        }
        tokens = {"input_tokens": 10, "output_tokens": 5, "cost_nano_usd": 7}
        if number in FAILED:
            tokens = {"input_tokens": None, "output_tokens": None, "cost_nano_usd": 0}
        await self.mongo.collection("requests").insert_new({**row, "status": "succeeded"})
        await self.mongo.collection("usage_ledger").insert_new({**row, "status": "succeeded", **tokens})
        await self.mongo.collection("scores").insert_new({**row, "status": "scored"})

    async def _sums(self) -> None:
        for sink in ("logging", "metering", "feedback"):
            for segment, lines in enumerate((3, 1)):
                receipt = {"batch_id": BATCH, "sink": sink, "segment": segment, "lines": lines, "parked": 0}
                await self.mongo.collection("receipts").insert_new(
                    {"_id": f"{BATCH}:{segment}:{sink}", **receipt}
                )
        groups = [{"input_tokens": 30, "output_tokens": 15, "cost_nano_usd": 21}]
        await self.mongo.collection("usage_rollups").insert_new(
            {"_id": f"{BATCH}:0", "batch_id": BATCH, "groups": groups}
        )

    async def change(self, collection: str, key: str, **values: Any) -> None:
        assert await self.mongo.collection(collection).update_one({"_id": key}, {"$set": values}) == 1

    async def remove(self, collection: str, key: str) -> None:
        assert await self.mongo.collection(collection).delete_many({"_id": key}) == 1

    async def report(self) -> Report:
        report = await Verification(self.mongo).run(BATCH)
        assert report is not None
        return report


@pytest.fixture
async def planted(mongo: Mongo) -> Planted:
    planted = Planted(mongo)
    await planted.plant()
    return planted


async def test_a_sound_batch_has_no_difference(planted: Planted) -> None:
    report = await planted.report()

    assert report.to_wire() == {"batch_id": BATCH, "ok": True, "lines": 4, "differences": []}


async def test_an_unknown_batch_has_no_report(mongo: Mongo) -> None:
    assert await Verification(mongo).run("batch_none") is None


LINE_3 = line_id(BATCH, 3)
Break = Callable[[Planted], Awaitable[None]]
BROKEN: dict[str, tuple[Break, tuple[str, int | None]]] = {
    "a row is missing in the log": (lambda p: p.remove("requests", LINE_3), ("requests", 3)),
    "a row is missing in the ledger": (lambda p: p.remove("usage_ledger", LINE_3), ("usage_ledger", 3)),
    "a row is missing in the scores": (lambda p: p.remove("scores", LINE_3), ("scores", 3)),
    "a line is parked": (lambda p: p.change("scores", LINE_3, status="parked"), ("scores", 3)),
    "a row is another line's": (lambda p: p.change("requests", LINE_3, custom_id="x"), ("requests", 3)),
    "a rollup differs": (
        lambda p: p.change("usage_rollups", f"{BATCH}:0", groups=[{"cost_nano_usd": 21}]),
        ("usage_rollups", None),
    ),
    "a receipt is missing": (lambda p: p.remove("receipts", f"{BATCH}:1:feedback"), ("receipts", None)),
    "the output is gone": (lambda p: p.remove("files", "file-out"), ("files", 1)),
    "the counts are wrong": (lambda p: p.change("batches", BATCH, **{"counts.failed": 2}), ("batches", None)),
    "the audit is wrong": (lambda p: p.change("batches", BATCH, **{"audit.scored": 3}), ("batches", None)),
    "the plan is wrong": (lambda p: p.change("batches", BATCH, **{"plan.total": 5}), ("batches", None)),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_what_differs_is_found(planted: Planted, name: str) -> None:
    break_it, found = BROKEN[name]
    await break_it(planted)

    report = await planted.report()

    assert not report.ok
    assert found in {(difference.store, difference.line) for difference in report.differences}


async def test_a_row_too_many_is_found(planted: Planted) -> None:
    for number in (2, 9):
        row = {"_id": line_id(BATCH, number), "batch_id": BATCH, "line_no": number, "status": "succeeded"}
        await planted.mongo.collection("scores").insert_new(row)

    report = await planted.report()

    assert [(d.store, d.line) for d in report.differences] == [("scores", 2), ("scores", 9)]


async def test_a_line_in_both_files_is_found(planted: Planted) -> None:
    [err] = await planted.mongo.collection("files").find_all({"_id": "file-err"})
    [out] = await planted.mongo.collection("files").find_all({"_id": "file-out"})
    await planted.change("files", "file-out", ranges=[*out["ranges"], *err["ranges"]])

    report = await planted.report()

    assert ("files", 6) in {(difference.store, difference.line) for difference in report.differences}


async def test_rows_of_another_batch_do_not_count(planted: Planted) -> None:
    for other in ("batch_0", "batch_10", "batch_1x"):
        await planted.mongo.collection("scores").insert_new({"_id": line_id(other, 1), "batch_id": other})

    assert (await planted.report()).ok


async def test_a_batch_that_every_provider_refused_has_no_lines(mongo: Mongo) -> None:
    planted = Planted(mongo)
    await mongo.collection("batches").insert_new(
        {
            "_id": BATCH,
            "org_id": "org_1",
            "status": "failed",
            "plan": {"total": 1},
            "input": {"ranges": [await planted._range(planted.line(1))]},
            "output_file_id": None,
            "error_file_id": None,
            "counts": {"total": 0, "completed": 0, "failed": 0},
            "audit": {"answered": 0, "logged": 0, "metered": 0, "scored": 0, "parked": 0},
        }
    )

    assert (await planted.report()).to_wire()["lines"] == 0
    assert (await planted.report()).ok


def test_a_report_is_bounded() -> None:
    report = Report(BATCH)
    for number in range(MAX_DIFFERENCES + 5):
        report.differs("scores", number, "no row")

    assert len(report.differences) == MAX_DIFFERENCES
