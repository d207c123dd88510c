"""`floopy demo`: a real batch at each provider through the whole system, from nothing to balanced."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from floopy.commands.failure import fail
from floopy.stack.brokers import BrokerChoice


def demo(
    examples: Annotated[
        Path, typer.Option(help="The folder with the example programs.", exists=True, file_okay=False)
    ] = Path("examples"),
    data_dir: Annotated[Path, typer.Option(help="Where the system keeps its data.")] = Path(".floopy/demo"),
    broker: Annotated[BrokerChoice, typer.Option(help="As for floopy up.")] = BrokerChoice.AUTO,
) -> None:
    """Start everything with the simulator; run the README's program over 200 real requests at each provider.

    Exit code 0: both batches are balanced; 1: anything else.
    """
    from floopy.demo import DemoFailedError, Example, run_demo

    try:
        run_demo(Example(examples, data_dir), broker.value, Console())
    except DemoFailedError as error:
        fail(f"floopy demo: {error}")
