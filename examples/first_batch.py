"""The first batch, with the official OpenAI SDK: upload, create, wait, download.

OPENAI_BASE_URL=... OPENAI_API_KEY=... python examples/first_batch.py requests.jsonl output.jsonl
--provider anthropic: the same on Anthropic
"""

import argparse
import time

from openai import OpenAI

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("source")
parser.add_argument("target")
parser.add_argument("--provider", choices=["openai", "anthropic"])
arguments = parser.parse_args()

# reads OPENAI_BASE_URL and OPENAI_API_KEY; a header is all it takes to run on another provider
headers = {"floopy-provider": arguments.provider} if arguments.provider else {}
client = OpenAI(default_headers=headers)

with open(arguments.source, "rb") as requests:
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
    client.files.content(batch.output_file_id).write_to_file(arguments.target)
    print(f"results in {arguments.target}")
