"""Creates of a batch, by the SDK and by raw HTTP."""

from typing import Any

import aiohttp
import msgspec
from openai import AsyncOpenAI

LINE = b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{}}\n'
REQUEST = {"input_file_id": "file-x", "endpoint": "/v1/chat/completions", "completion_window": "24h"}


async def create(client: AsyncOpenAI, **changes: Any) -> Any:
    return await client.batches.create(**{**REQUEST, **changes})


async def post(http: aiohttp.ClientSession, body: Any, **headers: str) -> tuple[int, dict[str, Any]]:
    content = body if isinstance(body, bytes) else msgspec.json.encode(body)
    headers = {"Content-Type": "application/json", **headers}
    async with http.post("/v1/batches", data=content, headers=headers) as answer:
        return answer.status, await answer.json()
