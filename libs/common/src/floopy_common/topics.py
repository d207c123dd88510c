"""Every topic, declared once: who writes it, who reads it, what its key is."""

from collections.abc import Mapping
from dataclasses import dataclass, field

_DAY_MS = 86_400_000


@dataclass(frozen=True)
class Topic:
    """A topic; `key` is what one record's key names, `config` goes to the broker as it is."""

    name: str
    key: str
    producers: tuple[str, ...]
    consumers: tuple[str, ...] = ()
    config: Mapping[str, str] = field(default_factory=dict)
    description: str = ""

    @property
    def dlq(self) -> str | None:
        """Where a consumed topic's poison goes; None for a topic that only analysts read."""
        return f"{self.name}.dlq" if self.consumers else None


_FACT = {"cleanup.policy": "delete", "retention.ms": str(30 * _DAY_MS)}
_LINES = {"cleanup.policy": "delete", "retention.ms": str(7 * _DAY_MS)}
_STATE = {"cleanup.policy": "compact"}

TOPICS: dict[str, Topic] = {
    topic.name: topic
    for topic in (
        Topic(
            "batch.created", "batch", ("floopy-api",), ("floopy-submitter",), _FACT, "A batch was accepted."
        ),
        Topic(
            "batch.cancel.requested",
            "batch",
            ("floopy-api",),
            ("floopy-reconciler",),
            _FACT,
            "A user asked to cancel.",
        ),
        Topic(
            "batch.submitted",
            "batch",
            ("floopy-submitter",),
            ("floopy-reconciler",),
            _FACT,
            "A shard became a provider batch.",
        ),
        Topic("batch.completed", "batch", ("floopy-reconciler",), (), _FACT, "Every line has its outcome."),
        Topic(
            "batch.failed",
            "batch",
            ("floopy-submitter", "floopy-reconciler"),
            ("floopy-metering",),
            _FACT,
            "Refused; nothing ran.",
        ),
        Topic("batch.expired", "batch", ("floopy-reconciler",), (), _FACT, "The window ended first."),
        Topic(
            "batch.cancelled",
            "batch",
            ("floopy-reconciler",),
            ("floopy-metering",),
            _FACT,
            "Cancelled; finished lines are kept.",
        ),
        Topic(
            "batch.line.completed",
            "line",
            ("floopy-reconciler",),
            ("floopy-metering", "floopy-logging", "floopy-feedback"),
            _LINES,
            "One line has its outcome.",
        ),
        Topic("batch.line.scored", "line", ("floopy-feedback",), (), _LINES, "One line was scored."),
        Topic("usage.recorded", "batch", ("floopy-metering",), (), _FACT, "A batch's usage is complete."),
        Topic(
            "routing.score.updated",
            "org, provider and model",
            ("floopy-feedback",),
            (),
            _STATE,
            "A model's standing changed.",
        ),
    )
}


def full_name(prefix: str, topic: str) -> str:
    """The topic's name at the broker."""
    return f"{prefix}{topic}"


def creation_list(
    prefix: str, partitions: int, max_message_bytes: int
) -> list[tuple[str, int, dict[str, str]]]:
    """(name, partitions, config) of every topic and every dead-letter topic."""
    sized = {"max.message.bytes": str(max_message_bytes)}
    rows = [(full_name(prefix, t.name), partitions, {**t.config, **sized}) for t in TOPICS.values()]
    # a dead letter is the original plus its cause, so it may be a little larger
    letters = {"retention.ms": str(90 * _DAY_MS), "max.message.bytes": str(2 * max_message_bytes)}
    rows += [(full_name(prefix, t.dlq), partitions, letters) for t in TOPICS.values() if t.dlq]
    return rows
