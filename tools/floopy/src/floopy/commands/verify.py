"""`floopy verify`: recount a batch from its rows and files."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from floopy.commands.connection import database_settings
from floopy.commands.failure import fail
from floopy.stack.data_dir import NotUpError
from floopy.verification import Report, Verification
from floopy_common.chassis.mongo import open_mongo
from floopy_common.domain.errors import FloopyError
from floopy_common.settings import MongoSettings

UNKNOWN_BATCH = 2


def verify(
    batch_id: Annotated[str, typer.Argument(metavar="BATCH_ID")],
    data_dir: Annotated[Path | None, typer.Option(help="That of floopy up; else the environment.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Recount every line of a batch in its files and in each store.

    Exit code 0: everything agrees; 1: something differs; 2: no such batch.
    """
    try:
        report = asyncio.run(_run(batch_id, database_settings(data_dir)))
    except (NotUpError, FloopyError) as error:
        fail(f"floopy verify: {error}")
    if report is None:
        fail(f"floopy verify: no batch {batch_id}", UNKNOWN_BATCH)
    sys.stdout.write(json.dumps(report.to_wire()) + "\n" if as_json else _sentences(report))
    raise typer.Exit(0 if report.ok else 1)


async def _run(batch_id: str, settings: MongoSettings) -> Report | None:
    async with open_mongo(settings, "floopy-verify") as mongo:
        return await Verification(mongo).run(batch_id)


def _sentences(report: Report) -> str:
    if report.ok:
        return f"{report.batch_id}: {report.lines} lines, each exactly once in the files and in every store\n"
    rows = [
        f"{difference.store}, {'batch' if difference.line is None else f'line {difference.line}'}: "
        f"{difference.problem}"
        for difference in report.differences
    ]
    return "\n".join([f"{report.batch_id}: {len(rows)} differences", *rows]) + "\n"
