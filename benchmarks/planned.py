"""A batch as the API leaves it, and the submitter's own parts over a real database: what `plan` times."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import SecretStr

from benchmarks.data import chat_line
from benchmarks.deliveries import fresh_database, running_mongod
from benchmarks.system import until
from floopy_common.chassis.mongo import Mongo, ensure_indexes, open_mongo
from floopy_common.chassis.secrets import Keyring
from floopy_common.domain.ids import new_batch_id
from floopy_common.providers.clients import open_clients
from floopy_common.settings import AnthropicSettings, MongoSettings, ProvidersSettings, Settings
from floopy_common.stores.blobs import BlobStore, FileReader
from floopy_common.stores.files import FileStore
from floopy_common.stores.finishing import PlannedLines
from floopy_submitter.core.input import ShardInput
from floopy_submitter.core.stored_files import StoredFiles
from floopy_submitter.core.translator import Translators
from floopy_submitter.main import Wiring

Document = dict[str, Any]
_ENDED = {"failed", "cancelled"}


@dataclass(frozen=True)
class Submitter:
    """The parts of one submitter over an empty database."""

    mongo: Mongo
    blobs: BlobStore
    wiring: Wiring
    inputs: ShardInput

    async def batch(self, lines: int, size: int, provider: str, model: str) -> Document:
        """A batch that waits for its plan, its input in a blob."""
        batch_id = new_batch_id()
        async with self.blobs.writer("upload", pins=[batch_id]) as writer:
            for number in range(1, lines + 1):
                await writer.write(chat_line(number, size, "bench", model))
        batch = _validating(batch_id, writer.blob.id, writer.blob.length, provider)
        await self.mongo.collection("batches").insert_new(batch)
        return batch

    async def plan(self, batch: Document) -> float:
        """Seconds the planner takes from its claim to the batch's plan."""
        stop, batches = asyncio.Event(), self.mongo.collection("batches")

        async def planned() -> bool:
            found = await batches.find_one({"_id": batch["_id"]}, {"status": 1, "errors": 1})
            if found is None or found["status"] in _ENDED:
                raise RuntimeError(f"the batch was refused: {found}")
            return bool(found["status"] == "in_progress")

        started = time.monotonic()
        planning = asyncio.create_task(self.wiring.bells.loops["plan"].run(stop))
        try:
            await until(planned, 300, "a plan")
            return time.monotonic() - started
        finally:
            stop.set()
            await planning

    async def upstream(self, batch: Document) -> tuple[float, int]:
        """Seconds to make all that its shards send to the provider, and how many bytes that are."""
        found = await self.mongo.collection("batches").find_one({"_id": batch["_id"]})
        shards = await self.mongo.collection("shards").find_all({"batch_id": batch["_id"]})
        size = 0
        started = time.monotonic()
        for shard in shards:
            attempt = {"id": "attempt_benchmark", "nonce": "abcdefghij"}
            given = await self.inputs.open(found or batch, shard, attempt)
            async for chunk in given.chunks:
                size += len(chunk)
        return time.monotonic() - started, size


@asynccontextmanager
async def running_submitter() -> AsyncIterator[Submitter]:
    """A submitter in this process, on a mongod as `floopy up` runs it; its loops are not started."""
    async with running_mongod() as uri, fresh_database(uri) as database:
        # no provider runs here that could be asked for its models
        providers = ProvidersSettings(anthropic=AnthropicSettings(models_ttl=0))
        settings = Settings(secret_key=SecretStr("benchmark-" * 4), providers=providers)
        keyring = Keyring(settings.secret_key)
        async with (
            open_mongo(MongoSettings(uri=uri, database=database), "benchmark") as mongo,
            open_clients(mongo, settings, keyring) as clients,
        ):
            await ensure_indexes(mongo)
            wiring = Wiring(settings, mongo, clients, "benchmark")
            wiring.planning()
            blobs = BlobStore(mongo)
            reader = FileReader(blobs)
            stored = StoredFiles(FileStore(mongo), blobs, reader, settings.providers.anthropic.file_bytes)
            translators = Translators(blobs, stored, keyring.end_user_salt)
            yield Submitter(mongo, blobs, wiring, ShardInput(PlannedLines(mongo, blobs), reader, translators))


def _validating(batch_id: str, blob: str, size: int, provider: str) -> Document:
    now = datetime.now(UTC)
    moments = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
    unset = ("plan", "errors", "usage", "output_file_id", "error_file_id", "ending", "ending_at", "lease")
    return {
        "_id": batch_id,
        "org_id": "org_benchmark",
        "api_key_id": "key_benchmark",
        "version": 1,
        "status": "validating",
        "created_at": now,
        "expires_at": now + timedelta(days=1),
        **dict.fromkeys(f"{moment}_at" for moment in moments),
        **dict.fromkeys(unset),
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
        "metadata": None,
        "output_expires_after": None,
        "provider": provider,
        "account_id": "account_benchmark",
        "input_file_id": "file-benchmark",
        "input": {
            "ranges": [{"blob": blob, "offset": 0, "length": size}],
            "bytes": size,
            "filename": "benchmark.jsonl",
            "purpose": "batch",
        },
        "context": {
            "plan": "benchmark",
            "feedback": True,
            "monthly_line_cap": None,
            "retention_days": 30,
            "content_policy": "reference",
            "sample_rate": 0.0,
            "session_id": None,
            "headers": {},
        },
        "counts": {"total": 0, "completed": 0, "failed": 0},
        "summary": {"shards": {}, "queue": None, "counts": {"completed": 0, "failed": 0}},
        "audit": {
            "stage": "idle",
            "next_at": None,
            **dict.fromkeys(("answered", "logged", "metered", "scored", "parked"), 0),
            "balanced": False,
        },
        "outbox": [],
        "next_look_at": now,
    }
