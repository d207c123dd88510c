"""A batch of the largest size the provider takes."""

import psutil
from waiting import eventually_sync

LINES = 50_000
GROWTH = 64 << 20
"""The file has 10 MB and its output more than 30: keeping either in memory, let alone both, would show."""


def test_fifty_thousand_lines_run_in_bounded_memory(own_simulator, make_account, requests):
    account = make_account(own_simulator)
    account.run(requests.many(10))
    program = psutil.Process(own_simulator.process.pid)
    before = program.memory_info().rss
    peaks = []
    content = requests.many(LINES)

    batch_id = account.create(content)

    def ended():
        peaks.append(program.memory_info().rss)
        batch = account.client.batches.retrieve(batch_id)
        return batch if batch.status in {"completed", "failed"} else None

    batch = eventually_sync(ended, timeout=60, what="an ended batch")
    output = account.client.files.content(batch.output_file_id).content
    peaks.append(program.memory_info().rss)

    assert (batch.request_counts.completed, output.count(b"\n")) == (LINES, LINES)
    assert len(output) > 30 << 20
    assert max(peaks) - before < GROWTH
