"""What a test that runs at every provider must know of each."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Provider:
    """One provider, in the words of its simulator's ledger."""

    name: str
    model: str
    creates: str
    """The operation that makes a provider batch."""
    open: frozenset[str]
    """Statuses of provider batches that have not ended."""

    def batches(self, ledger: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [batch for batch in ledger if batch["provider"] == self.name]

    def untouched(self, ledger: list[dict[str, Any]]) -> list[str]:
        """Ids of the open ones that nobody has advanced yet, oldest first."""
        return [
            batch["id"]
            for batch in self.batches(ledger)
            if batch["status"] in self.open and not batch["executed"]
        ]

    def __str__(self) -> str:
        return self.name


OPENAI = Provider(
    "openai", "gpt-4o-mini", "batches.create", frozenset({"validating", "in_progress", "finalizing"})
)
ANTHROPIC = Provider("anthropic", "claude-haiku-4-5", "messages.batches.create", frozenset({"in_progress"}))
PROVIDERS = (OPENAI, ANTHROPIC)
