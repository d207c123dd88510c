"""What calls that may be merged are made of: documents, and a count of the commands they became."""

from collections import Counter
from typing import Any

from pymongo import monitoring


class Commands(monitoring.CommandListener):
    """Counts the commands that clients opened since send."""

    def __init__(self) -> None:
        self.names: Counter[str] = Counter()

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        self.names[event.command_name] += 1

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None: ...

    def failed(self, event: monitoring.CommandFailedEvent) -> None: ...


def segment(batch: str, no: int, **fields: Any) -> dict[str, Any]:
    return {"_id": f"{batch}:{no}", "batch_id": batch, "plan_id": f"plan_{batch}", "no": no, **fields}
