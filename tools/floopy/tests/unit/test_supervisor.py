"""The supervisor with small real programs: restarts, what they need, crash loops, the end."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from waiting import eventually

from floopy.stack.supervisor import (
    CrashLoopError,
    Death,
    Limits,
    NotReadyError,
    ProcessRecord,
    Supervisor,
    deaths_in,
)

SERVES = "ready.touch(); time.sleep(60)"
FAILS = "sys.exit('no such table: batches')"


class Told:
    """What the supervisor has told about its children, last first."""

    def __init__(self) -> None:
        self.history: list[list[ProcessRecord]] = []
        self.deaths: list[Death] = []

    def __call__(self, running: Sequence[ProcessRecord]) -> None:
        self.history.append(list(running))

    @property
    def names(self) -> list[str]:
        return [record.name for record in self.history[-1]]

    def pid(self, name: str) -> int | None:
        return next((record.pid for record in self.history[-1] if record.name == name), None)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
async def supervisor(tmp_path: Path, told: Told) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(tmp_path / "logs", Limits(max_deaths=3, window=30), told, told.deaths.append)
    yield supervisor
    await supervisor.stop()


async def test_killed_child_comes_back(supervisor, told, make_program) -> None:
    supervisor.add("sink", make_program("sink", SERVES).make)
    await supervisor.wait_ready(20)
    first = told.pid("sink")

    os.kill(first, signal.SIGKILL)

    await eventually(lambda: told.pid("sink") not in {None, first}, timeout=20, what="another pid")
    await supervisor.wait_ready(20)
    assert [(death.child, death.end) for death in told.deaths] == [("sink", "SIGKILL")]


def test_what_is_said_of_a_death_is_read_back_from_what_was_printed() -> None:
    killed = Death("sink", "SIGKILL", Path("/var/a log/sink.log"))
    crashed = Death("floopy-api", "exit code 1", Path("api.log"))

    assert deaths_in(f"Ready.\n{killed}\n\n{crashed}\nStopping ...\n") == [killed, crashed]


@pytest.mark.parametrize(
    ("end", "crashed"), [("exit code 0", True), ("exit code 1", True), ("SIGSEGV", True), ("SIGKILL", False)]
)
def test_who_was_killed_has_not_crashed(end: str, crashed: bool) -> None:
    assert Death("sink", end, Path("sink.log")).is_crash is crashed


async def test_deaths_after_readiness_are_no_crash_loop(supervisor, make_program) -> None:
    program = make_program("sink", "ready.touch(); time.sleep(0.15)")
    supervisor.add("sink", program.make)
    watching = asyncio.create_task(supervisor.watch())

    await eventually(lambda: program.starts > 4, timeout=20, what="five starts")

    assert not watching.done()
    watching.cancel()


async def test_crash_loop_says_whose_why_and_last_words(supervisor, make_program) -> None:
    program = make_program("sink", FAILS)
    supervisor.add("sink", program.make)

    with pytest.raises(CrashLoopError, match="sink died 3 times") as caught:
        await asyncio.wait_for(supervisor.watch(), 20)

    assert "exit code 1" in str(caught.value)
    assert "no such table: batches" in str(caught.value)
    assert program.starts == 3


async def test_wait_ready_raises_the_crash_loop(supervisor, make_program) -> None:
    supervisor.add("sink", make_program("sink", FAILS).make)

    with pytest.raises(CrashLoopError):
        await supervisor.wait_ready(20)


async def test_restarts_back_off(supervisor, told, make_program) -> None:
    supervisor.add("sink", make_program("sink", FAILS).make)
    clock = asyncio.get_running_loop().time
    started = clock()

    with pytest.raises(CrashLoopError):
        await supervisor.watch()

    assert clock() - started > 0.2 + 0.4


async def test_child_waits_for_what_it_needs(supervisor, make_program, tmp_path) -> None:
    door = tmp_path / "door"
    behind = f"while not pathlib.Path({str(door)!r}).exists(): time.sleep(0.01)\n"
    needed = make_program("mongod", behind + SERVES)
    needing = make_program("sink", SERVES)
    need = supervisor.add("mongod", needed.make)
    supervisor.add("sink", needing.make, [need])
    await eventually(lambda: needed.starts == 1, timeout=20, what="a start")
    assert needing.starts == 0

    door.touch()

    await supervisor.wait_ready(20)
    assert needing.starts == 1


async def test_deaths_while_a_need_is_away_do_not_count(supervisor, told, make_program) -> None:
    was = "was = pathlib.Path(f'{ready}.was')\nif was.exists(): time.sleep(60)\nwas.touch()\n"
    need = supervisor.add("mongod", make_program("mongod", was + SERVES).make)
    needing = make_program("sink", "time.sleep(60)")
    sink = supervisor.add("sink", needing.make, [need])
    await eventually(lambda: needing.starts == 1, timeout=20, what="a start")

    os.kill(told.pid("mongod"), signal.SIGKILL)
    await eventually(lambda: not need.ready.is_set(), timeout=20, what="a need that is away")
    os.kill(told.pid("sink"), signal.SIGKILL)
    await eventually(lambda: sink.deaths == 1, timeout=20, what="a death that is noticed")

    assert not sink.untimely
    assert needing.starts == 1


async def test_not_ready_in_time_says_who(supervisor, make_program) -> None:
    waits = "print('waiting for a primary', flush=True); time.sleep(60)"
    supervisor.add("sink", make_program("sink", waits).make)

    with pytest.raises(NotReadyError, match="sink was not ready") as caught:
        await supervisor.wait_ready(1)

    assert "waiting for a primary" in str(caught.value)


async def test_stop_ends_what_is_needed_last(supervisor, told, make_program) -> None:
    need = supervisor.add("mongod", make_program("mongod", SERVES).make)
    supervisor.add("sink", make_program("sink", SERVES).make, [need])
    await supervisor.wait_ready(20)

    await supervisor.stop()

    last_three = [sorted(record.name for record in running) for running in told.history[-3:]]
    assert last_three == [["mongod", "sink"], ["mongod"], []]


async def test_stop_kills_what_ignores_the_signal(supervisor, told, make_program) -> None:
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SERVES
    supervisor.add("sink", make_program("sink", deaf).make)
    await supervisor.wait_ready(20)
    pid = told.pid("sink")

    await supervisor.stop()

    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_failing_preparation_is_raised(supervisor) -> None:
    def make() -> None:
        raise FileNotFoundError("mongod")

    supervisor.add("mongod", make)

    with pytest.raises(FileNotFoundError):
        await supervisor.wait_ready(20)
