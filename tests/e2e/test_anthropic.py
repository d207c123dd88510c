"""What is Anthropic's own, through every service: what its Models API says, and translations that are pinned.

The simulator's ledger says who asked and what was sent.
"""

import json
from dataclasses import replace
from typing import Any

import pytest
from floopy_e2e.lines import chat_line, custom_ids
from floopy_e2e.providers import ANTHROPIC, Provider
from floopy_e2e.stack import Stack
from waiting import eventually

from floopy_common.chassis.mongo import open_mongo
from floopy_common.settings import MongoSettings
from floopy_common.stores.blobs import BlobStore, chunk_id

pytestmark = pytest.mark.asyncio(loop_scope="module")

UNBUNDLED = "claude-fable-5-2"
"""A model that no bundled row describes: as far as we know, it takes little."""
LIMIT = 96_000


async def account_of(stack: Stack, key: str) -> Provider:
    """Another account at the simulator's Anthropic half, chosen by its id."""
    code, account = await stack.floopy(
        *("accounts", "create", "--org", stack.credentials["org_id"], "--provider", "anthropic"),
        *("--base-url", stack.simulator.anthropic_base_url, "--api-key-stdin"),
        stdin=key,
    )
    assert code == 0
    return replace(ANTHROPIC, name=account["id"])


async def asked_by(stack: Stack, key: str) -> list[dict[str, Any]]:
    return [call for call in await stack.simulator.calls("models.list") if call["key"] == key]


def lines(tag: str) -> bytes:
    """One that any model takes, and one that asks for more than the most restrictive row allows."""
    return chat_line("plain", f"Hello {tag}", model=UNBUNDLED) + chat_line(
        "deep", f"Think about {tag}", model=UNBUNDLED, reasoning_effort="xhigh"
    )


async def test_a_model_that_only_the_models_api_knows_plans_and_runs(stack: Stack) -> None:
    key = "sk-ant-asked"
    account = await account_of(stack, key)
    published = {
        "id": UNBUNDLED,
        "max_tokens": LIMIT,
        "max_input_tokens": 1_000_000,
        "capabilities": {
            "batch": {"supported": True},
            "effort": {name: {"supported": True} for name in ("low", "high", "xhigh")},
        },
    }
    await stack.simulator.fault("models.list", {"kind": "patch", "body": {"data": [published]}}, key=key)

    batches = [await stack.balanced(await stack.create(account, lines(tag))) for tag in ("one", "two")]

    for batch in batches:
        assert (batch["status"], batch["request_counts"]["completed"]) == ("completed", 2)
        output, _ = await stack.files(batch)
        assert {json.loads(line)["response"]["body"]["model"] for line in output.splitlines()} == {UNBUNDLED}
    # the second plan went by what the first had asked for
    assert [call["status"] for call in await asked_by(stack, key)] == [200]
    async with stack.database() as database:
        plan = (await database.batches.find_one({"_id": batches[1]["id"]}))["plan"]
        pinned = await database.blob_chunks.find_one({"_id": chunk_id(plan["translation_blob"], 0)})
    assert json.loads(pinned["data"])["models"][UNBUNDLED]["capabilities"]["max_output"] == LIMIT
    async with stack.client() as client:
        assert UNBUNDLED in {model.id async for model in client.models.list()}
        assert (await client.models.retrieve(UNBUNDLED)).owned_by == "anthropic"


async def test_without_an_answer_a_plan_goes_by_what_is_bundled(stack: Stack) -> None:
    key = "sk-ant-unanswered"
    account = await account_of(stack, key)
    await stack.simulator.fault("models.list", {"kind": "status", "status": 529}, key=key, times=None)

    batches = [await stack.balanced(await stack.create(account, lines(tag))) for tag in ("three", "four")]

    for batch in batches:
        assert batch["status"] == "completed"
        output, errors = await stack.files(batch)
        assert [json.loads(line)["custom_id"] for line in output.splitlines()] == ["plain"]
        (refused,) = [json.loads(line) for line in errors.splitlines()]
        error = refused["response"]["body"]["error"]
        assert (refused["custom_id"], error["code"], error["param"]) == (
            "deep",
            "unsupported_value",
            "reasoning_effort",
        )
    # who could not say is not asked at every plan
    assert [call["status"] for call in await asked_by(stack, key)] == [529]


async def allow_less(stack: Stack, batch_id: str, most: int) -> None:
    """As if the translator had learnt since the batch was planned that its model writes so little."""
    where = MongoSettings(uri=stack.credentials["mongo_uri"], database=stack.credentials["mongo_database"])
    async with open_mongo(where, "floopy-e2e") as mongo:
        batches, blobs = mongo.collection("batches"), BlobStore(mongo)
        batch = await batches.find_one({"_id": batch_id})
        assert batch is not None
        pinned = json.loads(await blobs.read_bytes(batch["plan"]["translation_blob"]))
        for model in pinned["models"].values():
            model["capabilities"]["max_output"] = most
        blob = await blobs.put("translation", json.dumps(pinned).encode(), [batch_id])
        newer = {"plan.translation_blob": blob.id, "plan.translator_version": 0}
        await batches.update_one({"_id": batch_id}, {"$set": newer})


async def test_what_a_newer_translator_refuses_is_in_the_error_file_and_the_rest_is_answered(
    stack: Stack,
) -> None:
    key = "sk-ant-refused-later"
    account = await account_of(stack, key)
    full = {"kind": "status", "status": 429, "headers": {"retry-after": "0"}}
    fault = await stack.simulator.fault(ANTHROPIC.creates, full, key=key, times=None)
    content = b"".join(
        chat_line(f"{number}", f"Number {number}", model=ANTHROPIC.model, max_tokens=60 if number % 3 else 40)
        for number in range(1, 10)
    )
    batch_id = await stack.create(account, content)

    async def is_waiting() -> bool:
        return bool((await stack.batch(batch_id))["floopy"]["shards"].get("waiting"))

    await eventually(is_waiting, what="a planned shard")
    await allow_less(stack, batch_id, 50)
    before = (await stack.simulator.fault_state(fault))["hits"]

    async def is_tried_anew() -> bool:
        return bool((await stack.simulator.fault_state(fault))["hits"] >= before + 2)

    await eventually(is_tried_anew, what="a try that has begun since then")
    await stack.simulator.lift(fault)
    batch = await stack.balanced(batch_id)

    assert (batch["status"], batch["request_counts"]) == (
        "completed",
        {"total": 9, "completed": 3, "failed": 6},
    )
    output, errors = await stack.files(batch)
    assert custom_ids(output) == ["3", "6", "9"]
    assert custom_ids(errors) == ["1", "2", "4", "5", "7", "8"]
    said = [json.loads(line)["response"] for line in errors.splitlines()]
    assert {(line["status_code"], line["body"]["error"]["param"]) for line in said} == {(400, "max_tokens")}
    await stack.verified(batch_id)
    sent = [ours for ours in await stack.simulator.batches() if ours["key"] == key]
    assert [(ours["lines"], ours["completed"]) for ours in sent] == [(3, 3)]
