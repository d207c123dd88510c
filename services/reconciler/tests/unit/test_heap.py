"""Memory that is done with goes back, and the limits for that can be set here."""

import subprocess
import sys

PROGRAM = """
import sys, threading
from floopy_reconciler.adapters.heap import bound_heap
assert bound_heap()
def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096
def work():
    for _ in range(3):
        held = [bytes([1]) * 600_000 for _ in range(40)]
before = resident()
for _ in range(8):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
assert resident() - before < 8_000_000, resident() - before
"""


def test_large_buffers_of_threads_are_given_back() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, timeout=60)
