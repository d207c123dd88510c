"""Memory that is done with goes back, and the limits for that can be set here."""

import subprocess
import sys

PROGRAM = """
import threading
from floopy_common.chassis.heap import bound_heap

assert bound_heap()
kept = []

def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096

def work():
    for _ in range(4):
        held = [bytes([1]) * 5_000_000 for _ in range(8)]
        kept.append(bytearray(200_000))  # keeps a heap that grew from shrinking again

before = resident()
threads = [threading.Thread(target=work) for _ in range(6)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert resident() - before < 25_000_000, resident() - before
"""


def test_large_buffers_of_threads_are_given_back() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, timeout=60)
