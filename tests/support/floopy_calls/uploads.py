"""Uploads in parts: calls that make them, and what is stored of them."""

from datetime import timedelta
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

LINE = b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{}}\n'
PARTS = (LINE * 3 + b'{"custom_id":', b'"b"}\n' + b"x" * 600_000, b"the end")
WHOLE = b"".join(PARTS)


async def create(client: AsyncOpenAI, size: int = len(WHOLE), **more: Any) -> Any:
    asked = {"filename": "in.jsonl", "purpose": "batch", "mime_type": "application/jsonl", **more}
    return await client.uploads.create(bytes=size, **asked)


async def add(client: AsyncOpenAI, upload: Any, *parts: bytes) -> list[str]:
    """The ids of these parts, sent one after the other."""
    return [(await client.uploads.parts.create(upload.id, data=part)).id for part in parts]


async def row(service: Any, upload: Any) -> dict[str, Any]:
    found = await service.mongo.collection("uploads").find_one({"_id": upload.id})
    assert found is not None
    return dict(found)


async def expire(service: Any, upload: Any) -> None:
    past = (await row(service, upload))["created_at"] - timedelta(seconds=1)
    await service.mongo.collection("uploads").update_one({"_id": upload.id}, {"$set": {"expires_at": past}})


def refused(call: Any) -> Any:
    """Awaits the call and gives back OpenAI's error object; fails when it was not a 400."""

    async def outcome() -> dict[str, Any]:
        with pytest.raises(openai.BadRequestError) as caught:
            await call
        return dict(caught.value.body)

    return outcome()
