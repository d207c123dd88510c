"""`floopy backends`: MongoDB and a broker alone, for trying things against them."""

import asyncio
import contextlib
import json
import signal
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from floopy.commands.failure import fail


def backends(
    data_dir: Annotated[Path | None, typer.Option(help="Kept afterwards; else a temporary one.")] = None,
    kafka: Annotated[bool, typer.Option(help="Apache Kafka instead of the embedded broker.")] = False,
    fetch_kafka: Annotated[bool, typer.Option(help="Only fetch Apache Kafka, as make kafka does.")] = False,
) -> None:
    """Run MongoDB and a broker until Ctrl-C; prints their addresses as JSON."""
    from floopy.backends.backend import BackendMissingError, StartError
    from floopy.backends.kafka import KafkaDistribution, default_home

    try:
        if fetch_kafka:
            KafkaDistribution(default_home()).fetch()
            sys.stdout.write(f"Apache Kafka is in {default_home()}\n")
            return
        with tempfile.TemporaryDirectory(prefix="floopy-") as scratch:
            asyncio.run(_serve(data_dir or Path(scratch), kafka=kafka))
    except (BackendMissingError, StartError) as failure:
        fail(f"floopy backends: {failure}")


async def _serve(data_dir: Path, *, kafka: bool) -> None:
    from floopy.backends.embedded import EmbeddedBroker
    from floopy.backends.kafka import KafkaBroker
    from floopy.backends.mongod import Mongod

    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    broker = KafkaBroker(data_dir / "kafka") if kafka else EmbeddedBroker(data_dir / "broker")
    async with contextlib.AsyncExitStack() as stack:
        uri = await stack.enter_async_context(Mongod(data_dir / "mongod"))
        bootstrap_servers = await stack.enter_async_context(broker)
        addresses = {"mongo_uri": uri, "kafka_bootstrap_servers": bootstrap_servers}
        sys.stdout.write(json.dumps(addresses) + "\n")
        sys.stdout.flush()
        await stopped.wait()
