"""One key's message batches, through the official SDK and without it."""

import json
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import pytest
from waiting import eventually_sync

MODEL = "claude-opus-4-8"
DEADLINE = 20.0
OLD_VERSION = "2023-06-01"


class Reply:
    """A raw answer, whatever its status."""

    def __init__(self, response: Any) -> None:
        with response:
            self.status = response.status
            self.headers = response.headers
            self.content = response.read()

    @property
    def body(self) -> Any:
        return json.loads(self.content)


class MessageAccount:
    """The SDK's retries are switched off; it sends the newest API version and the key as a bearer token."""

    def __init__(self, simulator: Any, key: str) -> None:
        self.key = key
        self.simulator = simulator
        self.client = anthropic.Anthropic(
            api_key=key, base_url=simulator.anthropic_base_url, max_retries=0, timeout=DEADLINE
        )

    def raw(self, method: str, path: str, body: object = None, **headers: str | None) -> Reply:
        """Without the SDK; a header that is None is left out, `_` in its name stands for `-`."""
        content = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        usual = {"x_api_key": self.key, "anthropic_version": OLD_VERSION, "content_type": "application/json"}
        sent = {
            name.replace("_", "-"): value for name, value in {**usual, **headers}.items() if value is not None
        }
        url = f"{self.simulator.anthropic_base_url}/v1{path}"
        request = urllib.request.Request(url, data=content, headers=sent, method=method)
        try:
            return Reply(urllib.request.urlopen(request, timeout=DEADLINE))
        except urllib.error.HTTPError as refused:
            return Reply(refused)

    def create(self, *params: dict[str, Any]) -> str:
        """Requests `r-1`, `r-2`, ... by the SDK."""
        requests = [{"custom_id": f"r-{number}", "params": one} for number, one in enumerate(params, start=1)]
        return self.client.messages.batches.create(requests=requests).id

    def get(self, batch_id: str) -> Any:
        return self.client.messages.batches.retrieve(batch_id)

    def wait(self, batch_id: str) -> Any:
        def ended() -> Any:
            batch = self.get(batch_id)
            return batch if batch.processing_status == "ended" else None

        return eventually_sync(ended, timeout=DEADLINE, what=f"the end of {batch_id}")

    def run(self, *params: dict[str, Any]) -> Any:
        return self.wait(self.create(*params))

    def lines(self, batch_id: str) -> list[bytes]:
        return self.raw("GET", f"/messages/batches/{batch_id}/results").content.splitlines()

    def results(self, batch_id: str) -> dict[str, Any]:
        """By custom_id, as the SDK reads them."""
        return {line.custom_id: line.result for line in self.client.messages.batches.results(batch_id)}

    def counts(self, batch_id: str) -> dict[str, int]:
        """Those that are not zero."""
        return {name: count for name, count in self.get(batch_id).request_counts if count}

    def answer(self, **params: Any) -> Any:
        """The message that a batch of one request ends with."""
        result = self.results(self.run(params).id)["r-1"]
        assert result.type == "succeeded", result
        return result.message


def make_params(question: str = "What is a batch?", **more: Any) -> dict[str, Any]:
    return {
        "model": MODEL,
        "max_tokens": 4096,
        "messages": [{"role": "user", "content": question}],
        **more,
    }


@pytest.fixture
def params() -> Callable[..., dict[str, Any]]:
    return make_params


@pytest.fixture
def many() -> Callable[[int], list[dict[str, Any]]]:
    return lambda count: [make_params(f"Question {number}: why?") for number in range(1, count + 1)]


@pytest.fixture
def make_claude() -> Iterator[Callable[..., MessageAccount]]:
    accounts: list[MessageAccount] = []

    def make(simulator: Any, key: str | None = None) -> MessageAccount:
        accounts.append(MessageAccount(simulator, key or f"sk-ant-{uuid.uuid4().hex}"))
        return accounts[-1]

    yield make
    for account in accounts:
        account.client.close()


@pytest.fixture
def claude(sim: Any, make_claude: Callable[..., MessageAccount]) -> MessageAccount:
    return make_claude(sim)
