"""`floopy dlq`: look at records that could not be taken, and put them back."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from floopy.commands.connection import database_settings, local_credentials
from floopy.commands.failure import fail
from floopy.stack.data_dir import NotUpError
from floopy_common.chassis.dead_letters import DeadLetter
from floopy_common.chassis.mongo import open_mongo
from floopy_common.chassis.replay import open_replayer
from floopy_common.domain.errors import FloopyError
from floopy_common.settings import KafkaSettings, MongoSettings, Settings
from floopy_common.stores.dead_letters import DeadLetterStore

dlq = typer.Typer(name="dlq", help="Dead letters: records that could not be taken.", no_args_is_help=True)

_Topic = Annotated[str | None, typer.Option(help="Only of this topic, without the prefix.")]
_Group = Annotated[str | None, typer.Option(help="Only of this consumer group.")]
_Id = Annotated[str | None, typer.Option("--id", help="Only this letter.")]
_DataDir = Annotated[Path | None, typer.Option(help="That of floopy up; else the environment.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@dlq.command(name="list")
def list_letters(
    topic: _Topic = None,
    group: _Group = None,
    letter_id: _Id = None,
    data_dir: _DataDir = None,
    as_json: _Json = False,
) -> None:
    """List the letters that have not been replayed, oldest first."""
    which = {"topic": topic, "group": group, "letter_id": letter_id}
    try:
        letters = asyncio.run(_parked(database_settings(data_dir), which))
    except (NotUpError, FloopyError) as error:
        fail(f"floopy dlq list: {error}")
    if as_json:
        sys.stdout.write(json.dumps([_to_wire(letter) for letter in letters]) + "\n")
        return
    for letter in letters:
        sys.stdout.write(
            f"{letter.id}  {letter.line_id or '-'}  {letter.at:%Y-%m-%d %H:%M:%S}  {letter.reason}\n"
        )


@dlq.command()
def replay(
    topic: _Topic = None,
    group: _Group = None,
    letter_id: _Id = None,
    data_dir: _DataDir = None,
    as_json: _Json = False,
) -> None:
    """Put the records back into their topics, so that their consumers take them again.

    A record that still cannot be taken comes back as a new letter. Exit code 0: every letter was put back;
    1: some are not in their dead-letter topic any more.
    """
    which = {"topic": topic, "group": group, "letter_id": letter_id}
    try:
        outcome = asyncio.run(_replay(database_settings(data_dir), _kafka_settings(data_dir), which))
    except (NotUpError, FloopyError) as error:
        fail(f"floopy dlq replay: {error}")
    gone = [letter_id for letter_id, back in outcome.items() if not back]
    if as_json:
        sys.stdout.write(json.dumps({"replayed": len(outcome) - len(gone), "gone": gone}) + "\n")
    else:
        sys.stdout.write(f"{len(outcome) - len(gone)} replayed\n")
        sys.stdout.write("".join(f"{letter_id}: not in its topic any more\n" for letter_id in gone))
    raise typer.Exit(1 if gone else 0)


async def _parked(settings: MongoSettings, which: dict[str, str | None]) -> list[DeadLetter]:
    async with open_mongo(settings, "floopy-dlq") as mongo:
        return await DeadLetterStore(mongo).parked(**which)


async def _replay(
    mongo_settings: MongoSettings, kafka_settings: KafkaSettings, which: dict[str, str | None]
) -> dict[str, bool]:
    """Whether each letter was put back, by id."""
    async with open_mongo(mongo_settings, "floopy-dlq") as mongo:
        store = DeadLetterStore(mongo)
        letters = await store.parked(**which)
        if not letters:
            return {}
        outcome = {}
        async with open_replayer(kafka_settings) as replayer:
            for letter in letters:
                outcome[letter.id] = await replayer.replay(letter)
                if outcome[letter.id]:
                    await store.mark_replayed(letter)
        return outcome


def _kafka_settings(data_dir: Path | None) -> KafkaSettings:
    """The broker that belongs to the database: that of the directory, else of the environment."""
    given = Settings().kafka
    if data_dir is None and "FLOOPY_MONGO__URI" in os.environ:
        return given
    if credentials := local_credentials(data_dir):
        return given.model_copy(
            update={
                "bootstrap_servers": credentials.kafka_bootstrap_servers,
                "topic_prefix": credentials.topic_prefix,
                # the embedded broker cannot do it, and a repeat is harmless
                "idempotent": False,
            }
        )
    raise NotUpError("say where: --data-dir of a floopy up, or FLOOPY_MONGO__URI")


def _to_wire(letter: DeadLetter) -> dict[str, Any]:
    return {
        "id": letter.id,
        "group": letter.group,
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "reason": letter.reason,
        "line_id": letter.line_id,
        "batch_id": letter.batch_id,
        "at": letter.at.isoformat(timespec="milliseconds"),
    }
