"""Which client talks to which account."""

import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from floopy_common.chassis.mongo import Document, Mongo
from floopy_common.chassis.secrets import Keyring
from floopy_common.domain.errors import WrongKey
from floopy_common.providers.anthropic.client import AnthropicBatches
from floopy_common.providers.anthropic.policy import Policy
from floopy_common.providers.api import Access
from floopy_common.providers.http import Connections, open_connections
from floopy_common.providers.openai.client import OpenAiBatches
from floopy_common.providers.port import AccountMissing, BatchProvider
from floopy_common.settings import ProvidersSettings, Settings
from floopy_common.stores.accounts import AccountStore

MAX_CLIENTS = 1_000
"""Accounts whose client a process remembers; a client is small, opening its key takes 20 us."""

BELIEVED_FOR = 10.0
"""Seconds an account is used as it was read: nothing changes one but an operator with his hands."""

MakeClient = Callable[[Access, Connections, Settings], BatchProvider]


def _openai(access: Access, connections: Connections, settings: Settings) -> BatchProvider:
    return OpenAiBatches(access, connections, create_timeout=settings.submit.create_timeout)


def _anthropic(access: Access, connections: Connections, settings: Settings) -> BatchProvider:
    version = settings.providers.anthropic.version or Policy.api_version
    create_timeout = settings.submit.create_timeout
    return AnthropicBatches(access, connections, version=version, create_timeout=create_timeout)


MAKERS: Mapping[str, MakeClient] = {"openai": _openai, "anthropic": _anthropic}
"""A provider without an entry can have accounts, but nobody talks to it yet."""


@dataclass(frozen=True)
class _Known:
    """A client, what of its account it was made from, and when that was read, by the monotonic clock."""

    made_from: tuple[str, Any]
    client: BatchProvider
    read_at: float


class Clients:
    """A client for every account; a change of an account holds within `BELIEVED_FOR`."""

    def __init__(
        self,
        accounts: AccountStore,
        connections: Connections,
        settings: Settings,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._accounts = accounts
        self._monotonic = monotonic
        self._connections = connections
        self._settings = settings
        self._known: OrderedDict[str, _Known] = OrderedDict()

    async def for_account(self, account_id: str) -> BatchProvider:
        """The account's client, a deleted account's too: what runs on it must still be collected.

        Raises AccountMissing when there is none, its key does not open, or nobody talks to its provider.
        """
        now = self._monotonic()
        known = self._known.get(account_id)
        if known is None or now >= known.read_at + BELIEVED_FOR:
            known = await self._read(account_id, known, now)
        self._known.move_to_end(account_id)
        return known.client

    async def _read(self, account_id: str, known: _Known | None, now: float) -> _Known:
        account = await self._accounts.get(account_id)
        if account is None:
            self._known.pop(account_id, None)
            raise AccountMissing(f"no provider account {account_id}")
        made_from = (_base_url(account, self._settings.providers), account["secret"])
        unchanged = known is not None and known.made_from == made_from
        client = known.client if known is not None and unchanged else self._make(account, made_from[0])
        found = _Known(made_from, client, now)
        self._remember(account_id, found)
        return found

    def _make(self, account: Document, base_url: str) -> BatchProvider:
        make = MAKERS.get(account["provider"])
        if make is None:
            raise AccountMissing(f"nobody talks to the provider of account {account['_id']} yet")
        try:
            access = Access(base_url, self._accounts.open_key(account))
            return make(access, self._connections, self._settings)
        except (WrongKey, ValueError) as error:
            raise AccountMissing(f"account {account['_id']} cannot be used: {error}") from error

    def _remember(self, account_id: str, known: _Known) -> None:
        self._known[account_id] = known
        if len(self._known) > MAX_CLIENTS:
            self._known.popitem(last=False)


def _base_url(account: Document, providers: ProvidersSettings) -> str:
    """The account's own URL wins over the default."""
    own: str | None = account["base_url"]
    if own is not None:
        return own
    default = {"openai": providers.openai, "anthropic": providers.anthropic}[account["provider"]]
    return default.base_url


@asynccontextmanager
async def open_clients(mongo: Mongo, settings: Settings, keyring: Keyring) -> AsyncIterator[Clients]:
    """Clients for the accounts of this database; their connections close at the end."""
    async with open_connections() as connections:
        yield Clients(AccountStore(mongo, keyring), connections, settings)
