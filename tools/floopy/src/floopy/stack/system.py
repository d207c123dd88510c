"""The programs of the local system, wired to each other by their ports."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from floopy.backends.backend import Program
from floopy.backends.mongod import Mongod
from floopy.backends.ports import LOOPBACK
from floopy.backends.topics import TopicSpec
from floopy.stack.brokers import (
    BrokerChoice,
    ChosenBroker,
    check_partitions,
    choose_broker,
    program_with_topics,
)
from floopy.stack.data_dir import DataDir
from floopy.stack.environment import (
    BOOTSTRAP_SERVERS,
    FAIL_AT,
    MONGO_URI,
    SECRET_KEY,
    is_set,
    local_settings,
    service_environment,
)
from floopy.stack.ports import PortBook
from floopy.stack.services import API, SIMULATOR, WORKERS, service_program, simulator_program
from floopy_common.settings import Settings
from floopy_common.topics import creation_list

DEFAULT_PORT = 8080
MONGOD = "mongod"
BROKER = "broker"


@dataclass(frozen=True)
class Options:
    """What the command line of `floopy up` says."""

    data_dir: Path
    port: int | None
    """None: the port of the last start, else 8080, else any; 0: the port of the last start, else any."""
    simulator: bool
    broker: BrokerChoice


class LocalSystem:
    """Which programs run, where each listens, and the settings that follow from it.

    A MongoDB or Kafka that is given by setting is used instead of a program of ours.
    """

    def __init__(self, options: Options, data_dir: DataDir, ports: PortBook) -> None:
        given = Settings()
        self._data_dir = data_dir
        self.api_port = _api_port(options.port, ports)
        mongod = None if is_set(MONGO_URI) else Mongod(data_dir.path / MONGOD, port=ports.again(MONGOD))
        broker = None if is_set(BOOTSTRAP_SERVERS) else _broker(options, data_dir, ports, given)
        self.simulator_port = ports.again(SIMULATOR) if options.simulator else None
        self.metrics_ports = {name: ports.again(f"{name} metrics") for name in (API, *WORKERS)}
        self.settings = local_settings(
            given,
            mongo_uri=mongod.address if mongod else given.mongo.uri,
            bootstrap_servers=broker.backend.address if broker else given.kafka.bootstrap_servers,
            idempotent=broker.idempotent if broker else given.kafka.idempotent,
            secret_key=given.secret_key.get_secret_value() if is_set(SECRET_KEY) else data_dir.secret_key(),
        )
        self.broker_title = broker.title if broker else None
        self.backends = self._backend_programs(mongod, broker)
        """What makes the program of each process the services stand on."""

    @property
    def base_url(self) -> str:
        return f"http://{LOOPBACK}:{self.api_port}/v1"

    @property
    def simulator_url(self) -> str | None:
        return f"http://{LOOPBACK}:{self.simulator_port}" if self.simulator_port else None

    @property
    def topics(self) -> list[TopicSpec]:
        kafka = self.settings.kafka
        rows = creation_list(kafka.topic_prefix, kafka.partitions, kafka.max_message_bytes)
        return [TopicSpec(name, partitions, config) for name, partitions, config in rows]

    def announcement(self) -> str:
        """One line that says what is about to start."""
        mongo = "mongod" if MONGOD in self.backends else "the MongoDB of your settings"
        broker = f"the broker ({self.broker_title})" if self.broker_title else "the Kafka of your settings"
        simulator = ", the provider simulator" if self.simulator_port else ""
        services = f"{len(self.metrics_ports)} services"
        return f"Starting {mongo}, {broker}{simulator} and {services} in {self._data_dir.path}"

    def _backend_programs(
        self, mongod: Mongod | None, broker: ChosenBroker | None
    ) -> dict[str, Callable[[], Program]]:
        """The slowest to start comes first."""
        programs: dict[str, Callable[[], Program]] = {}
        if broker:
            replication = self.settings.kafka.replication
            programs[BROKER] = partial(program_with_topics, broker, self.topics, replication)
        if mongod:
            programs[MONGOD] = mongod.program
        if self.simulator_port:
            directory = self._data_dir.path / SIMULATOR
            programs[SIMULATOR] = partial(simulator_program, self.simulator_port, directory)
        return programs

    def service(self, name: str) -> Callable[[], Program]:
        """Returns what makes the program of each start of a service.

        `FLOOPY_FAIL_AT` holds for the first start alone: it is one kill, not a crash loop.
        """
        environment = service_environment(
            self.settings, self.simulator_url, self._data_dir.path / "work" / name
        )
        environment["FLOOPY_METRICS_PORT"] = str(self.metrics_ports[name])
        port = self.metrics_ports[name]
        if name == API:
            environment["FLOOPY_API__PORT"] = str(self.api_port)
            port = self.api_port
        starts = iter([environment])
        again = {**environment, FAIL_AT: ""}
        return lambda: service_program(name, port, next(starts, again))


def _api_port(wanted: int | None, ports: PortBook) -> int:
    if wanted:
        return ports.exactly(API, wanted)
    return ports.again(API, DEFAULT_PORT if wanted is None else None)


def _broker(options: Options, data_dir: DataDir, ports: PortBook, given: Settings) -> ChosenBroker:
    broker = choose_broker(options.broker, data_dir.path, ports.again(BROKER))
    check_partitions(broker, given.kafka.partitions)
    return broker
