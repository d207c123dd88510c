"""`floopy up`: the whole system on this machine."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from floopy.commands.failure import fail
from floopy.stack.brokers import BrokerChoice

DEFAULT_DATA_DIR = Path(".floopy")


def up(
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port of the API, 0: any free one. [default: 8080, where free]"),
    ] = None,
    data_dir: Annotated[Path, typer.Option(help="All that is kept between starts.")] = DEFAULT_DATA_DIR,
    simulator: Annotated[
        bool, typer.Option(help="Play the providers here, or use the real ones with your keys.")
    ] = True,
    broker: Annotated[
        BrokerChoice, typer.Option(help="auto: Apache Kafka where make kafka has fetched it, else embedded.")
    ] = BrokerChoice.AUTO,
) -> None:
    """Run the whole system here until Ctrl-C."""
    from floopy.stack.failures import FAILURES
    from floopy.stack.system import Options
    from floopy.stack.up import up as run

    try:
        asyncio.run(run(Options(data_dir, port, simulator, broker), Console()))
    except FAILURES as failure:
        fail(f"floopy up: {failure}")
