"""A single-node Apache Kafka on this machine: fetched with Maven, run by Java, durable across kill -9."""

import base64
import os
import re
import shutil
import subprocess
import uuid
from dataclasses import dataclass
from functools import cache, partial
from importlib import resources
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from typing_extensions import override

from floopy.backends.backend import Backend, BackendMissingError, Program, accepts_connections, until
from floopy.backends.ports import LOOPBACK, free_port

VERSION = "4.4.0"
LOWEST_JAVA = 17
HOME_VARIABLE = "FLOOPY_KAFKA_HOME"
"""Directory that holds the jars, instead of the one `default_home` names."""

JVM_OPTIONS = ("-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""A small broker that starts fast; throughput on two cores is the same as with the defaults."""

SERVER_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers={host}:{controller_port}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={log_dir}
auto.create.topics.enable=false
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
"""


def default_home() -> Path:
    """Returns where the jars belong: the setting, else .cache of the checkout, else the user's cache."""
    if configured := os.environ.get(HOME_VARIABLE):
        return Path(configured)
    checkout = Path(__file__).resolve().parents[5]
    if (checkout / "tools" / "floopy").is_dir():
        return checkout / ".cache" / f"kafka-{VERSION}"
    return Path.home() / ".cache" / "floopy" / f"kafka-{VERSION}"


@cache
def java_missing() -> str | None:
    """Returns why there is no Java to run Kafka with, None where there is one."""
    try:
        shown = subprocess.run(["java", "-version"], capture_output=True, text=True, check=True).stderr
    except (OSError, subprocess.CalledProcessError):
        return f"Java {LOWEST_JAVA} or newer is missing"
    found = re.search(r'version "(\d+)', shown)
    if found is None or int(found[1]) < LOWEST_JAVA:
        return f"Java {LOWEST_JAVA} or newer is needed, found {found[1] if found else 'an unknown version'}"
    return None


@dataclass(frozen=True)
class KafkaDistribution:
    """The jars of Apache Kafka in one directory."""

    home: Path

    @property
    def jars(self) -> Path:
        return self.home / "jars"

    def unusable(self) -> str | None:
        """Returns why it cannot be run, None where it can."""
        if reason := java_missing():
            return reason
        if not self.jars.is_dir():
            return "Apache Kafka has not been fetched: make kafka"
        return None

    def fetch(self) -> None:
        """Copies the jars here through Maven; returns at once where they are. Raises BackendMissingError."""
        if self.jars.is_dir():
            return
        if reason := java_missing():
            raise BackendMissingError(reason)
        if shutil.which("mvn") is None:
            raise BackendMissingError("Maven is missing")
        unfinished = self.home / f"jars.{os.getpid()}"
        try:
            self._copy_jars(unfinished)
            unfinished.rename(self.jars)
        except FileExistsError:  # another process was faster
            shutil.rmtree(unfinished)
        except OSError:
            if not self.jars.is_dir():
                raise
            shutil.rmtree(unfinished)

    def _copy_jars(self, directory: Path) -> None:
        with resources.as_file(resources.files("floopy.backends") / "pom.xml") as pom:
            command = ["mvn", "-q", "-B", "-f", str(pom), "dependency:copy-dependencies"]
            done = subprocess.run(
                [*command, f"-DoutputDirectory={directory.absolute()}"],
                capture_output=True,
                text=True,
                check=False,
            )
        if done.returncode:
            shutil.rmtree(directory, ignore_errors=True)
            raise BackendMissingError(
                f"Maven could not fetch Apache Kafka:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
            )

    def java(self, main_class: str, *arguments: str) -> tuple[str, ...]:
        return ("java", *JVM_OPTIONS, "-cp", f"{self.jars}/*", main_class, *arguments)


class KafkaBroker(Backend):
    """Apache Kafka as broker and controller in one; its data directory may move to another port."""

    def __init__(
        self, data_dir: Path, *, port: int | None = None, distribution: KafkaDistribution | None = None
    ) -> None:
        super().__init__(data_dir, port=port)
        self.distribution = distribution or KafkaDistribution(default_home())

    @property
    @override
    def address(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    @override
    def program(self) -> Program:
        if reason := self.distribution.unusable():
            raise BackendMissingError(reason)
        properties = self._write_properties()
        if not (self._log_dir / "meta.properties").exists():
            self._format(properties)
        command = self.distribution.java("kafka.Kafka", str(properties))
        return Program("broker", command, self.port, self._serves)

    @property
    def _log_dir(self) -> Path:
        return self.data_dir / "log"

    def _write_properties(self) -> Path:
        self.data_dir.mkdir(parents=True, exist_ok=True)
        properties = self.data_dir / "server.properties"
        controller_port = free_port(frozenset({self.port}))
        properties.write_text(
            SERVER_PROPERTIES.format(
                host=LOOPBACK,
                port=self.port,
                controller_port=controller_port,
                log_dir=self._log_dir.absolute(),
            )
        )
        return properties

    def _format(self, properties: Path) -> None:
        # Kafka's tool takes an id that begins with a dash for another option
        cluster = "F" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")[1:]
        command = self.distribution.java(
            "kafka.tools.StorageTool", "format", "--standalone", "-t", cluster, "-c", str(properties)
        )
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BackendMissingError(f"Kafka's storage could not be formatted:\n{done.stdout}{done.stderr}")

    async def _serves(self) -> None:
        await until(partial(accepts_connections, self.port))
        await until(self._answers, interval=0.05)

    async def _answers(self) -> bool:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.address)
        try:
            await admin.start()
            await admin.list_topics()
        except KafkaError:  # it listens before it has registered with its controller
            return False
        finally:
            await admin.close()
        return True
