"""A child process: its leash, its end, its log."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from waiting import eventually

from floopy.backends.process import ChildProcess, tail

SLEEPS = (sys.executable, "-c", "import time; time.sleep(60)")

PARENT = """
import sys, time
from pathlib import Path
from floopy.backends.process import ChildProcess
child = ChildProcess.start("child", sys.argv[2:], Path(sys.argv[1]), {})
print(child.pid, flush=True)
time.sleep(60)
"""


def runs(pid: int) -> bool:
    """A killed process whose new parent has not reaped it yet does not run."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def test_child_dies_with_a_killed_parent(tmp_path) -> None:
    command = (sys.executable, "-c", PARENT, str(tmp_path / "child.log"), *SLEEPS)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        assert runs(child)

        parent.kill()

        await eventually(lambda: not runs(child), timeout=20, what="the end of the child")


async def test_exited_tells_the_signal(tmp_path) -> None:
    child = ChildProcess.start("child", SLEEPS, tmp_path / "child.log", {})

    os.kill(child.pid, signal.SIGKILL)

    assert await asyncio.wait_for(child.exited(), 20) == -signal.SIGKILL
    assert child.returncode == -signal.SIGKILL


async def test_a_child_can_be_nicer_than_its_parent(tmp_path: Path) -> None:
    log = tmp_path / "child.log"
    shows = "import os; print(os.getpriority(os.PRIO_PROCESS, 0), end='')"

    child = ChildProcess.start("child", (sys.executable, "-c", shows), log, {}, niceness=3)
    await asyncio.wait_for(child.exited(), 20)

    assert int(log.read_text()) == os.getpriority(os.PRIO_PROCESS, 0) + 3


async def test_stop_ends_a_stopped_child(tmp_path) -> None:
    child = ChildProcess.start("child", SLEEPS, tmp_path / "child.log", {})
    child.send(signal.SIGSTOP)

    await child.stop(grace=0.2)

    assert child.returncode is not None


async def test_log_is_appended_to(tmp_path) -> None:
    log = tmp_path / "logs" / "child.log"
    for word in ("first", "second"):
        shows = "import os, sys; print(os.environ['WORD']); sys.exit(3)"
        child = ChildProcess.start("child", (sys.executable, "-c", shows), log, {"WORD": word})
        assert await child.exited() == 3

    assert tail(log, 5) == "first\nsecond"
    assert tail(log, 1) == "second"


async def test_missing_program_says_so_in_the_log(tmp_path) -> None:
    child = ChildProcess.start("child", ("/nowhere/mongod",), tmp_path / "child.log", {})

    assert await child.exited() == 1
    assert "cannot run /nowhere/mongod" in tail(tmp_path / "child.log", 1)


async def test_ctrl_c_in_the_terminal_does_not_reach_the_child(tmp_path) -> None:
    child = ChildProcess.start("child", SLEEPS, tmp_path / "child.log", {})

    assert os.getpgid(child.pid) != os.getpgrp()

    await child.stop()


def test_start_outside_the_main_thread_is_refused(tmp_path) -> None:
    raised: list[BaseException] = []

    def start() -> None:
        try:
            ChildProcess.start("child", SLEEPS, tmp_path / "child.log", {})
        except RuntimeError as error:
            raised.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()

    assert raised


def test_tail_of_no_log_is_empty(tmp_path) -> None:
    assert tail(tmp_path / "none.log", 5) == ""
