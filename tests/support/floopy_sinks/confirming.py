"""The confirm step as the tests set it up: its rows, its records, and where it parks."""

from collections.abc import Callable, Sequence
from typing import Any

from floopy_common.chassis.consumer import LineRecord
from floopy_common.chassis.mongo import Document, Mongo
from floopy_common.chassis.producer import NotSent
from floopy_common.domain.segment import Sink
from floopy_common.events.lines import LineCompleted
from floopy_common.stores.confirming import Confirming


class Parking:
    """Stands where the dead letters are: keeps what is parked, or cannot."""

    def __init__(self) -> None:
        self.letters: list[tuple[str, str]] = []
        self.away = False

    async def __call__(self, refused: Sequence[tuple[LineRecord, str]]) -> None:
        if self.away:
            raise NotSent("no dead letters today")
        self.letters += [(record.line.line_id, reason) for record, reason in refused]


def logging_sink(mongo: Mongo, parking: Parking, **hooks: Any) -> Confirming:
    return Confirming(mongo, Sink.LOGGING, "requests", park=parking, hit=lambda _: None, **hooks)


def row(line: LineCompleted) -> Document:
    return {
        "_id": line.line_id,
        "batch_id": line.batch_id,
        "segment": line.segment.no,
        "status": "succeeded",
        "custom_id": line.custom_id,
        "tokens": line.usage.input_tokens if line.usage else None,
    }


def records(lines: Sequence[LineCompleted]) -> list[LineRecord]:
    return [LineRecord(line, None) for line in lines]  # type: ignore[arg-type]  # nobody looks at the record


async def rows_of(mongo: Mongo, name: str = "requests") -> list[Document]:
    return await mongo.collection(name).find_all({}, sort=[("_id", 1)])


Refuse = Callable[[str], Any]
