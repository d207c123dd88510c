"""A running simulator, a client for it and the requests the tests send."""

import json
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from waiting import eventually_sync

from floopy.simulation import SimulatorProcess
from floopy_simulator.config import DEFAULT_ANTHROPIC_MODELS, DEFAULT_MODELS

DEADLINE = 20.0
CHAT = "/v1/chat/completions"
DEFAULTS = {
    "batch_seconds": 0.2,
    "auto": True,
    "cancel_seconds": 0.05,
    "cancel_in_flight": 0,
    "window_seconds": 86400,
    "list_lag": 0,
    "count_lag": 0,
    "file_list_lag": 0,
    "enqueued_token_limit": None,
    "max_lines": 50_000,
    "max_file_bytes": 200_000_000,
    "queued_request_limit": None,
    "max_requests": 100_000,
    "max_batch_bytes": 256_000_000,
    "order": "shuffled",
    "models": list(DEFAULT_MODELS),
    "anthropic_models": list(DEFAULT_ANTHROPIC_MODELS),
    "revoked_keys": [],
}


class RunningSimulator(SimulatorProcess):
    """The program itself, and its control API without an event loop."""

    def call(self, method: str, path: str, body: object = None) -> Any:
        return json.loads(self.read(method, path, body))

    def read(self, method: str, path: str, body: object = None) -> bytes:
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/_sim{path}", data=content, method=method)
        with urllib.request.urlopen(request, timeout=DEADLINE) as response:
            return response.read()

    def open(self, path: str, key: str) -> Any:
        """A raw response of the provider, read by the standard library."""
        request = urllib.request.Request(
            self.openai_base_url + path, headers={"Authorization": f"Bearer {key}"}
        )
        return urllib.request.urlopen(request, timeout=DEADLINE)

    def configure(self, **changes: object) -> None:
        self.call("POST", "/config", changes)

    def script(self, op: str, action: dict[str, object], *, times: int | None = 1, **match: object) -> int:
        fault = {"match": {"op": op, **match}, "times": times, "action": action}
        return self.call("POST", "/faults", fault)["id"]

    def advance(self, batch_id: str, to: str, **more: object) -> dict[str, Any]:
        return self.call("POST", f"/batches/{batch_id}/advance", {"to": to, **more})

    def executed(self, batch_id: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.read("GET", f"/ledger/lines?batch={batch_id}").splitlines()]


class Account:
    """One key's files and batches through the official SDK, with its retries switched off."""

    def __init__(self, simulator: RunningSimulator, key: str) -> None:
        self.key = key
        self.client = openai.OpenAI(api_key=key, base_url=simulator.openai_base_url, max_retries=0)

    def upload(self, content: bytes) -> str:
        return self.client.files.create(file=("in.jsonl", content), purpose="batch").id

    def create(self, content: bytes, endpoint: str = CHAT, **more: Any) -> str:
        file_id = self.upload(content)
        return self.client.batches.create(
            input_file_id=file_id, endpoint=endpoint, completion_window="24h", **more
        ).id

    def wait(self, batch_id: str, *states: str) -> Any:
        wanted = states or ("completed", "failed", "expired", "cancelled")

        def arrived() -> Any:
            batch = self.client.batches.retrieve(batch_id)
            return batch if batch.status in wanted else None

        return eventually_sync(arrived, timeout=DEADLINE, what=f"{batch_id} as one of {wanted}")

    def run(self, content: bytes, endpoint: str = CHAT) -> Any:
        return self.wait(self.create(content, endpoint))

    def raw_lines(self, file_id: str | None) -> list[bytes]:
        return [] if file_id is None else self.client.files.content(file_id).content.splitlines()

    def lines(self, file_id: str | None) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.raw_lines(file_id)]

    def answer(self, **body: Any) -> dict[str, Any]:
        """The one line a batch of one request leaves, from whichever file it is in."""
        batch = self.run(as_lines([body]))
        assert batch.errors is None, batch.errors
        return (self.lines(batch.output_file_id) + self.lines(batch.error_file_id))[0]


def make_body(question: str = "What is a batch?", **more: Any) -> dict[str, Any]:
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": question}], **more}


def as_lines(bodies: list[dict[str, Any]], endpoint: str = CHAT) -> bytes:
    """Requests `line-1`, `line-2`, ... as a file."""
    return b"".join(
        json.dumps(
            {"custom_id": f"line-{number}", "method": "POST", "url": endpoint, "body": body},
            separators=(",", ":"),  # as the SDK sends a body: the same bytes have the same answer
        ).encode()
        + b"\n"
        for number, body in enumerate(bodies, start=1)
    )


@pytest.fixture(scope="session")
def shared_simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSimulator]:
    simulator = RunningSimulator(tmp_path_factory.mktemp("shared"))
    yield simulator
    assert simulator.stop() == 0


@pytest.fixture
def sim(shared_simulator: RunningSimulator) -> RunningSimulator:
    """The shared simulator with its defaults and without faults."""
    shared_simulator.call("DELETE", "/faults")
    shared_simulator.configure(**DEFAULTS)
    return shared_simulator


@pytest.fixture
def own_simulator(tmp_path: Path) -> Iterator[RunningSimulator]:
    """One that a test may kill."""
    simulator = RunningSimulator(tmp_path / "simulator")
    simulator.configure(**DEFAULTS)
    yield simulator
    simulator.end()


@pytest.fixture
def make_account() -> Iterator[Callable[[RunningSimulator], Account]]:
    accounts: list[Account] = []

    def make(simulator: RunningSimulator, key: str | None = None) -> Account:
        accounts.append(Account(simulator, key or f"sk-{uuid.uuid4().hex}"))
        return accounts[-1]

    yield make
    for account in accounts:
        account.client.close()


@pytest.fixture
def account(sim: RunningSimulator, make_account: Callable[[RunningSimulator], Account]) -> Account:
    return make_account(sim)


@pytest.fixture
def requests() -> Any:
    """Builders of request bodies and files."""

    class Requests:
        body = staticmethod(make_body)
        lines = staticmethod(as_lines)

        @staticmethod
        def many(count: int, **more: Any) -> bytes:
            return as_lines([make_body(f"Question {number}: why?", **more) for number in range(1, count + 1)])

    return Requests
