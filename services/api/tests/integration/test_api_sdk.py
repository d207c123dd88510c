"""The surface as the official SDK uses it."""

import openai
from openai import AsyncOpenAI

LINE = b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{}}\n'


async def test_upload_create_and_read_back(openai_client: AsyncOpenAI) -> None:
    file = await openai_client.files.create(file=("in.jsonl", LINE * 3), purpose="batch")
    batch = await openai_client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"a": "b"}
    )
    assert batch.status == "validating"
    again = await openai_client.batches.retrieve(batch.id)
    assert again.model_dump() == batch.model_dump()
    assert (await openai_client.files.content(file.id)).content == LINE * 3
