"""Tiny child programs, real processes all of them."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from floopy.backends.backend import Program, until


class FakeProgram:
    """A child whose script the test writes; it is ready once it has created its ready file."""

    def __init__(self, directory: Path, name: str, script: str) -> None:
        self.directory = directory
        self.name = name
        self.script = script

    @property
    def ready_file(self) -> Path:
        return self.directory / f"{self.name}.ready"

    @property
    def starts(self) -> int:
        counted = self.directory / f"{self.name}.starts"
        return len(counted.read_text()) if counted.exists() else 0

    def make(self) -> Program:
        self.ready_file.unlink(missing_ok=True)
        prelude = (
            "import pathlib, sys, time\n"
            f"open({str(self.directory / (self.name + '.starts'))!r}, 'a').write('.')\n"
            f"ready = pathlib.Path({str(self.ready_file)!r})\n"
        )
        command = (sys.executable, "-c", prelude + self.script)
        return Program(self.name, command, 0, self._ready, stop_grace=1.0)

    async def _ready(self) -> None:
        async def there() -> bool:
            return self.ready_file.exists()

        await until(there)


MakeProgram = Callable[[str, str], FakeProgram]


@pytest.fixture
def make_program(tmp_path: Path) -> MakeProgram:
    return lambda name, script: FakeProgram(tmp_path, name, script)
