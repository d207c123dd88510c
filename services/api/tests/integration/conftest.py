"""The API served on a free port over a real database, and organisations that use it."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from openai import AsyncOpenAI
from pydantic import SecretStr
from waiting import eventually

from floopy_api.core.authentication import Authenticator
from floopy_api.handlers.keys import AUTHENTICATOR
from floopy_api.main import compose, new_runner
from floopy_common.chassis.mongo import Collection, Mongo, open_mongo
from floopy_common.chassis.probes import Probes
from floopy_common.chassis.secrets import Keyring
from floopy_common.settings import ApiSettings, FilesSettings, MongoSettings, Settings
from floopy_common.stores.accounts import AccountStore
from floopy_common.stores.api_keys import ApiKeyStore
from floopy_common.stores.orgs import OrgStore

SECRET = SecretStr("a secret for tests that is long enough")
MAX_UPLOAD = 4_000_000
"""Larger than what a blob writer keeps to itself before it inserts chunks."""
Document = dict[str, Any]


@dataclass(frozen=True)
class Member:
    """An organisation and a key of it."""

    org_id: str
    key_id: str
    api_key: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.api_key}"}


@dataclass
class Service:
    """The served API; `woken` grows when the relay of events is hurried."""

    mongo: Mongo
    url: str
    app: web.Application
    woken: list[bool]

    def client(self, member: Member, **options: Any) -> AsyncOpenAI:
        options.setdefault("max_retries", 0)
        return AsyncOpenAI(base_url=f"{self.url}/v1", api_key=member.api_key, **options)

    def http(self, member: Member | None = None) -> aiohttp.ClientSession:
        headers = {} if member is None else member.headers
        return aiohttp.ClientSession(base_url=self.url, headers=headers)

    async def join(self, name: str, *providers: str, plan: str = "pro") -> Member:
        """A new organisation with a key and an account for each of `providers`."""
        keyring = Keyring(SECRET)
        org = await OrgStore(self.mongo).create(name, plan)
        key, api_key = await ApiKeyStore(self.mongo, keyring).create(org["_id"], "test")
        for provider in providers:
            upstream = SecretStr("sk-upstream-0123456789")
            await AccountStore(self.mongo, keyring).create(org["_id"], provider, None, upstream)
        return Member(org["_id"], key["_id"], api_key.get_secret_value())

    async def another_key(self, member: Member) -> Member:
        key, api_key = await ApiKeyStore(self.mongo, Keyring(SECRET)).create(member.org_id, "another")
        return Member(member.org_id, key["_id"], api_key.get_secret_value())

    async def count(self, collection: str) -> int:
        return await self.mongo.collection(collection).count({})

    async def batch(self, batch_id: str) -> Document:
        found = await self.mongo.collection("batches").find_one({"_id": batch_id})
        assert found is not None
        return found

    async def write(self, batch_id: str, **fields: Any) -> None:
        await self.mongo.collection("batches").update_one({"_id": batch_id}, {"$set": fields})

    async def stores_nothing(self) -> None:
        """Wait until no file, blob or chunk is there; that they come and go is no fault."""

        async def is_empty() -> bool:
            names = ("files", "blobs", "blob_chunks")
            return [await self.count(name) for name in names] == [0, 0, 0]

        await eventually(is_empty, timeout=10, what="an empty store")

    @contextmanager
    def queries_counted(self, monkeypatch: pytest.MonkeyPatch, collection: str) -> Iterator[list[str]]:
        """One entry for every find_one in `collection` while the body runs."""
        seen: list[str] = []
        original = Collection.find_one

        async def find_one(found: Collection, *args: Any, **options: Any) -> Document | None:
            if found.name == collection:
                seen.append(found.name)
            return await original(found, *args, **options)

        with monkeypatch.context() as patched:
            patched.setattr(Collection, "find_one", find_one)
            yield seen

    @property
    def authenticator(self) -> Authenticator:
        return self.app[AUTHENTICATOR]


@asynccontextmanager
async def _serving(uri: str, database: str, **groups: Any) -> AsyncIterator[Service]:
    """The API as main.py composes it, without the relay of events."""
    settings = Settings(
        mongo=groups.pop("mongo", MongoSettings(uri=uri, database=database)),
        secret_key=SECRET,
        files=groups.pop("files", FilesSettings(max_bytes=MAX_UPLOAD)),
        api=groups.pop("api", ApiSettings(refresh_wait=1.0)),
        **groups,
    )
    woken: list[bool] = []
    async with open_mongo(settings.mongo, "test-api") as mongo:
        app = compose(settings, mongo, Probes(), lambda: woken.append(True))
        runner = new_runner(app)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            yield Service(mongo, f"http://127.0.0.1:{runner.addresses[0][1]}", app, woken)
        finally:
            await runner.cleanup()


@pytest.fixture
def serving(mongo_uri: str, mongo_database: str) -> Callable[..., Any]:
    """Serves the API with other settings: `async with serving(api=ApiSettings(...)) as service`."""
    return partial(_serving, mongo_uri, mongo_database)


@pytest.fixture
def serving_at() -> Callable[..., Any]:
    """The same over a database of one's own: `serving_at(uri, name)`."""
    return _serving


@pytest.fixture
async def service(mongo_uri: str, mongo_database: str) -> AsyncIterator[Service]:
    async with _serving(mongo_uri, mongo_database) as served:
        yield served


@pytest.fixture
async def alice(service: Service) -> Member:
    return await service.join("alice", "openai")


@pytest.fixture
async def mallory(service: Service) -> Member:
    return await service.join("mallory", "openai")


@pytest.fixture
async def client(service: Service, alice: Member) -> AsyncIterator[AsyncOpenAI]:
    """The official SDK as alice."""
    async with service.client(alice) as opened:
        yield opened


@pytest.fixture
async def http(service: Service, alice: Member) -> AsyncIterator[aiohttp.ClientSession]:
    """Raw HTTP as alice."""
    async with service.http(alice) as session:
        yield session
