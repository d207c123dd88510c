"""Translate and submit: from a plan to the bytes that go to the provider, for both providers.

The real stream is read as the HTTP client reads it, and counted instead of sent. The limit is one loop in
this process that decodes the same lines; the figure is that of the slower provider.
"""

import asyncio
import time

from benchmarks.harness import Options, Outcome
from benchmarks.plan import LINE_BYTES, MODELS, decoding
from benchmarks.planned import running_submitter


async def run(options: Options) -> Outcome:
    lines = 2_000 if options.small else 100_000
    outcome = Outcome("translate_submit", "lines/s", details={"lines": lines})
    rows = []
    async with running_submitter() as submitter:
        batches = {}
        for provider, model in MODELS.items():
            batches[provider] = await submitter.batch(lines, LINE_BYTES, provider, model)
            await submitter.plan(batches[provider])
            await submitter.upstream(batches[provider])
        for number in range(1, options.rounds + 1):
            rates = {}
            for provider, batch in batches.items():
                used = time.process_time()
                seconds, size = await submitter.upstream(batch)
                us = round((time.process_time() - used) / lines * 1e6, 1)
                rates[provider] = lines / seconds
                limit = await asyncio.to_thread(decoding, lines, MODELS[provider])
                shown = (
                    round(seconds, 2),
                    round(rates[provider]),
                    round(size / seconds / 1e6),
                    us,
                    round(limit),
                )
                rows.append((number, provider, *shown))
                outcome.details[provider] = round(rates[provider])
            outcome.values.append(min(rates.values()))
            outcome.limits.append(limit)
    header = ("round", "provider", "seconds", "lines/s", "MB/s", "CPU us/line", "decode only lines/s")
    outcome.tables.append((header, rows))
    return outcome
