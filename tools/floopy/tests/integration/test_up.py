"""`floopy up` itself: what it leaves in its directory, and that nothing outlives it."""

import asyncio
import json
import os
import re
import signal
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from waiting import eventually

from floopy.simulation import Simulator
from floopy_common.chassis.mongo import Mongo

READY = 120.0
NAMES = {
    "floopy-api", "floopy-submitter", "floopy-reconciler", "floopy-metering", "floopy-logging",
    "floopy-feedback", "mongod", "broker", "simulator", "floopy-up",
}  # fmt: skip


class Up:
    """One run of `floopy up` in a process of its own."""

    def __init__(self, data_dir: Path, process: asyncio.subprocess.Process) -> None:
        self.data_dir = data_dir
        self.process = process

    def read(self, name: str) -> Any:
        return json.loads((self.data_dir / name).read_text())

    @property
    def processes(self) -> dict[str, dict[str, Any]]:
        return {row["name"]: row for row in self.read("processes.json")}

    async def ready(self) -> None:
        def is_ready() -> bool:
            if (self.data_dir / "credentials.json").exists():
                return True
            assert self.process.returncode is None, (self.data_dir / "up.log").read_text()
            return False

        await eventually(is_ready, timeout=READY, what="a ready system")

    async def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), 60)


@asynccontextmanager
async def up(data_dir: Path, *arguments: str, **environment: str) -> AsyncIterator[Up]:
    data_dir.mkdir(exist_ok=True)
    with (data_dir / "up.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "floopy", "up", "--port", "0", "--broker", "embedded"),
            *("--data-dir", str(data_dir), *arguments),
            env={**os.environ, **environment},
            stdout=log,
            stderr=log,
        )
    try:
        yield Up(data_dir, process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


async def all_gone(pids: list[int]) -> None:
    await eventually(lambda: not any(alive(pid) for pid in pids), what="the end of every process")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_a_killed_system_leaves_nothing_and_comes_back_as_it_was(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    async with up(data_dir) as first:
        await first.ready()
        before, processes = first.read("credentials.json"), first.processes
        assert set(processes) == NAMES
        assert all(alive(row["pid"]) for row in processes.values())
        assert processes["floopy-up"]["pid"] == first.process.pid
        assert before["base_url"] == f"http://127.0.0.1:{processes['floopy-api']['port']}/v1"
        for name in ("credentials.json", "processes.json", "secret.key", "state.json"):
            assert mode(data_dir / name) == 0o600, name

        assert await first.end(signal.SIGKILL) == -signal.SIGKILL
        await all_gone([row["pid"] for row in processes.values()])

    (data_dir / "credentials.json").unlink()  # stale: its writer had no chance to remove it
    async with up(data_dir) as second:
        await second.ready()
        assert second.read("credentials.json") == before
        assert {n: r["port"] for n, r in second.processes.items()} == {
            n: r["port"] for n, r in processes.items()
        }
        assert await Simulator(before["simulator_url"]).batches() == []

        assert await second.end(signal.SIGTERM) == 0

    assert not (data_dir / "credentials.json").exists()
    assert list(second.processes) == ["floopy-up"]


async def test_a_crash_loop_ends_everything_and_says_whose_and_why(
    tmp_path: Path, mongo: Mongo, mongo_uri: str, mongo_database: str
) -> None:
    await mongo.collection("meta").upsert({"_id": "schema"}, {"$set": {"version": 99}})
    database = {"FLOOPY_MONGO__URI": mongo_uri, "FLOOPY_MONGO__DATABASE": mongo_database}

    async with up(tmp_path / "data", FLOOPY_SUPERVISOR__MAX_DEATHS="2", **database) as system:
        assert await asyncio.wait_for(system.process.wait(), READY) == 1

    said = (tmp_path / "data" / "up.log").read_text()
    assert re.search(r"floopy-\w+ died 2 times within 60 s before it was ready, last with exit code \d", said)
    assert "the database has schema 99" in said
    first = said.partition("died 2 times")[0]
    assert re.search(
        r"floopy-\w+ ended with exit code \d and is started again; see \S+\n\S+ ends with:", first
    )
    assert "the database has schema 99" in first, "what it said goes on with what the next start says"
    assert "mongod" not in system.processes


async def test_a_setting_that_cannot_be_is_said_in_words(tmp_path: Path) -> None:
    async with up(tmp_path / "data", FLOOPY_LEASE__TTL="never") as system:
        assert await asyncio.wait_for(system.process.wait(), READY) == 1

    said = (tmp_path / "data" / "up.log").read_text()
    assert "lease.ttl" in said
    assert "Traceback" not in said


async def test_two_systems_never_share_a_directory(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    async with up(
        data_dir, FLOOPY_MONGO__URI="mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=1000"
    ) as first:
        await eventually((data_dir / "processes.json").exists, what="a system that has begun")
        async with up(data_dir) as second:
            assert await asyncio.wait_for(second.process.wait(), 30) == 1
        assert "another floopy up" in (data_dir / "up.log").read_text()
        await first.end(signal.SIGTERM)
