"""The first organisation of a local system: its key, and an account at each provider it can reach."""

import os

from pydantic import SecretStr

from floopy.stack.data_dir import Remembered
from floopy_common.chassis.mongo import Document, Mongo
from floopy_common.chassis.secrets import Keyring
from floopy_common.domain.errors import WrongKey
from floopy_common.openai.endpoints import SUPPORTED_ENDPOINTS
from floopy_common.stores.accounts import AccountStore
from floopy_common.stores.api_keys import ApiKeyStore
from floopy_common.stores.orgs import OrgStore

NAME = "default"
PLAN = "enterprise"
"""Everything on, no cap: this is the organisation of whoever owns the machine."""
KEY_VARIABLES = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}


async def first_organisation(
    mongo: Mongo, secret_key: SecretStr, state: Remembered, *, simulator: bool
) -> list[str]:
    """Makes what is missing of it, notes it in `state`, and returns the providers it has accounts at."""
    keyring = Keyring(secret_key)
    state.org_id = await _org(OrgStore(mongo), state.org_id)
    state.api_key = await _api_key(ApiKeyStore(mongo, keyring), state.org_id, state.api_key)
    accounts = _Accounts(AccountStore(mongo, keyring), state.org_id, state)
    for provider in SUPPORTED_ENDPOINTS:
        made_up = SecretStr(f"sk-made-up-{state.org_id}")
        if simulator:
            key: SecretStr | None = made_up
        else:
            key = _given_key(provider)
            await accounts.give_up(provider, made_up)
        if key is not None:
            await accounts.keep(provider, key)
    return await accounts.providers()


def _given_key(provider: str) -> SecretStr | None:
    key = os.environ.get(KEY_VARIABLES[provider], "").strip()
    return SecretStr(key) if key else None


async def _org(orgs: OrgStore, known: str | None) -> str:
    if known is not None and await orgs.get(known) is not None:
        return known
    return str((await orgs.create(NAME, PLAN))["_id"])


async def _api_key(keys: ApiKeyStore, org_id: str, known: str | None) -> str:
    """The key of the last start, unless it was revoked or the secret key is another one now."""
    if known is not None:
        found = await keys.find_by_key(known)
        if found is not None and found["org_id"] == org_id:
            return known
    _, key = await keys.create(org_id, "floopy up")
    return key.get_secret_value()


class _Accounts:
    """The organisation's accounts; only those that an earlier start has made are ever replaced."""

    def __init__(self, accounts: AccountStore, org_id: str, state: Remembered) -> None:
        self._accounts = accounts
        self._org_id = org_id
        self._ours = state.accounts

    async def keep(self, provider: str, key: SecretStr) -> None:
        """Leaves the provider with one account of this key, or with those that people have made."""
        existing = await self._at(provider)
        if any(self._has_key(account, key) for account in existing):
            return
        if any(account["_id"] != self._ours.get(provider) for account in existing):
            return
        for account in existing:
            await self._accounts.delete(self._org_id, account["_id"])
        created = await self._accounts.create(self._org_id, provider, None, key)
        self._ours[provider] = created["_id"]

    async def give_up(self, provider: str, key: SecretStr) -> None:
        """Removes our account of this key: it is good for the simulator alone."""
        for account in await self._at(provider):
            if self._has_key(account, key):
                await self._accounts.delete(self._org_id, account["_id"])

    async def providers(self) -> list[str]:
        accounts = await self._accounts.list_for_org(self._org_id)
        return sorted({account["provider"] for account in accounts})

    async def _at(self, provider: str) -> list[Document]:
        accounts = await self._accounts.list_for_org(self._org_id)
        return [account for account in accounts if account["provider"] == provider]

    def _has_key(self, account: Document, key: SecretStr) -> bool:
        try:
            return self._accounts.open_key(account) == key
        except WrongKey:  # sealed with another secret key: of no use any more
            return False
