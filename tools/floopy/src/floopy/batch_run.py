"""One batch from a local file to a local file, through the public API alone."""

import json
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openai import APIConnectionError, APIStatusError, OpenAI
from openai.types import Batch

TERMINAL = frozenset({"completed", "failed", "expired", "cancelled"})
PAUSE_MIN = 0.2
PAUSE_MAX = 2.0
ONE_REQUEST = 100 * 1024 * 1024
"""Bytes of a file that is sent in one request; a larger one goes in parts."""
OUTAGE = 300.0
"""Seconds the API may be away while we wait; the batch goes on meanwhile."""


class InputError(Exception):
    """The input file cannot be the input of a batch."""


@dataclass(frozen=True)
class Request:
    """What the person asked for; `endpoint` None: that of the first line."""

    input: Path
    output: Path
    errors: Path
    endpoint: str | None = None
    provider: str | None = None


def endpoint_of(file: Path) -> str:
    """The endpoint that the first line names. Raises InputError."""
    with file.open("rb") as lines:
        first = lines.readline()
    try:
        url = json.loads(first)["url"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file}: the first line is no batch request with a url") from error
    return str(url)


def create(client: OpenAI, request: Request) -> Batch:
    """Uploads the file and creates its batch; a retried call makes no second one."""
    endpoint: Any = request.endpoint or endpoint_of(request.input)
    file_id = _upload(client, request.input)
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    if request.provider:
        headers["floopy-provider"] = request.provider
    return client.batches.create(
        input_file_id=file_id, endpoint=endpoint, completion_window="24h", extra_headers=headers
    )


def _upload(client: OpenAI, file: Path) -> str:
    """The id of the stored file, however large it is."""
    if file.stat().st_size <= ONE_REQUEST:
        return client.files.create(file=file, purpose="batch").id
    upload = client.uploads.upload_file_chunked(file=file, mime_type="application/jsonl", purpose="batch")
    if upload.file is None:
        raise InputError(f"{file}: its upload ended {upload.status}")
    return upload.file.id


def follow(client: OpenAI, batch: Batch, pause: Callable[[float], None] = time.sleep) -> Iterator[Batch]:
    """Yields the batch at each look until it is terminal; bears with an API that is away for a while."""
    interval, away_since = PAUSE_MIN, None
    while True:
        yield batch
        if batch.status in TERMINAL:
            return
        pause(interval)
        interval = min(interval * 1.5, PAUSE_MAX)
        try:
            batch, away_since = client.batches.retrieve(batch.id), None
        except (APIConnectionError, APIStatusError) as error:
            away_since = away_since or time.monotonic()
            if not _passing(error) or time.monotonic() - away_since > OUTAGE:
                raise


def _passing(error: APIConnectionError | APIStatusError) -> bool:
    return isinstance(error, APIConnectionError) or error.status_code >= 500


def download(client: OpenAI, file_id: str | None, target: Path) -> bool:
    """Streams a file of the batch to disk; False where there is none."""
    if not file_id:
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f"{target.name}.part")
    with client.files.with_streaming_response.content(file_id) as answer:
        answer.stream_to_file(unfinished)
    unfinished.replace(target)
    return True
