"""The official SDKs, installed beside the project and sent on the journey, each in a process of its own."""

import asyncio
import hashlib
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from floopy_e2e.stack import Stack

from floopy_clients import journey

_ROOT = Path(__file__).parents[3]
_CLIENTS = _ROOT / "tests/clients"
_CACHE = _ROOT / ".cache/clients"
_SCRIPT = Path(journey.__file__)


@dataclass(frozen=True, slots=True)
class Program:
    """A command that prints a report; the address, the key and a directory follow as its arguments."""

    name: str
    command: tuple[str, ...]


async def installed_python(name: str) -> list[Program]:
    """The journeys of the SDK of tests/clients/<name>; its environment is made once."""
    requirements = _CLIENTS / name / "requirements.txt"
    home = _CACHE / name
    python = home / "bin/python"
    if not _is_made(home, requirements):
        shutil.rmtree(home, ignore_errors=True)
        await _succeeds(sys.executable, "-m", "venv", str(home))
        pip = (str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check")
        await _succeeds(*pip, "--require-hashes", "--only-binary", ":all:", "-r", str(requirements))
        _mark(home, requirements)
    return [Program(f"{name}-{way}", (str(python), str(_SCRIPT), way)) for way in ("sync", "async")]


async def installed_node() -> list[Program]:
    """The journeys of the Node SDK; none where there is no Node."""
    if not node_is_here():
        return []
    source, home = _CLIENTS / "node", _CACHE / "node"
    if not _is_made(home, source / "package-lock.json"):
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(source / name, home)
        await _succeeds("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(home))
        _mark(home, source / "package-lock.json")
    shutil.copy(source / "journey.mjs", home)  # modules are looked for beside the program
    script = str(home / "journey.mjs")
    return [Program(f"node-{sdk}", ("node", script, sdk)) for sdk in ("openai", "openai6")]


def node_is_here() -> bool:
    return shutil.which("node") is not None and shutil.which("npm") is not None


async def report_of(program: Program, stack: Stack, work: Path) -> dict[str, Any]:
    """Send one program on the journey."""
    work.mkdir(parents=True)
    base_url, api_key = stack.credentials["base_url"], stack.credentials["api_key"]
    printed = await _succeeds(*program.command, base_url, api_key, str(work))
    report: dict[str, Any] = json.loads(printed)
    return report


async def locked_report(way: str, stack: Stack, work: Path) -> dict[str, Any]:
    """The journey of the locked SDK, in this process."""
    work.mkdir(parents=True)
    base_url, api_key = stack.credentials["base_url"], stack.credentials["api_key"]
    return await asyncio.to_thread(journey.travel, way, base_url, api_key, work)


async def _succeeds(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == 0, f"{command[:4]} ended with {process.returncode}: {err.decode()[-3000:]}"
    return out.decode()


def _digest(lock: Path) -> str:
    return hashlib.sha256(lock.read_bytes()).hexdigest()


def _is_made(home: Path, lock: Path) -> bool:
    mark = home / "made-from"
    return mark.exists() and mark.read_text() == _digest(lock)


def _mark(home: Path, lock: Path) -> None:
    (home / "made-from").write_text(_digest(lock))
