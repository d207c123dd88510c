"""The index of dead letters: where each record that could not be taken lies."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from floopy_common.chassis.dead_letters import DeadLetter
from floopy_common.chassis.mongo import Document, Mongo
from floopy_common.chassis.pipelines import assign

_FIELDS = tuple(one.name for one in fields(DeadLetter))
_PARKED = "parked"
_REPLAYED = "replayed"


class DeadLetterStore:
    """The collection `dead_letters`."""

    def __init__(self, mongo: Mongo) -> None:
        self._letters = mongo.collection("dead_letters")

    async def add(self, letters: Sequence[DeadLetter]) -> None:
        """Note where the letters are; the same record parked once more is the same row, pointing anew."""
        for letter in letters:
            row = _row(letter)
            await self._letters.replace({"_id": row["_id"]}, row, upsert=True)

    async def parked(
        self,
        *,
        topic: str | None = None,
        group: str | None = None,
        letter_id: str | None = None,
    ) -> list[DeadLetter]:
        """Letters not replayed since, oldest first, of one topic, of one group, or one letter."""
        criteria: Mapping[str, Any] = {"_id": letter_id, "topic": topic, "group": group}
        given = {name: value for name, value in criteria.items() if value is not None}
        rows = await self._letters.find_all({**given, "state": _PARKED}, sort=[("at", 1), ("_id", 1)])
        return [DeadLetter(**{name: row[name] for name in _FIELDS}) for row in rows]

    async def mark_replayed(self, letter: DeadLetter) -> bool:
        """The record is back in its topic; False when it was parked anew or replayed meanwhile."""
        matched = await self._letters.update_one(
            {"_id": letter.id, "state": _PARKED, "dlq_offset": letter.dlq_offset},
            [assign({"state": _REPLAYED}, now=["replayed_at"])],
        )
        return matched == 1


def _row(letter: DeadLetter) -> Document:
    return {"_id": letter.id, **asdict(letter), "state": _PARKED}
