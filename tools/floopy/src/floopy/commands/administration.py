"""What the commands for organisations, keys and accounts share: where they work, and how they answer."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from pydantic import SecretStr

from floopy.commands.connection import database_settings, secret_key
from floopy.commands.failure import fail
from floopy.stack.data_dir import NotUpError
from floopy_common.chassis.mongo import Mongo, check_schema, open_mongo
from floopy_common.chassis.secrets import Keyring
from floopy_common.domain.errors import FloopyError
from floopy_common.stores.accounts import AccountStore
from floopy_common.stores.api_keys import ApiKeyStore
from floopy_common.stores.orgs import OrgStore

DataDirOption = Annotated[
    Path | None, typer.Option("--data-dir", help="That of floopy up; else the environment.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
OrgOption = Annotated[str, typer.Option("--org", help="The organisation's id.")]
Row = Mapping[str, Any]
_Result = TypeVar("_Result")


class RefusedError(Exception):
    """What was asked for cannot be done; the message says why."""


@dataclass(frozen=True)
class Stores:
    """The stores an administrator works on."""

    mongo: Mongo
    secret: Callable[[], SecretStr]
    """Asked for only where keys are dealt with: organisations have none."""

    @property
    def orgs(self) -> OrgStore:
        return OrgStore(self.mongo)

    @property
    def keys(self) -> ApiKeyStore:
        return ApiKeyStore(self.mongo, Keyring(self.secret()))

    @property
    def accounts(self) -> AccountStore:
        return AccountStore(self.mongo, Keyring(self.secret()))

    async def known_org(self, org_id: str) -> str:
        """Raises RefusedError for an organisation that does not exist."""
        if await self.orgs.get(org_id) is None:
            raise RefusedError(f"no organisation {org_id}")
        return org_id


def administer(command: str, data_dir: Path | None, work: Callable[[Stores], Awaitable[_Result]]) -> _Result:
    """Does the work on the system's database, or says on stderr why not and exits with 1."""

    async def run() -> _Result:
        async with open_mongo(database_settings(data_dir), "floopy") as mongo:
            await check_schema(mongo)
            return await work(Stores(mongo, lambda: secret_key(data_dir)))

    try:
        return asyncio.run(run())
    except (NotUpError, RefusedError, FloopyError) as error:
        fail(f"floopy {command}: {error}")


def show(answer: Row | Sequence[Row], as_json: bool) -> None:
    """JSON for programs; for people one row a line, its values side by side."""
    if as_json:
        sys.stdout.write(json.dumps(answer, default=_text) + "\n")
        return
    if isinstance(answer, Mapping):
        lines = [f"{name}: {value}" for name, value in answer.items()]
    else:
        lines = ["  ".join(_text(value) for value in row.values()) for row in answer]
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def _text(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    return "-" if value is None else str(value)
