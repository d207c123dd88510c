"""One account at Anthropic, as tests use it."""

import json
from collections.abc import AsyncIterator, Callable, Collection
from datetime import UTC, datetime, timedelta
from typing import Any

from waiting import eventually

from floopy_common.providers.anthropic.client import AnthropicBatches
from floopy_common.providers.anthropic.request import upstream_element
from floopy_common.providers.port import AttemptInput, CreateRequest, Found, ProviderBatch, Sought

NONCE = "abcdefghij"
DEADLINE = 20.0


def elements_of(count: int, nonce: str = NONCE, **params: Any) -> bytes:
    """The requests of a create, as they stand between its head and its tail."""
    asked = {
        "model": "claude-haiku-4-5",
        "max_tokens": 64,
        "messages": [{"role": "user", "content": "Why?"}],
        **params,
    }
    raw = json.dumps(asked).encode()
    return b",".join(upstream_element(nonce, number, raw) for number in range(1, count + 1))


async def in_pieces(content: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


class Claude:
    """One account of its own."""

    def __init__(self, client: AnthropicBatches, key: str) -> None:
        self.client = client
        self.key = key
        self.since = datetime.now(UTC) - timedelta(minutes=1)

    async def create(
        self, content: bytes, *, before_send: Callable[[], None] = lambda: None, size: int | None = None
    ) -> ProviderBatch:
        upload = AttemptInput("att_1", len(content) if size is None else size, in_pieces(content))
        return await self.client.create(
            CreateRequest("att_1", NONCE, "/v1/chat/completions", None, before_send, input=upload)
        )

    async def find(self, lines: int, *, nonce: str = NONCE, taken: Collection[str] = ()) -> Found:
        async def known(provider_batch_ids: Collection[str]) -> set[str]:
            return set(taken) & set(provider_batch_ids)

        return await self.client.find_attempt(
            Sought(
                attempt_id="att_1",
                nonce=nonce,
                input_file_id=None,
                lines=lines,
                since=self.since,
                until=self.since + timedelta(minutes=2),
                taken=known,
            )
        )

    async def until(self, batch_id: str, status: str) -> ProviderBatch:
        async def arrived() -> ProviderBatch | None:
            batch = await self.client.get(batch_id)
            return batch if batch.status == status else None

        return await eventually(arrived, timeout=DEADLINE, what=f"{batch_id} as {status}")

    async def download(self, batch_id: str) -> bytes:
        async with self.client.open_result(batch_id) as result:
            return b"".join([piece async for piece in result.chunks])
