"""Runs the whole system on this machine until a signal: `floopy up`."""

import asyncio
import signal
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress

from rich.console import Console

from floopy.backends.topics import create_topics
from floopy.stack.accounts import first_organisation
from floopy.stack.data_dir import Credentials, DataDir, Remembered
from floopy.stack.ports import PortBook
from floopy.stack.report import no_account_yet, print_running
from floopy.stack.services import API, WORKERS
from floopy.stack.supervisor import Death, Limits, Supervisor, last_words
from floopy.stack.system import BROKER, MONGOD, LocalSystem, Options
from floopy_common.chassis.mongo import ensure_indexes, open_mongo

READY_TIMEOUT = 120.0
"""Seconds a cold machine may take to have everything up."""


async def up(options: Options, console: Console) -> None:
    """Returns after SIGINT, SIGTERM or SIGHUP. Raises what keeps the system from running."""
    data_dir = DataDir(options.data_dir)
    with data_dir.locked():
        data_dir.forget_running()
        data_dir.rotate_logs()
        try:
            await _until_signal(_run(options, data_dir, console))
        finally:
            data_dir.forget_running()


async def _until_signal(system: Coroutine[None, None, None]) -> None:
    """Runs the system until a signal; raises what ends it before."""
    stopped, running = _on_signal(), asyncio.create_task(system)
    stopping = asyncio.create_task(stopped.wait())
    await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


def _on_signal() -> asyncio.Event:
    """Returns an event set by the first signal; a second one ends this process and its children at once."""
    stopped, loop = asyncio.Event(), asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def stop() -> None:
        stopped.set()
        for number in signals:
            loop.remove_signal_handler(number)

    for number in signals:
        loop.add_signal_handler(number, stop)
    return stopped


async def _run(options: Options, data_dir: DataDir, console: Console) -> None:
    state = data_dir.remembered()
    ports = PortBook(state.ports)
    await ports.wait_released()
    system = LocalSystem(options, data_dir, ports)
    data_dir.remember(state)
    console.print(system.announcement(), soft_wrap=True)
    async with _supervising(system, data_dir, console) as supervisor:
        providers = await _start(supervisor, system, state)
        data_dir.remember(state)
        await supervisor.wait_ready(READY_TIMEOUT)
        credentials = _credentials(system, state)
        data_dir.write_credentials(credentials)
        print_running(console, data_dir, credentials, supervisor.running())
        if not providers:
            console.print(no_account_yet(credentials), soft_wrap=True, highlight=False, markup=False)
        await supervisor.watch()


@asynccontextmanager
async def _supervising(system: LocalSystem, data_dir: DataDir, console: Console) -> AsyncIterator[Supervisor]:
    limits = system.settings.supervisor
    supervisor = Supervisor(
        data_dir.logs,
        Limits(limits.max_deaths, limits.window),
        data_dir.write_processes,
        lambda death: _report(death, console),
    )
    try:
        yield supervisor
    finally:
        console.print("Stopping ...")
        await supervisor.stop()


def _report(death: Death, console: Console) -> None:
    """Of a crash its last words as well: the log goes on with those of the next start."""
    said = f"{death}\n{last_words(death.log)}" if death.is_crash else str(death)
    console.print(said, soft_wrap=True, highlight=False, markup=False)


async def _start(supervisor: Supervisor, system: LocalSystem, state: Remembered) -> list[str]:
    """Starts everything; services wait for the database with its indexes and the broker with its topics.

    Returns the providers the first organisation has accounts at.
    """
    children = {name: supervisor.add(name, make) for name, make in system.backends.items()}
    if MONGOD in children:
        await supervisor.wait_ready(READY_TIMEOUT, [children[MONGOD]])
    async with open_mongo(system.settings.mongo, "floopy-up") as mongo:
        await ensure_indexes(mongo)
        if BROKER not in children:
            kafka = system.settings.kafka
            await create_topics(kafka.bootstrap_servers, system.topics, kafka.replication)
        needs = [children[name] for name in (MONGOD, BROKER) if name in children]
        for name in (API, *WORKERS):
            supervisor.add(name, system.service(name), needs)
        return await first_organisation(
            mongo, system.settings.secret_key, state, simulator=system.simulator_url is not None
        )


def _credentials(system: LocalSystem, state: Remembered) -> Credentials:
    settings = system.settings
    return Credentials(
        base_url=system.base_url,
        api_key=state.api_key or "",
        org_id=state.org_id or "",
        dashboard_url=None,
        mongo_uri=settings.mongo.uri,
        mongo_database=settings.mongo.database,
        kafka_bootstrap_servers=settings.kafka.bootstrap_servers,
        topic_prefix=settings.kafka.topic_prefix,
        simulator_url=system.simulator_url,
    )
