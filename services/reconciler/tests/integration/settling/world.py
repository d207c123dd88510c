"""Planned batches as the submitter leaves them, and a provider that has their lines: the real simulator."""

import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import openai
from pydantic import SecretStr

from floopy.simulation import OwnSimulator
from floopy_common.chassis.mongo import Mongo
from floopy_common.chassis.secrets import Keyring
from floopy_common.domain.ids import new_batch_id, new_nonce, new_plan_id, segment_id, shard_id
from floopy_common.domain.index import pack_input
from floopy_common.domain.shard import untried
from floopy_common.providers.anthropic.request import BATCH_HEAD, BATCH_TAIL, upstream_element
from floopy_common.providers.clients import Clients, open_clients
from floopy_common.providers.openai.request import upstream_line
from floopy_common.settings import AnthropicSettings, ProviderSettings, ProvidersSettings, Settings
from floopy_common.stores.accounts import AccountStore
from floopy_common.stores.blobs import BlobStore

SECRET = "a secret for tests that nobody needs to guess"
CHAT = "/v1/chat/completions"


@asynccontextmanager
async def clients_of(mongo: Mongo, sim: OwnSimulator) -> AsyncIterator[Clients]:
    """The product's own clients, which take the simulator for their provider."""
    providers = ProvidersSettings(
        openai=ProviderSettings(base_url=sim.openai_base_url),
        anthropic=AnthropicSettings(base_url=sim.anthropic_base_url),
    )
    settings = Settings(providers=providers, secret_key=SecretStr(SECRET))
    async with open_clients(mongo, settings, Keyring(settings.secret_key)) as clients:
        yield clients


@dataclass
class Planted:
    """One planned batch; `bodies` by line number."""

    batch: dict[str, Any]
    bodies: dict[int, dict[str, Any]]
    shards: list[dict[str, Any]] = field(default_factory=list)
    segments: list[dict[str, Any]] = field(default_factory=list)

    @property
    def id(self) -> str:
        return str(self.batch["_id"])


def make_body(question: str, sim: str | None = None) -> dict[str, Any]:
    body: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": question}]}
    return body if sim is None else {**body, "metadata": {"sim": sim}}


@dataclass
class Upstream:
    """What is with the provider, by shard: worlds that share it have the same answers to the byte."""

    key: str = field(default_factory=lambda: f"sk-{uuid.uuid4().hex}")
    attempts: dict[str, dict[str, Any]] = field(default_factory=dict)


