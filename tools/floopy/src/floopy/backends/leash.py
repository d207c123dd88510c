"""Replaces itself with a command that the kernel kills as soon as the process that started it is gone.

Run as a script: `python -I -S leash.py PARENT_PID NICENESS COMMAND ARGUMENT...`. A script of its own rather
than a function between fork and exec, because the parent may have threads.
"""

import contextlib
import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, niceness, command = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the leash was on
        sys.exit(1)
    be_nice(niceness)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"cannot run {command[0]}: {error.strerror}")


def be_nice(niceness: int) -> None:
    os.nice(niceness)
    if niceness:
        # a session of its own is a scheduling group of its own, whose niceness is what counts between groups
        with contextlib.suppress(OSError), open("/proc/self/autogroup", "w") as group:
            group.write(str(niceness))


if __name__ == "__main__":
    main()
