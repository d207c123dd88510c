"""Plan: 200 MB of input validated, indexed and cut into segments and shards by the submitter's own planner.

The limit is one loop in this process that decodes the same lines and does nothing else.
"""

import asyncio
import time

import msgspec

from benchmarks.data import chat_line
from benchmarks.harness import Options, Outcome
from benchmarks.planned import running_submitter

LINE_BYTES = 1_200
MODELS = {"openai": "gpt-4o-mini", "anthropic": "claude-haiku-4-5"}


async def run(options: Options) -> Outcome:
    lines = 2_000 if options.small else 170_000
    outcome = Outcome("plan", "lines/s", details={"lines": lines, "provider": options.provider})
    rows = []
    model = MODELS[options.provider]
    async with running_submitter() as submitter:
        warm = await submitter.batch(min(lines, 5_000), LINE_BYTES, options.provider, model)
        await submitter.plan(warm)
        for number in range(1, options.rounds + 1):
            batch = await submitter.batch(lines, LINE_BYTES, options.provider, model)
            used = time.process_time()
            seconds = await submitter.plan(batch)
            us = round((time.process_time() - used) / lines * 1e6, 1)
            limit = await asyncio.to_thread(decoding, lines, model)
            outcome.values.append(lines / seconds)
            outcome.limits.append(limit)
            mb = round(batch["input"]["bytes"] / seconds / 1e6)
            rows.append((number, round(seconds, 2), round(lines / seconds), mb, us, round(limit)))
    header = ("round", "seconds", "lines/s", "MB/s", "CPU us/line", "decode only lines/s")
    outcome.tables.append((header, rows))
    return outcome


def decoding(lines: int, model: str, most: int = 20_000) -> float:
    """Lines a second of decoding alone, of as many lines as say it well enough."""
    data = b"".join(
        chat_line(number, LINE_BYTES, "bench", model) for number in range(1, min(lines, most) + 1)
    )
    started = time.monotonic()
    count = 0
    for line in data.splitlines():
        msgspec.json.decode(line)
        count += 1
    return count / (time.monotonic() - started)
