"""The tests' backends as containers, for machines where a Docker engine answers."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from pymongo import MongoClient

from floopy.backends.ports import free_port

MONGO_IMAGE = "mongo:8"
KAFKA_IMAGE = "apache/kafka:4.4.0"
DEFAULT_ENGINE = "unix:///var/run/docker.sock"
START_TIMEOUT = 120


@cache
def engine_answers() -> bool:
    """Asks the engine at DOCKER_HOST, or its usual socket, for a sign of life."""
    address = urlsplit(os.environ.get("DOCKER_HOST") or DEFAULT_ENGINE)
    family = socket.AF_UNIX if address.scheme == "unix" else socket.AF_INET
    target = address.path if address.scheme == "unix" else (address.hostname, address.port or 2375)
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.settimeout(2)
        try:
            connection.connect(target)
            connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return b" 200 " in connection.recv(64)
        except OSError:
            return False


@contextmanager
def mongo() -> Iterator[str]:
    """Yields the URI of a single-node replica set."""
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.waiting_utils import wait_for_logs

    container = (
        DockerContainer(MONGO_IMAGE).with_exposed_ports(27017).with_command("--replSet floopy --bind_ip_all")
    )
    with container:
        wait_for_logs(container, "Waiting for connections", timeout=START_TIMEOUT)
        address = f"{container.get_container_host_ip()}:{container.get_exposed_port(27017)}"
        uri = f"mongodb://{address}/?directConnection=true"
        _initiate(uri)
        yield uri


def _initiate(uri: str) -> None:
    members = [{"_id": 0, "host": "localhost"}]
    with MongoClient[dict[str, Any]](uri) as client:
        client.admin.command("replSetInitiate", {"_id": "floopy", "members": members})
        while not client.admin.command("hello")["isWritablePrimary"]:
            time.sleep(0.05)


@contextmanager
def kafka() -> Iterator[str]:
    """Yields the bootstrap servers of a single node that creates no topics by itself."""
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.waiting_utils import wait_for_logs

    port = free_port()
    container = DockerContainer(KAFKA_IMAGE).with_bind_ports(9092, port)
    address = f"{container.get_container_host_ip()}:{port}"
    for name, value in _kafka_settings(address).items():
        container.with_env(name, value)
    with container:
        wait_for_logs(container, "Kafka Server started", timeout=START_TIMEOUT)
        yield address


def _kafka_settings(address: str) -> dict[str, str]:
    return {
        "KAFKA_NODE_ID": "1",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_LISTENERS": "PLAINTEXT://:9092,INTERNAL://localhost:9094,CONTROLLER://localhost:9093",
        "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://{address},INTERNAL://localhost:9094",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "KAFKA_INTER_BROKER_LISTENER_NAME": "INTERNAL",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
        "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
        "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
    }
