"""The API served on a free port over a real database, and two organisations that use it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from openai import AsyncOpenAI
from pydantic import SecretStr

from floopy_api.main import compose
from floopy_common.chassis.mongo import Mongo, ensure_indexes, open_mongo
from floopy_common.chassis.probes import Probes
from floopy_common.chassis.secrets import Keyring
from floopy_common.settings import ApiSettings, FilesSettings, MongoSettings, Settings
from floopy_common.stores.accounts import AccountStore
from floopy_common.stores.api_keys import ApiKeyStore
from floopy_common.stores.orgs import OrgStore

SECRET = SecretStr("a secret for tests that is long enough")
MAX_UPLOAD = 1_000_000
Document = dict[str, Any]


@dataclass(frozen=True)
class Member:
    """An organisation with a key and, unless it says so, one OpenAI account."""

    org_id: str
    key_id: str
    api_key: str


@dataclass
class Service:
    """The served API; `woken` counts how often the relay of events was hurried."""

    mongo: Mongo
    url: str
    app: web.Application
    woken: list[bool]

    def client(self, member: Member, **options: Any) -> AsyncOpenAI:
        options.setdefault("max_retries", 0)
        return AsyncOpenAI(base_url=f"{self.url}/v1", api_key=member.api_key, **options)

    async def count(self, collection: str) -> int:
        return await self.mongo.collection(collection).count({})

    async def batch(self, batch_id: str) -> Document:
        found = await self.mongo.collection("batches").find_one({"_id": batch_id})
        assert found is not None
        return found

    async def write(self, batch_id: str, **fields: Any) -> None:
        await self.mongo.collection("batches").update_one({"_id": batch_id}, {"$set": fields})


def settings_for(uri: str, database: str, **groups: Any) -> Settings:
    return Settings(
        mongo=MongoSettings(uri=uri, database=database),
        secret_key=SECRET,
        files=groups.pop("files", FilesSettings(max_bytes=MAX_UPLOAD)),
        api=groups.pop("api", ApiSettings(port=0)),
        **groups,
    )


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Service]:
    """The API as main.py composes it, without the relay."""
    woken: list[bool] = []
    async with open_mongo(settings.mongo, "test-api") as mongo:
        await ensure_indexes(mongo)
        app = compose(settings, mongo, Probes(), lambda: woken.append(True))
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=5, max_field_size=16_384)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield Service(mongo, url, app, woken)
        finally:
            await runner.cleanup()


@pytest.fixture
async def service(mongo_uri: str, mongo_database: str) -> AsyncIterator[Service]:
    async with serving(settings_for(mongo_uri, mongo_database)) as served:
        yield served


async def join(service_mongo: Mongo, name: str, *providers: str, plan: str = "pro") -> Member:
    """A new organisation with a key and an account for each of `providers`."""
    keyring = Keyring(SECRET)
    org = await OrgStore(service_mongo).create(name, plan)
    key, api_key = await ApiKeyStore(service_mongo, keyring).create(org["_id"], "test")
    for provider in providers:
        account = SecretStr("sk-upstream-0123456789")
        await AccountStore(service_mongo, keyring).create(org["_id"], provider, None, account)
    return Member(org["_id"], key["_id"], api_key.get_secret_value())


@pytest.fixture
async def alice(service: Service) -> Member:
    return await join(service.mongo, "alice", "openai")


@pytest.fixture
async def mallory(service: Service) -> Member:
    return await join(service.mongo, "mallory", "openai")


@pytest.fixture
async def openai_client(service: Service, alice: Member) -> AsyncIterator[AsyncOpenAI]:
    async with service.client(alice) as client:
        yield client


@pytest.fixture
async def http(service: Service, alice: Member) -> AsyncIterator[aiohttp.ClientSession]:
    """Raw HTTP as alice."""
    headers = {"Authorization": f"Bearer {alice.api_key}"}
    async with aiohttp.ClientSession(base_url=service.url, headers=headers) as session:
        yield session


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float = 10.0) -> None:
    """Wait until `condition` holds."""
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.02)
