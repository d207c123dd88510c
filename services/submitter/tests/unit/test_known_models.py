"""What an account's models take: who is asked, how often, and what holds when nobody answers."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from waiting import eventually

from floopy_common.providers.anthropic.capabilities import MOST_RESTRICTIVE
from floopy_common.providers.port import AccountMissing, Unavailable
from floopy_common.settings import AnthropicModelSettings
from floopy_submitter.core.known_models import KnownModels, ModelTimes

TTL = 600.0
START = datetime(2026, 11, 29, tzinfo=UTC)
NEW = "claude-six"


def said(most: int) -> list[dict[str, Any]]:
    return [{"id": NEW, "max_tokens": most, "capabilities": {}}]


class Account:
    """An account whose provider says what the test wants; `answer` may be an error or wait for `allowed`."""

    base_url = "https://one.example"

    def __init__(self) -> None:
        self.asked = 0
        self.answer: Sequence[dict[str, Any]] | Exception = said(1)
        self.allowed = asyncio.Event()
        self.allowed.set()

    async def list_models(self) -> list[dict[str, Any]]:
        self.asked += 1
        await self.allowed.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return list(self.answer)


class Silent:
    """An account at a provider that says nothing of its models."""


class World:
    """Accounts, the rows of all processes, and a clock that is set."""

    def __init__(self) -> None:
        self.account = Account()
        self.accounts: dict[str, Any] = {"a": self.account, "silent": Silent()}
        self.rows: dict[str, dict[str, Any]] = {}
        self.now = START
        self.outcomes: list[str] = []

    async def for_account(self, account_id: str) -> Any:
        if account_id not in self.accounts:
            raise AccountMissing(account_id)
        return self.accounts[account_id]

    async def get(self, account_id: str) -> dict[str, Any] | None:
        return self.rows.get(account_id)

    async def put(self, account_id: str, source: str, models: Any, now: datetime) -> None:
        self.rows[account_id] = {"source": source, "models": models, "fetched_at": now}

    def models(self, outcome: str) -> None:
        self.outcomes.append(outcome)

    def process(self, *, ttl: float = TTL, wait: float = 30.0) -> KnownModels:
        return KnownModels(
            overrides={"house": AnthropicModelSettings(id=NEW, max_output=77)},
            providers=self,
            store=self,
            times=ModelTimes(ttl, wait),
            now=lambda: self.now,
            report=self,
        )

    def later(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def most_of() -> Callable[..., Any]:
    async def most_of(models: KnownModels, name: str = NEW, account: str = "a") -> int:
        found = (await models.of(account)).resolve(name)
        assert found is not None
        return found.capabilities.max_output

    return most_of


async def test_an_account_is_asked_once_and_again_when_that_is_old(world: World, most_of: Any) -> None:
    models = world.process()

    assert [await most_of(models) for _ in range(3)] == [1, 1, 1]
    world.account.answer = said(2)
    world.later(TTL - 1)
    assert await most_of(models) == 1
    world.later(1)
    assert [await most_of(models) for _ in range(3)] == [2, 2, 2]

    assert world.account.asked == 2
    assert world.outcomes == ["fetched", "fetched"]


async def test_what_one_process_has_asked_another_knows(world: World, most_of: Any) -> None:
    await most_of(world.process())
    world.later(TTL - 10)
    other = world.process()

    assert await most_of(other) == 1
    world.later(9)
    assert await most_of(other) == 1
    assert world.account.asked == 1
    world.later(1)  # as old as it is, not as long as the other has known it
    await most_of(other)
    assert world.account.asked == 2
    assert world.outcomes == ["fetched", "stored", "fetched"]


async def test_another_base_url_is_asked_itself(world: World, most_of: Any) -> None:
    await most_of(world.process())
    world.account.base_url = "https://two.example"
    world.account.answer = said(2)

    assert await most_of(world.process()) == 2


@pytest.mark.parametrize("error", [Unavailable("no"), AccountMissing("no")], ids=repr)
async def test_a_failure_leaves_what_was_known_and_is_not_repeated_at_once(
    world: World, most_of: Any, error: Exception
) -> None:
    models = world.process()
    await most_of(models)
    world.account.answer = error
    world.later(TTL)

    assert [await most_of(models) for _ in range(3)] == [1, 1, 1]
    assert world.account.asked == 2
    world.account.answer = said(3)
    world.later(60)
    assert await most_of(models) == 3
    assert world.outcomes == ["fetched", "failed", "fetched"]


async def test_a_process_that_never_got_an_answer_has_what_is_stored_however_old(
    world: World, most_of: Any
) -> None:
    await most_of(world.process())
    world.account.answer = Unavailable("no")
    world.later(100 * TTL)

    assert await most_of(world.process()) == 1


async def test_without_anything_known_there_is_what_is_bundled_and_configured(
    world: World, most_of: Any
) -> None:
    world.account.answer = Unavailable("no")
    models = world.process()

    assert await most_of(models) == MOST_RESTRICTIVE.max_output
    assert await most_of(models, "house") == 77
    for account in ("silent", "gone"):
        assert await most_of(models, "claude-haiku-4-5", account) == 64_000


async def test_the_operators_word_goes_over_the_providers(world: World, most_of: Any) -> None:
    assert await most_of(world.process(), "house") == 77


async def test_a_slow_answer_is_not_waited_for_and_holds_once_it_is_there(world: World, most_of: Any) -> None:
    world.account.allowed.clear()
    models = world.process(wait=0.0)

    assert await most_of(models) == MOST_RESTRICTIVE.max_output
    assert await most_of(models) == MOST_RESTRICTIVE.max_output
    world.account.allowed.set()
    await eventually(lambda: world.outcomes == ["fetched"], timeout=10, what="the answer")
    assert await most_of(models) == 1
    assert world.account.asked == 1


async def test_plans_beside_each_other_ask_once(world: World, most_of: Any) -> None:
    models = world.process()

    assert await asyncio.gather(*(most_of(models) for _ in range(5))) == [1] * 5
    assert world.account.asked == 1


async def test_nobody_is_asked_where_nothing_is_to_be_remembered(world: World, most_of: Any) -> None:
    assert await most_of(world.process(ttl=0)) == MOST_RESTRICTIVE.max_output
    assert world.account.asked == 0


async def test_a_process_remembers_so_many_accounts(world: World, most_of: Any) -> None:
    world.accounts.update({f"a{number}": world.account for number in range(150)})
    models = world.process()
    for number in range(150):
        await most_of(models, account=f"a{number}")

    assert world.account.asked == 150
    assert await most_of(models, account="a0") == 1
    assert world.account.asked == 150  # its row is stored
    assert world.outcomes[-1] == "stored"
