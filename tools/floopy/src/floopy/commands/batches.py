"""`floopy batches`: send a file of requests and get the file of answers."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from floopy.commands.connection import api_address
from floopy.commands.failure import fail
from floopy.commands.held import give_up, held, resume
from floopy.stack.data_dir import NotUpError

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types import Batch

    from floopy.batch_run import Request

COMPLETED_WITH_FAILED_LINES = 3

batches = typer.Typer(
    name="batches", help="Send batches, and decide about those that are stuck.", no_args_is_help=True
)
batches.command()(held)
batches.command()(resume)
batches.command(name="give-up")(give_up)


@batches.command()
def run(
    input_file: Annotated[Path, typer.Argument(metavar="INPUT", exists=True, dir_okay=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the answers go.")],
    errors: Annotated[
        Path | None, typer.Option(help="Where failed lines go. [default: OUTPUT.errors.jsonl]")
    ] = None,
    endpoint: Annotated[str | None, typer.Option(help="[default: the url of the first line]")] = None,
    provider: Annotated[str | None, typer.Option(help="openai or anthropic. [default: the only one]")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="That of floopy up; else the environment.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Upload INPUT, wait for its batch, download the answers.

    Exit code 0: completed; 3: completed with failed lines; 1: anything else.
    """
    from openai import OpenAI, OpenAIError

    from floopy.batch_run import InputError, Request

    request = Request(input_file, output, errors or output.with_suffix(".errors.jsonl"), endpoint, provider)
    try:
        base_url, api_key = api_address(data_dir)
        with OpenAI(base_url=base_url, api_key=api_key, max_retries=5) as client:
            batch = _followed(client, request)
            outcome = _fetched(client, batch, request)
    except (NotUpError, InputError, OpenAIError) as error:
        fail(f"floopy batches run: {error}")
    sys.stdout.write(json.dumps(outcome) + "\n" if as_json else _sentence(batch, outcome))
    raise typer.Exit(_exit_code(batch))


def _followed(client: "OpenAI", request: "Request") -> "Batch":
    from floopy.batch_run import create, follow

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("uploading", total=None)
        created = create(client, request)
        progress.console.print(f"batch {created.id}", highlight=False)
        for batch in follow(client, created):
            counts = batch.request_counts
            done = counts.completed + counts.failed if counts else 0
            total = counts.total if counts and counts.total else None
            progress.update(task, description=batch.status, completed=done, total=total)
    return batch


def _fetched(client: "OpenAI", batch: "Batch", request: "Request") -> dict[str, object]:
    from floopy.batch_run import download

    answers = download(client, batch.output_file_id, request.output)
    failures = download(client, batch.error_file_id, request.errors)
    return {
        "batch_id": batch.id,
        "status": batch.status,
        "request_counts": batch.request_counts.model_dump() if batch.request_counts else None,
        "output": str(request.output) if answers else None,
        "errors": str(request.errors) if failures else None,
        "input_errors": [error.model_dump() for error in batch.errors.data or []] if batch.errors else [],
    }


def _sentence(batch: "Batch", outcome: dict[str, object]) -> str:
    counts = batch.request_counts
    lines = [f"{batch.id} {batch.status}"]
    if counts:
        lines[0] += f": {counts.completed} of {counts.total} lines completed, {counts.failed} failed"
    lines += [f"{what}: {outcome[what]}" for what in ("output", "errors") if outcome[what]]
    if batch.errors:
        lines += [f"line {error.line}: {error.message}" for error in batch.errors.data or []]
    return "\n".join(lines) + "\n"


def _exit_code(batch: "Batch") -> int:
    if batch.status != "completed":
        return 1
    failed = batch.request_counts.failed if batch.request_counts else 0
    return COMPLETED_WITH_FAILED_LINES if failed or batch.error_file_id else 0
