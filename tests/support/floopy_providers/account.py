"""One account at a provider, as tests use it."""

import json
from collections.abc import AsyncIterator, Collection
from datetime import UTC, datetime, timedelta
from typing import Any

from waiting import eventually

from floopy_common.providers.openai.client import OpenAiBatches
from floopy_common.providers.openai.request import upstream_line
from floopy_common.providers.port import AttemptInput, CreateRequest, ProviderBatch, Sought

CHAT = "/v1/chat/completions"
DEADLINE = 20.0


async def _once(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 1000):
        yield content[start : start + 1000]


async def _none_taken(provider_batch_ids: Collection[str]) -> set[str]:
    return set()


def lines_of(count: int, nonce: str = "abcdefghij", **body: Any) -> bytes:
    """The upstream input of `count` chat lines."""
    request = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Why?"}], **body}
    raw = json.dumps(request).encode()
    return b"".join(upstream_line(nonce, number, CHAT, raw) for number in range(1, count + 1))


class Account:
    """One account of its own at a provider."""

    def __init__(self, client: OpenAiBatches, key: str) -> None:
        self.client = client
        self.key = key
        self.since = datetime.now(UTC) - timedelta(minutes=1)

    async def upload(self, content: bytes, name: str = "floopy-1.jsonl") -> str:
        file_id = await self.client.prepare(AttemptInput(name, len(content), _once(content)))
        assert file_id is not None
        return file_id

    async def create(self, file_id: str | None, attempt_id: str = "att_1", **options: Any) -> ProviderBatch:
        before_send = options.pop("before_send", lambda: None)
        request = CreateRequest(attempt_id, "abcdefghij", CHAT, file_id, before_send, **options)
        return await self.client.create(request)

    async def found(self, file_id: str | None, attempt_id: str = "att_1") -> list[str]:
        found = await self.client.find_attempt(self.sought(file_id, attempt_id))
        assert not found.possible
        return [batch.id for batch in found.ours]

    def sought(self, file_id: str | None, attempt_id: str = "att_1") -> Sought:
        return Sought(
            attempt_id=attempt_id,
            nonce="abcdefghij",
            input_file_id=file_id,
            lines=1,
            since=self.since,
            until=self.since + timedelta(days=1),
            taken=_none_taken,
        )

    async def until(self, batch_id: str, status: str) -> ProviderBatch:
        async def arrived() -> ProviderBatch | None:
            batch = await self.client.get(batch_id)
            return batch if batch.status == status else None

        return await eventually(arrived, timeout=DEADLINE, what=f"{batch_id} as {status}")

    async def ended(self, content: bytes) -> ProviderBatch:
        batch = await self.create(await self.upload(content))
        return await self.until(batch.id, "completed")

    async def download(self, file_id: str) -> bytes:
        async with self.client.open_result(file_id) as result:
            return b"".join([piece async for piece in result.chunks])
