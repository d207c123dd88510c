"""Puts the Anthropic half together: what it remembers, how it moves and how it is reached."""

from collections.abc import Callable
from pathlib import Path

import msgspec

from floopy_simulator.anthropic.batch_handlers import PREFIX, BatchHandlers
from floopy_simulator.anthropic.batches import Batch, BatchStore, to_ledger, to_wire
from floopy_simulator.anthropic.inference_handlers import InferenceHandlers
from floopy_simulator.anthropic.routes import Routes
from floopy_simulator.anthropic.runner import Runner, Target
from floopy_simulator.anthropic.work import Work
from floopy_simulator.clock import Clock
from floopy_simulator.config import Config
from floopy_simulator.gate import Gate
from floopy_simulator.journal import Journal


class Advance(msgspec.Struct, forbid_unknown_fields=True):
    to: Target
    completed: int | None = None


class AnthropicHalf:
    """Everything of it that one data directory holds."""

    def __init__(
        self,
        *,
        directory: Path,
        journal: Journal,
        clock: Clock,
        config: Callable[[], Config],
        executions: dict[str, int],
    ) -> None:
        self._journal = journal
        self._clock = clock
        self._config = config
        self._executions = executions
        self._messages_ledger = directory / "messages.ledger"
        self.batches = BatchStore(journal, directory / "batches")
        self._work = Work(
            journal=journal, clock=clock, config=config, batches=self.batches, executions=executions
        )
        self.runner = Runner(work=self._work, clock=clock, config=config, batches=self.batches)

    def routes(self, gate: Gate) -> Routes:
        return Routes(
            gate=gate,
            clock=self._clock,
            config=self._config,
            batches=BatchHandlers(
                batches=self.batches,
                work=self._work,
                runner=self.runner,
                clock=self._clock,
                config=self._config,
            ),
            inference=InferenceHandlers(
                config=self._config,
                journal=self._journal,
                executions=self._executions,
                ledger_path=self._messages_ledger,
            ),
        )

    def find(self, batch_id: str) -> Batch | None:
        return self.batches.batches.get(batch_id)

    async def advance(self, batch: Batch, body: bytes, origin: str) -> dict[str, object]:
        """Raises msgspec.DecodeError for a target that there is not."""
        advance = msgspec.json.decode(body, type=Advance)
        await self.runner.advance(batch, advance.to, advance.completed)
        return to_wire(batch, self._clock.now(), origin + PREFIX)

    def ledger_batches(self) -> list[dict[str, object]]:
        return [to_ledger(batch) for batch in self.batches.batches.values()]

    def ledger_source(self, batch: Batch) -> tuple[Path, int]:
        """Its file of executed requests, and how much of that has been recorded."""
        return self.batches.ledger_path(batch), batch.totals.ledger_bytes

    def ledger_sources(self) -> list[tuple[Path, int]]:
        sources = [self.ledger_source(batch) for batch in self.batches.batches.values()]
        direct = self._messages_ledger
        return [*sources, (direct, direct.stat().st_size if direct.exists() else 0)]
