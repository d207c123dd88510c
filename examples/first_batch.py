"""The first batch, with the official OpenAI SDK: upload, create, wait, download.

OPENAI_BASE_URL=... OPENAI_API_KEY=... python examples/first_batch.py requests.jsonl output.jsonl
"""

import sys
import time

from openai import OpenAI

client = OpenAI()  # reads OPENAI_BASE_URL and OPENAI_API_KEY
source, target = sys.argv[1:3]

with open(source, "rb") as requests:
    uploaded = client.files.create(file=requests, purpose="batch")
batch = client.batches.create(
    input_file_id=uploaded.id, endpoint="/v1/chat/completions", completion_window="24h"
)
print(f"batch {batch.id}")

while batch.status not in {"completed", "failed", "expired", "cancelled"}:
    time.sleep(0.25)
    batch = client.batches.retrieve(batch.id)
    counts = batch.request_counts
    print(f"{batch.status}: {counts.completed + counts.failed} of {counts.total} lines", flush=True)

if batch.output_file_id:
    client.files.content(batch.output_file_id).write_to_file(target)
    print(f"results in {target}")
