"""A failpoint kills the process for real, and only at its own name."""

import signal
import subprocess
import sys

import pytest

from floopy_common.chassis import failpoints

_PROGRAM = """
from floopy_common.chassis.failpoints import Failpoints
points = Failpoints("here")
points.hit("elsewhere")
print("before", flush=True)
points.hit("here")
print("after", flush=True)
"""


def test_hit_kills_with_sigkill_at_the_named_step_only() -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=False)

    assert done.returncode == -signal.SIGKILL
    assert done.stdout == "before\n"


def test_a_name_is_declared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failpoints, "FAILPOINTS", {})
    failpoints.declare({"a.b": "a moment"})

    with pytest.raises(ValueError, match="declared twice"):
        failpoints.declare({"a.b": "another"})
