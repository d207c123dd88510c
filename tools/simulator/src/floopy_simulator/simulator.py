"""Puts the simulator together: what it remembers, how it moves and how it is reached."""

from pathlib import Path

import msgspec
from aiohttp import web

from floopy_simulator.anthropic.half import AnthropicHalf
from floopy_simulator.clock import Clock
from floopy_simulator.config import Config
from floopy_simulator.faults import FaultBook
from floopy_simulator.gate import Gate
from floopy_simulator.journal import Journal
from floopy_simulator.openai.batch_handlers import BatchHandlers
from floopy_simulator.openai.batches import Batch, BatchStore, to_wire
from floopy_simulator.openai.file_handlers import FileHandlers
from floopy_simulator.openai.files import FileStore
from floopy_simulator.openai.inference_handlers import InferenceHandlers
from floopy_simulator.openai.routes import Routes
from floopy_simulator.openai.runner import Runner
from floopy_simulator.openai.work import Work


class Simulator:
    """Everything one data directory holds."""

    def __init__(self, directory: Path, overrides: dict[str, object]) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.journal = Journal(directory / "journal.sqlite3")
        self.clock = Clock(float(self.journal.read_setting("clock") or b"0"))
        stored = msgspec.json.decode(self.journal.read_setting("config") or b"{}", type=dict[str, object])
        self.config = msgspec.convert({**stored, **overrides}, Config)
        self.book = FaultBook()
        self.files = FileStore(self.journal, self.clock, directory / "openai" / "files")
        self.batches = BatchStore(self.journal, directory / "openai" / "batches")
        self.chat_ledger_path = directory / "openai" / "chat.ledger"
        self.work = Work(
            journal=self.journal,
            clock=self.clock,
            config=self._read_config,
            files=self.files,
            batches=self.batches,
        )
        self.runner = Runner(work=self.work, clock=self.clock, config=self._read_config, batches=self.batches)
        self.anthropic = AnthropicHalf(
            directory=directory / "anthropic",
            journal=self.journal,
            clock=self.clock,
            config=self._read_config,
            executions=self.work.executions,
        )

    def register(self, app: web.Application) -> None:
        gate = Gate(journal=self.journal, clock=self.clock, book=self.book)
        self._openai_routes(gate).register(app)
        self.anthropic.routes(gate).register(app)

    def start(self) -> None:
        self.runner.start()
        self.anthropic.runner.start()

    async def stop(self) -> None:
        self.book.remove()
        await self.runner.stop()
        await self.anthropic.runner.stop()
        self.journal.close()

    def _openai_routes(self, gate: Gate) -> Routes:
        return Routes(
            gate=gate,
            config=self._read_config,
            files=FileHandlers(files=self.files, clock=self.clock, config=self._read_config),
            batches=BatchHandlers(
                batches=self.batches,
                files=self.files,
                runner=self.runner,
                clock=self.clock,
                config=self._read_config,
            ),
            inference=InferenceHandlers(
                clock=self.clock,
                config=self._read_config,
                journal=self.journal,
                executions=self.work.executions,
                ledger_path=self.chat_ledger_path,
            ),
        )

    def _read_config(self) -> Config:
        return self.config

    def configure(self, config: Config) -> None:
        """Switching `auto` on also lets batches go that a test had moved by hand."""
        if config.auto and not self.config.auto:
            self.runner.unpin()
            self.anthropic.runner.unpin()
        self.config = config
        self.journal.write_setting("config", msgspec.json.encode(config))
        self._wake()

    def move_clock(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.journal.write_setting("clock", str(self.clock.offset).encode())
        self._wake()

    def _wake(self) -> None:
        self.runner.wake()
        self.anthropic.runner.wake()

    def to_wire(self, batch: Batch) -> dict[str, object]:
        return to_wire(batch, self.clock.now(), self.config.count_lag)