class World:
    """Writes what api and submitter would have written."""

    def __init__(
        self,
        mongo: Mongo,
        simulator: OwnSimulator,
        upstream: Upstream | None = None,
        provider: str = "openai",
    ) -> None:
        self.provider = provider
        self.mongo = mongo
        self.blobs = BlobStore(mongo)
        self.simulator = simulator
        self.upstream = upstream or Upstream()
        self.key = self.upstream.key
        self.org_id = f"org_{uuid.uuid4().hex[:16]}"
        self.accounts = AccountStore(mongo, Keyring(SecretStr(SECRET)))
        self.sdk = openai.AsyncOpenAI(api_key=self.key, base_url=simulator.openai_base_url, max_retries=0)
        self.account_id = ""

    async def open(self) -> None:
        account = await self.accounts.create(self.org_id, self.provider, None, SecretStr(self.key))
        self.account_id = account["_id"]

    async def close(self) -> None:
        await self.sdk.close()

    async def plan(
        self,
        bodies: list[dict[str, Any]],
        *,
        segment_lines: int = 100,
        shard_lines: int = 100,
        blank_first: int = 0,
        ids: tuple[str, str] | None = None,
        **changes: Any,
    ) -> Planted:
        """A batch in progress whose shards are planned; `blank_first` empty lines come first.

        `ids` of batch and plan.
        """
        now = datetime.now(UTC)
        batch_id, plan_id = ids or (new_batch_id(), new_plan_id())
        raw = b"\n" * blank_first
        entries = []
        for line_no, body in enumerate(bodies, start=blank_first + 1):
            request = {"custom_id": f"user-{line_no}", "method": "POST", "url": CHAT, "body": body}
            line = json.dumps(request, separators=(",", ":")).encode()
            entries.append((line_no, len(raw), len(line), 0))
            raw += line + b"\n"
        blob = await self.blobs.put("input", raw, [batch_id])
        index = await self.blobs.put("index", pack_input(entries), [batch_id])
        planted = Planted({}, {entry[0]: body for entry, body in zip(entries, bodies, strict=True)})
        starts = range(0, len(entries), segment_lines)
        for no, start in enumerate(starts):
            part = entries[start : start + segment_lines]
            planted.segments.append(self._segment(batch_id, plan_id, no, start, part, now))
        for no, start in enumerate(range(0, len(entries), shard_lines)):
            part = entries[start : start + shard_lines]
            planted.shards.append(self._shard(batch_id, plan_id, no, part, planted.segments))
        planted.batch = {
            "_id": batch_id,
            "org_id": self.org_id,
            "api_key_id": "key_1",
            "version": 2,
            "status": "in_progress",
            "created_at": now,
            "expires_at": now + timedelta(days=1),
            **dict.fromkeys(
                (
                    "finalizing_at",
                    "completed_at",
                    "failed_at",
                    "expired_at",
                    "cancelling_at",
                    "cancelled_at",
                )
            ),
            "in_progress_at": now,
            "endpoint": CHAT,
            "completion_window": "24h",
            "metadata": None,
            "output_expires_after": None,
            "provider": self.provider,
            "account_id": self.account_id,
            "input_file_id": "file-1",
            "input": {
                "ranges": [{"blob": blob.id, "offset": 0, "length": blob.length}],
                "bytes": blob.length,
                "filename": "in.jsonl",
                "purpose": "batch",
            },
            "context": {
                "plan": "pro",
                "feedback": True,
                "monthly_line_cap": None,
                "retention_days": 30,
                "content_policy": "reference",
                "sample_rate": 0.0,
                "session_id": None,
                "headers": {},
            },
            "plan": {
                "plan_id": plan_id,
                "total": len(entries),
                "segments": len(planted.segments),
                "shards": len(planted.shards),
                "model": "gpt-4o-mini",
                "groups": [
                    {
                        "model": "gpt-4o-mini",
                        "rates": {
                            "input_nano": 75_000_000,
                            "cached_nano": 37_500_000,
                            "output_nano": 300_000_000,
                            "flag": None,
                        },
                    }
                ],
                "index_blob": index.id,
                "price_version": "test",
                "translator_version": 1,
                "month": "202601",
            },
            "errors": None,
            "counts": {"total": len(entries), "completed": 0, "failed": 0},
            "summary": {
                "shards": {"planned": len(planted.shards)},
                "queue": None,
                "counts": {"completed": 0, "failed": 0},
            },
            "usage": None,
            "output_file_id": None,
            "error_file_id": None,
            "ending": None,
            "ending_at": None,
            "audit": {
                "stage": "open",
                "next_at": now,
                "answered": 0,
                "logged": 0,
                "metered": 0,
                "scored": 0,
                "parked": 0,
                "balanced": False,
            },
            "request_hash": "hash",
            "retry_count": 0,
            "outbox": [],
            "lease": None,
            "next_look_at": now,
            **changes,
        }
        await self.mongo.collection("segments").insert_many(planted.segments)
        await self.mongo.collection("shards").insert_many(planted.shards)
        await self.mongo.collection("batches").insert_new(planted.batch)
        return planted

    def _segment(
        self, batch_id: str, plan_id: str, no: int, start: int, part: list[Any], now: datetime
    ) -> dict[str, Any]:
        return {
            "_id": segment_id(plan_id, no),
            "batch_id": batch_id,
            "org_id": self.org_id,
            "plan_id": plan_id,
            "no": no,
            "first_line": part[0][0],
            "last_line": part[-1][0],
            "lines": len(part),
            "bytes": sum(entry[2] for entry in part),
            "index_from": start,
            "index_to": start + len(part),
            "ready": False,
            "state": "open",
            **dict.fromkeys(("lease", "manifest", "counts", "usage", "emitted")),
            "created_at": now,
        }

    def _shard(
        self, batch_id: str, plan_id: str, no: int, part: list[Any], segments: list[dict[str, Any]]
    ) -> dict[str, Any]:
        first, last = part[0][0], part[-1][0]
        return {
            "_id": shard_id(plan_id, no),
            "batch_id": batch_id,
            "org_id": self.org_id,
            "plan_id": plan_id,
            "no": no,
            "provider": self.provider,
            "account_id": self.account_id,
            "endpoint": CHAT,
            "model": "gpt-4o-mini",
            "group": 0,
            "kind": "primary",
            "depth": 0,
            "parent": None,
            "ranges": [[first, last]],
            "lines": len(part),
            "bytes": sum(entry[2] for entry in part),
            "tokens_estimate": 10 * len(part),
            "segments": [s["no"] for s in segments if s["first_line"] <= last and s["last_line"] >= first],
            **untried(),
        }

    async def submit(self, planted: Planted, shard: dict[str, Any], nonce: str | None = None) -> str:
        """Record the shard's provider batch, which is created unless it is there already.

        `nonce` marks its lines as somebody else's.
        """
        if shard["_id"] not in self.upstream.attempts:
            self.upstream.attempts[shard["_id"]] = await self._create(planted, shard, nonce)
        attempt = self.upstream.attempts[shard["_id"]]
        poll = {"next_at": datetime.now(UTC), "interval": 0.05, "failures": 0}
        poll |= dict.fromkeys(("started_at", "last_at", "asked_at"))
        await self.mongo.collection("shards").update_one(
            {"_id": shard["_id"], "state": {"$in": ["planned", "waiting"]}},
            {
                "$set": {
                    "state": "submitted",
                    "provider_batch_id": attempt["provider_batch_id"],
                    "submitted_at": datetime.now(UTC),
                    "poll": poll,
                    "waiting": None,
                },
                "$push": {"attempts": attempt},
            },
        )
        return str(attempt["provider_batch_id"])

    async def _create(self, planted: Planted, shard: dict[str, Any], nonce: str | None) -> dict[str, Any]:
        own = new_nonce()
        lines = sorted(n for n in planted.bodies if any(a <= n <= b for a, b in shard["ranges"]))
        bodies = {n: json.dumps(planted.bodies[n], separators=(",", ":")).encode() for n in lines}
        if self.provider == "anthropic":
            file_id, created_id = None, await self._create_messages(nonce or own, bodies)
        else:
            content = b"".join(upstream_line(nonce or own, n, CHAT, raw) for n, raw in bodies.items())
            file_id = (await self.sdk.files.create(file=("in.jsonl", content), purpose="batch")).id
            created = await self.sdk.batches.create(
                input_file_id=file_id, endpoint=CHAT, completion_window="24h"
            )
            created_id = created.id
        now = datetime.now(UTC)
        return {
            "id": f"att_{own}",
            "nonce": own,
            "phase": "created",
            "intent_at": now,
            "input_file_id": file_id,
            "creating_at": now,
            "provider_batch_id": created_id,
            "looks": 0,
            "last_look_at": None,
            "resolution": None,
        }

    async def _create_messages(self, nonce: str, bodies: dict[int, bytes]) -> str:
        content = BATCH_HEAD + b",".join(upstream_element(nonce, n, raw) for n, raw in bodies.items())
        headers = {"x-api-key": self.key, "anthropic-version": "2023-06-01"}
        url = f"{self.simulator.anthropic_base_url}/v1/messages/batches"
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.post(
                url, data=content + BATCH_TAIL, headers={"content-type": "application/json"}
            ) as answer,
        ):
            assert answer.status == 200, await answer.text()
            return str((await answer.json())["id"])

    async def submitted(self, bodies: list[dict[str, Any]], **options: Any) -> Planted:
        """A batch whose shards are all with the provider."""
        planted = await self.plan(bodies, **options)
        for shard in planted.shards:
            await self.submit(planted, shard)
        return planted

    async def batch(self, planted: Planted) -> dict[str, Any]:
        found = await self.mongo.collection("batches").find_one({"_id": planted.id})
        assert found is not None
        return found

    async def shards(self, planted: Planted) -> list[dict[str, Any]]:
        """The batch's shards as they are now, a retry behind its parent."""
        return await self.mongo.collection("shards").find_all(
            {"batch_id": planted.id}, sort=[("no", 1), ("depth", 1)]
        )
