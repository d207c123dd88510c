"""What the first organisation of a local system has after one start, and after the next."""

from dataclasses import dataclass

import pytest
from pydantic import SecretStr

from floopy.stack.accounts import first_organisation
from floopy.stack.data_dir import Remembered
from floopy_common.chassis.mongo import Mongo
from floopy_common.chassis.secrets import Keyring
from floopy_common.stores.accounts import AccountStore
from floopy_common.stores.api_keys import ApiKeyStore

SECRET = SecretStr("a secret of at least 32 characters")


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@dataclass
class Start:
    """Starts on one data directory."""

    mongo: Mongo
    state: Remembered
    secret: SecretStr = SECRET

    async def up(self, *, simulator: bool = True, **keys: str) -> list[str]:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in keys.items():
                patch.setenv(name, value)
            return await first_organisation(self.mongo, self.secret, self.state, simulator=simulator)

    async def accounts(self) -> list[tuple[str, str]]:
        """(provider, key) of each account in use."""
        store = AccountStore(self.mongo, Keyring(self.secret))
        found = await store.list_for_org(self.state.org_id or "")
        return [(account["provider"], store.open_key(account).get_secret_value()) for account in found]

    async def key_works(self) -> bool:
        found = await ApiKeyStore(self.mongo, Keyring(self.secret)).find_by_key(self.state.api_key or "")
        return found is not None and found["org_id"] == self.state.org_id


@pytest.fixture
def start(mongo: Mongo) -> Start:
    return Start(mongo, Remembered())


async def count(mongo: Mongo, collection: str) -> int:
    return len(await mongo.collection(collection).find_all({}))


async def test_first_start_makes_an_organisation_with_a_key(start: Start) -> None:
    assert await start.up() == ["anthropic", "openai"]

    [org] = await start.mongo.collection("orgs").find_all({})
    assert org["_id"] == start.state.org_id
    assert (org["name"], org["plan"]) == ("default", "enterprise")
    assert await start.key_works()


async def test_the_simulator_gets_a_made_up_key_for_each_provider(start: Start) -> None:
    await start.up(OPENAI_API_KEY="sk-real", ANTHROPIC_API_KEY="sk-ant-real")

    accounts = await start.accounts()
    assert sorted(provider for provider, _ in accounts) == ["anthropic", "openai"]
    assert all(key.startswith("sk-made-up-") for _, key in accounts)


async def test_a_second_start_changes_nothing(start: Start) -> None:
    await start.up()
    before = (start.state.org_id, start.state.api_key, dict(start.state.accounts))

    await start.up()

    assert (start.state.org_id, start.state.api_key, start.state.accounts) == before
    assert [await count(start.mongo, name) for name in ("orgs", "api_keys", "provider_accounts")] == [1, 1, 2]


async def test_without_the_simulator_there_is_an_account_for_each_key(start: Start) -> None:
    assert await start.up(simulator=False) == []
    assert await start.up(simulator=False, OPENAI_API_KEY=" sk-real\n") == ["openai"]
    assert await start.up(simulator=False, ANTHROPIC_API_KEY="sk-ant-1") == ["anthropic", "openai"]

    assert sorted(await start.accounts()) == [("anthropic", "sk-ant-1"), ("openai", "sk-real")]


async def test_another_key_replaces_the_account_that_was_made_here(start: Start) -> None:
    await start.up(simulator=False, OPENAI_API_KEY="sk-old")
    await start.up(simulator=False, OPENAI_API_KEY="sk-new")

    assert await start.accounts() == [("openai", "sk-new")]
    assert await count(start.mongo, "provider_accounts") == 2  # what runs on the old one is still collected


async def test_real_and_made_up_keys_never_meet(start: Start) -> None:
    await start.up()
    assert await start.up(simulator=False) == []
    await start.up(simulator=False, OPENAI_API_KEY="sk-real")
    assert await start.accounts() == [("openai", "sk-real")]

    await start.up()

    accounts = await start.accounts()
    assert len(accounts) == 2
    assert all(key.startswith("sk-made-up-") for _, key in accounts)


@pytest.mark.parametrize("simulator", [True, False])
async def test_accounts_that_people_made_are_left_alone(start: Start, simulator: bool) -> None:
    await start.up(simulator=False)
    store = AccountStore(start.mongo, Keyring(SECRET))
    await store.create(start.state.org_id or "", "openai", None, SecretStr("sk-by-hand"))

    await start.up(simulator=simulator, OPENAI_API_KEY="sk-real")

    accounts = await start.accounts()
    assert [key for provider, key in accounts if provider == "openai"] == ["sk-by-hand"]


async def test_a_revoked_key_is_replaced(start: Start) -> None:
    await start.up()
    [key] = await start.mongo.collection("api_keys").find_all({})
    await ApiKeyStore(start.mongo, Keyring(SECRET)).revoke(key["org_id"], key["_id"])
    revoked = start.state.api_key

    await start.up()

    assert start.state.api_key != revoked
    assert await start.key_works()


async def test_another_secret_key_means_another_key_and_account(start: Start) -> None:
    await start.up()
    again = Start(start.mongo, start.state, SecretStr("another secret of 32 characters or more"))

    await again.up()

    assert await again.key_works()
    assert len(await again.accounts()) == 2
    assert await count(start.mongo, "orgs") == 1


async def test_an_empty_database_gets_a_new_organisation(start: Start, mongo: Mongo) -> None:
    await start.up()
    gone = start.state.org_id
    for name in ("orgs", "api_keys", "provider_accounts"):
        await mongo.collection(name).delete_many({})

    await start.up()

    assert start.state.org_id != gone
    assert await start.key_works()
    assert len(await start.accounts()) == 2
