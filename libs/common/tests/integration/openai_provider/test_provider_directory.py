"""Which client an account gets, and when it gets a new one."""

from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr

from floopy.simulation import OwnSimulator
from floopy_common.chassis.mongo import Mongo
from floopy_common.chassis.secrets import Keyring
from floopy_common.providers import clients
from floopy_common.providers.clients import Clients, open_clients
from floopy_common.providers.http import open_connections
from floopy_common.providers.port import AccountMissing
from floopy_common.settings import ProviderSettings, ProvidersSettings, Settings
from floopy_common.stores.accounts import AccountStore

KEYRING = Keyring(SecretStr("a secret of at least 32 characters"))
NOWHERE = "http://127.0.0.1:9/v1"


def settings(base_url: str) -> Settings:
    return Settings(providers=ProvidersSettings(openai=ProviderSettings(base_url=base_url)))


@pytest.fixture
def accounts(mongo: Mongo) -> AccountStore:
    return AccountStore(mongo, KEYRING)


@pytest.fixture
async def directory(mongo: Mongo, shared: OwnSimulator) -> AsyncIterator[Clients]:
    async with open_clients(mongo, settings(shared.openai_base_url), KEYRING) as opened:
        yield opened


async def calls_of(simulator: OwnSimulator, key: str) -> int:
    return sum(call["key"] == key for call in await simulator.calls("files.delete"))


async def test_each_account_uses_its_own_key(
    accounts: AccountStore, directory: Clients, shared: OwnSimulator
) -> None:
    for key in ("sk-one", "sk-two"):
        account = await accounts.create("org", "openai", None, SecretStr(key))
        await (await directory.for_account(account["_id"])).delete_input("file-none")

    assert [await calls_of(shared, key) for key in ("sk-one", "sk-two")] == [1, 1]


async def test_the_accounts_own_url_wins(mongo: Mongo, accounts: AccountStore, shared: OwnSimulator) -> None:
    account = await accounts.create("org", "openai", shared.openai_base_url, SecretStr("sk-own"))

    async with open_clients(mongo, settings(NOWHERE), KEYRING) as directory:
        await (await directory.for_account(account["_id"])).delete_input("file-none")

    assert await calls_of(shared, "sk-own") == 1


@pytest.fixture
def reading_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "BELIEVED_FOR", 0.0)


@pytest.mark.usefixtures("reading_each_time")
async def test_a_client_is_kept_until_its_account_changes(
    mongo: Mongo, accounts: AccountStore, directory: Clients, shared: OwnSimulator
) -> None:
    account = await accounts.create("org", "openai", None, SecretStr("sk-old"))
    first = await directory.for_account(account["_id"])
    assert await directory.for_account(account["_id"]) is first

    stored = mongo.collection("provider_accounts")
    changed = await accounts.create("org", "openai", NOWHERE, SecretStr("sk-new"))
    await stored.delete_many({"_id": {"$in": [account["_id"], changed["_id"]]}})
    await stored.insert_new({**changed, "base_url": None, "_id": account["_id"]})

    with pytest.raises(AccountMissing):  # sealed for another account: the old client is not used instead
        await directory.for_account(account["_id"])


async def test_a_deleted_account_still_collects_what_runs_on_it(
    accounts: AccountStore, directory: Clients, shared: OwnSimulator
) -> None:
    account = await accounts.create("org", "openai", None, SecretStr("sk-deleted"))
    await accounts.delete("org", account["_id"])

    await (await directory.for_account(account["_id"])).delete_input("file-none")

    assert await calls_of(shared, "sk-deleted") == 1


async def test_an_unknown_account_is_missing(directory: Clients) -> None:
    with pytest.raises(AccountMissing, match="acct_none"):
        await directory.for_account("acct_none")


async def test_an_account_is_believed_for_a_while_and_then_read_again(
    mongo: Mongo, accounts: AccountStore
) -> None:
    now = 1_000.0
    account = await accounts.create("org", "openai", None, SecretStr("sk-gone"))
    async with open_connections() as connections:
        directory = Clients(accounts, connections, settings(NOWHERE), lambda: now)
        client = await directory.for_account(account["_id"])
        await mongo.collection("provider_accounts").delete_many({"_id": account["_id"]})

        now += clients.BELIEVED_FOR - 0.1
        assert await directory.for_account(account["_id"]) is client
        now += 0.2
        with pytest.raises(AccountMissing):
            await directory.for_account(account["_id"])


async def test_another_secret_opens_no_account(mongo: Mongo, accounts: AccountStore) -> None:
    account = await accounts.create("org", "openai", None, SecretStr("sk-sealed"))
    other = Keyring(SecretStr("another secret of 32 characters or more"))

    async with open_clients(mongo, settings(NOWHERE), other) as directory:
        with pytest.raises(AccountMissing) as missing:
            await directory.for_account(account["_id"])

    assert "sk-sealed" not in str(missing.value)


async def test_an_unusable_url_is_said_and_raises_nothing_else(
    mongo: Mongo, accounts: AccountStore, directory: Clients
) -> None:
    account = await accounts.create("org", "openai", "http://host:99999/v1", SecretStr("sk-x"))

    with pytest.raises(AccountMissing, match="cannot be used"):
        await directory.for_account(account["_id"])


async def test_only_so_many_clients_are_remembered(
    accounts: AccountStore, directory: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "MAX_CLIENTS", 2)
    ids = [(await accounts.create("org", "openai", None, SecretStr("sk-x")))["_id"] for _ in range(3)]
    first, second = [await directory.for_account(account_id) for account_id in ids[:2]]
    await directory.for_account(ids[0])

    await directory.for_account(ids[2])

    assert await directory.for_account(ids[0]) is first
    assert await directory.for_account(ids[1]) is not second
