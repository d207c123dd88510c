"""Command line of the simulator."""

import argparse
import asyncio
import os
import signal
import sys
from pathlib import Path

import msgspec
from aiohttp import web

from floopy_simulator.control import Control, refuse_bad_input
from floopy_simulator.simulator import Simulator

MAX_BODY = 64 << 20
"""Of requests read whole, such as a chat completion; uploads are streamed and have their own limit."""
SWITCH_INTERVAL = 0.001
"""Executing lines holds the interpreter; a short interval keeps HTTP answers quick."""


def main() -> None:
    asyncio.run(serve(parse_arguments(sys.argv[1:])))


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="floopy-simulator", description="Plays a provider's batch API over HTTP."
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one")
    parser.add_argument("--data-dir", type=Path, required=True, help="kept across restarts")
    parser.add_argument("--port-file", type=Path, help="the port is written here once it listens")
    parser.add_argument("--batch-seconds", type=float, help="from creation to completion")
    return parser.parse_args(arguments)


async def serve(arguments: argparse.Namespace) -> None:
    sys.setswitchinterval(SWITCH_INTERVAL)
    overrides = {} if arguments.batch_seconds is None else {"batch_seconds": arguments.batch_seconds}
    simulator = Simulator(arguments.data_dir, overrides)
    runner = web.AppRunner(make_app(simulator), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    site = web.TCPSite(runner, arguments.host, arguments.port, backlog=1024)
    await site.start()
    port = runner.addresses[0][1]
    announce(arguments.host, port, arguments.port_file)
    await wait_for_signal()
    await runner.cleanup()


def make_app(simulator: Simulator) -> web.Application:
    app = web.Application(client_max_size=MAX_BODY, middlewares=[refuse_bad_input])
    Control(simulator).register(app)
    simulator.register(app)

    async def start(_: web.Application) -> None:
        simulator.start()

    async def stop(_: web.Application) -> None:
        await simulator.stop()

    app.on_startup.append(start)
    app.on_cleanup.append(stop)
    return app


def announce(host: str, port: int, port_file: Path | None) -> None:
    if port_file is not None:
        partial = port_file.with_suffix(".part")
        partial.write_text(f"{port}\n")
        os.replace(partial, port_file)
    url = f"http://{host}:{port}"
    ready = {
        "url": url,
        "openai_base_url": f"{url}/openai/v1",
        "anthropic_base_url": f"{url}/anthropic",
        "port": port,
        "pid": os.getpid(),
    }
    sys.stdout.write(msgspec.json.encode(ready).decode() + "\n")
    sys.stdout.flush()


async def wait_for_signal() -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()


if __name__ == "__main__":
    main()
