"""Planning a batch on Anthropic: what is sent and how large it is, what never is, and what a repeat needs."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from floopy_common.domain.ids import new_file_id
from floopy_common.domain.index import unpack_result
from floopy_common.providers.anthropic.capabilities import ModelTable
from floopy_common.providers.anthropic.request import TRANSLATOR_VERSION
from floopy_common.providers.formats import RESULT_FORMATS
from floopy_common.providers.pricing import PriceTable
from floopy_common.settings import AnthropicModelSettings, AnthropicSettings
from floopy_common.stores.blobs import FileReader
from floopy_common.stores.files import FileStore
from floopy_common.stores.finishing import PlannedLines
from floopy_submitter.core.input import ShardInput
from floopy_submitter.core.stored_files import StoredFiles
from floopy_submitter.core.translator import Translators

CHAT = "/v1/chat/completions"
HAIKU, OPUS = "claude-haiku-4-5", "claude-opus-5"
CLAUDE = {"provider": "anthropic"}
HI = [{"role": "user", "content": "Hi"}]


def line(number: int, model: str = HAIKU, messages: Any = HI, **more: Any) -> bytes:
    body = {"model": model, "messages": messages, **more}
    asked = {"custom_id": f"a/b {number} é", "method": "POST", "url": CHAT, "body": body}
    return json.dumps(asked, ensure_ascii=False).encode() + b"\n"


def refers_to(file_id: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "file", "file": {"file_id": file_id}}]}]


class Sent:
    """What the submitter would send of a planned batch."""

    def __init__(self, world: Any) -> None:
        files = StoredFiles(FileStore(world.mongo), world.blobs, FileReader(world.blobs), 1_000_000)
        translators = Translators(world.blobs, files, str.encode)
        index = PlannedLines(world.mongo, world.blobs)
        self.inputs = ShardInput(index, FileReader(world.blobs), translators)

    async def content(self, batch: dict[str, Any], shard: dict[str, Any]) -> bytes:
        upload = await self.inputs.open(batch, shard, {"id": "att_1", "nonce": "0123456789"})
        content = b"".join([piece async for piece in upload.chunks])
        assert len(content) == upload.size
        return content

    async def requests(self, batch: dict[str, Any], shard: dict[str, Any]) -> dict[str, dict[str, Any]]:
        found = json.loads(b"[" + await self.content(batch, shard) + b"]")
        return {request["custom_id"].partition("-")[2]: request["params"] for request in found}


@pytest.fixture
def sent(world: Any) -> Sent:
    return Sent(world)


async def answers(world: Any, shard: dict[str, Any]) -> dict[int, tuple[int | None, dict[str, Any]]]:
    """Status and error of the lines of a shard that is not sent, read as the reconciler reads them."""
    archive = shard["archive"]
    stored = await world.blobs.read_bytes(archive["error"]["blob"])
    assert len(stored) == archive["error"]["length"]
    rows = list(unpack_result(await world.blobs.read_bytes(archive["index_blob"])))
    read = RESULT_FORMATS[shard["provider"]]
    found = {}
    for row in rows:
        answer = read.parse_result(stored[row.offset : row.offset + row.length])
        assert (answer.ok, answer.retryable, row.source, row.flags) == (False, False, 1, 0)
        found[row.line_no] = (answer.status_code, json.loads(answer.body or b"")["error"])
    return found


@pytest.mark.edge(1, 2)
async def test_the_plan_knows_the_size_of_what_is_sent(world: Any, sent: Sent) -> None:
    content = b"".join(line(number) for number in range(1, 26))
    batch_id = await world.create(content, **CLAUDE)

    await world.planner(claude=AnthropicSettings(shard_lines=10)).step()

    batch, shards = await world.batch(batch_id), await world.shards(batch_id)
    assert batch["plan"]["translator_version"] == TRANSLATOR_VERSION
    assert [group["sent"] for group in batch["plan"]["groups"]] == [HAIKU]
    assert [(shard["lines"], shard["provider"], shard["kind"]) for shard in shards] == [
        (10, "anthropic", "primary"),
        (10, "anthropic", "primary"),
        (5, "anthropic", "primary"),
    ]
    for shard in shards:
        assert len(await sent.content(batch, shard)) == shard["bytes"] - 1
        measured = await sent.inputs.measure(batch, shard)
        assert sum(part.size for part in measured) == shard["bytes"]
    assert [next(iter(await sent.requests(batch, shard))) for shard in shards] == ["1", "11", "21"]


@pytest.mark.edge(21)
async def test_cjk_is_not_inflated(world: Any, sent: Sent) -> None:
    text = "批次处理" * 50_000
    batch_id = await world.create(line(1, messages=[{"role": "user", "content": text}]), **CLAUDE)

    await world.planner().step()

    [shard] = await world.shards(batch_id)
    assert len(text.encode()) < shard["bytes"] < len(text.encode()) + 500


@pytest.mark.edge(7)
async def test_refused_lines_are_a_shard_that_is_settled_from_the_beginning(world: Any, sent: Sent) -> None:
    bad = {3: {"n": 2}, 4: {"logprobs": True}, 7: {"max_tokens": 0}}
    content = b"".join(line(number, **bad.get(number, {})) for number in range(1, 11))
    batch_id = await world.create(content, **CLAUDE)

    await world.planner(segment=(5, 10_000_000)).step()

    batch = await world.batch(batch_id)
    good, refused = await world.shards(batch_id)
    assert batch["summary"]["shards"] == {"planned": 1, "settled": 1}
    assert (batch["counts"]["total"], batch["plan"]["shards"]) == (10, 2)
    assert (good["lines"], good["ranges"], good["segments"]) == (7, [[1, 2], [5, 6], [8, 10]], [0, 1])
    assert list(await sent.requests(batch, good)) == ["1", "2", "5", "6", "8", "9", "10"]
    assert (refused["state"], refused["kind"], refused["provider"]) == ("settled", "refused", "floopy")
    assert (refused["ranges"], refused["lines"], refused["segments"]) == ([[3, 4], [7, 7]], 3, [0, 1])
    assert (refused["ended"], refused["provider_batch_id"], refused["attempts"]) == ("finished", None, [])
    assert batch["created_at"] <= refused["ended_at"] <= batch["in_progress_at"]
    said = await answers(world, refused)
    assert {number: (status, error["param"]) for number, (status, error) in said.items()} == {
        3: (400, "n"),
        4: (400, "logprobs"),
        7: (400, "max_tokens"),
    }
    assert said[3][1].keys() == {"message", "type", "param", "code"}
    assert refused.keys() == good.keys()


@pytest.mark.edge(8)
async def test_a_batch_with_nothing_to_send_has_no_shard_to_submit(world: Any) -> None:
    batch_id = await world.create(line(1, "gpt-4o-mini") + line(2, n=3), **CLAUDE)

    await world.planner().step()

    batch, shards = await world.batch(batch_id), await world.shards(batch_id)
    assert batch["status"] == "in_progress"
    assert batch["summary"]["shards"] == {"settled": 2}
    found = [await answers(world, shard) for shard in shards]
    assert [(status, error["code"]) for said in found for status, error in said.values()] == [
        (404, "model_not_found"),
        (400, "unsupported_value"),
    ]
    assert [group["sent"] for group in batch["plan"]["groups"]] == [None, HAIKU]
    assert batch["plan"]["groups"][0]["rates"]["flag"] == "pricing_missing"


async def test_models_may_be_mixed_and_each_has_its_price(world: Any, sent: Sent) -> None:
    claude = AnthropicSettings(models={"fast": AnthropicModelSettings(id=HAIKU)})
    lines = [line(1, "fast"), line(2, OPUS), line(3, "fast", n=2), line(4, OPUS, n=2), line(5, "fast")]
    batch_id = await world.create(b"".join(lines), **CLAUDE)

    await world.planner(claude=claude).step()

    batch = await world.batch(batch_id)
    fast, opus, *refused = await world.shards(batch_id)
    groups = batch["plan"]["groups"]
    assert [(group["model"], group["sent"]) for group in groups] == [("fast", HAIKU), (OPUS, OPUS)]
    rates = PriceTable().batch_rates("anthropic", HAIKU, datetime.now(UTC))
    assert groups[0]["rates"]["input_nano"] == rates.input_nano
    assert (fast["ranges"], opus["ranges"]) == ([[1, 2], [4, 5]], [[2, 2]])
    assert [params["model"] for params in (await sent.requests(batch, fast)).values()] == [HAIKU, HAIKU]
    assert [(shard["group"], shard["ranges"]) for shard in refused] == [(0, [[3, 3]]), (1, [[4, 4]])]


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
async def test_a_second_model_fails_the_batch_unless_the_operator_allows_it(
    world: Any, provider: str
) -> None:
    content = line(1, HAIKU) + line(2, OPUS) + line(3, HAIKU)
    first = await world.create(content, **{**CLAUDE, "provider": provider})
    await world.planner(mixed_models=False).step()
    second = await world.create(content, **{**CLAUDE, "provider": provider})
    await world.planner(mixed_models=True).step()

    refused, planned = await world.batch(first), await world.batch(second)
    (error,) = refused["errors"]
    assert (refused["status"], error["code"], error["line"]) == ("failed", "mismatched_model", 2)
    assert planned["status"] == "in_progress"
    assert [(shard["group"], shard["lines"]) for shard in await world.shards(second)] == [(0, 2), (1, 1)]


async def test_more_models_than_a_plan_can_hold_fail_the_batch(world: Any) -> None:
    lines = [line(number, f"claude-{number}") for number in range(1, 102)]
    batch_id = await world.create(b"".join(lines), **CLAUDE)

    await world.planner().step()

    batch = await world.batch(batch_id)
    assert (batch["status"], batch["errors"][0]["line"], batch["errors"][0]["param"]) == (
        "failed",
        101,
        "body.model",
    )


async def test_a_changed_setting_changes_nothing_of_a_plan(world: Any, sent: Sent) -> None:
    """`sent` knows nothing of the operator's table: all it needs is in the plan."""
    lenient = AnthropicSettings(
        unsupported="drop", models={HAIKU: AnthropicModelSettings(max_output=77), "alias": {"id": OPUS}}
    )
    content = line(1, n=1, logit_bias={"1": 5}) + line(2, "alias")
    batch_id = await world.create(content, **CLAUDE)

    await world.planner(claude=lenient).step()

    batch = await world.batch(batch_id)
    first, second = [await sent.requests(batch, shard) for shard in await world.shards(batch_id)]
    assert first["1"]["max_tokens"] == 77
    assert second["2"]["model"] == OPUS


class Told:
    """A table as the Models API tells it, which may change."""

    def __init__(self) -> None:
        self.most = 0
        self.asked: list[str] = []

    async def of(self, account_id: str) -> ModelTable:
        self.asked.append(account_id)
        return ModelTable(None, [{"id": "claude-six", "max_tokens": self.most}])


async def test_what_the_models_api_said_is_the_plans_for_good(world: Any, sent: Sent) -> None:
    world.models = told = Told()
    for most in (5_000, 200_000):
        told.most = most
        batch_id = await world.create(line(1, "claude-six"), **CLAUDE)
        await world.planner().step()
        batch = await world.batch(batch_id)
        [shard] = await world.shards(batch_id)
        first = await sent.content(batch, shard)
        told.most = 7

        assert json.loads(first)["params"]["max_tokens"] == most
        assert await Sent(world).content(batch, shard) == first
    assert told.asked == ["acct_test", "acct_test"]


async def test_shared_prompts_are_marked_the_same_whenever_they_are_sent(world: Any, sent: Sent) -> None:
    long = [{"role": "system", "content": "Be brief. " * 600}, *HI]
    alone = [{"role": "system", "content": "Be long. " * 600}, *HI]
    content = line(1, messages=long) + line(2, messages=alone) + line(3, messages=long)
    batch_id = await world.create(content, **CLAUDE)

    await world.planner(claude=AnthropicSettings(auto_cache=True)).step()

    [shard] = await world.shards(batch_id)
    requests = await sent.requests(await world.batch(batch_id), shard)
    assert ["cache_control" in params["system"][-1] for params in requests.values()] == [True, False, True]


async def store_file(world: Any, org_id: str, content: bytes, filename: str = "notes.txt") -> str:
    blob = await world.blobs.put("input", content)
    now = datetime.now(UTC)
    file = {
        "_id": new_file_id(),
        "org_id": org_id,
        "filename": filename,
        "purpose": "user_data",
        "bytes": len(content),
        "created_at": now,
        "expires_at": now + timedelta(days=1),
        "deleted_at": None,
        "ranges": [{"blob": blob.id, "offset": 0, "length": blob.length, "sha256": blob.sha256}],
        "etag": blob.sha256,
        "status": "processed",
        "batch_id": None,
        "kind": "upload",
    }
    await FileStore(world.mongo).insert(file)
    return str(file["_id"])


@pytest.mark.edge(36)
async def test_files_are_ours_or_the_line_is_refused(world: Any, sent: Sent) -> None:
    ours = await store_file(world, "org_a", b"Our notes.")
    theirs = await store_file(world, "org_b", b"Their notes.")
    large = await store_file(world, "org_a", b"x" * 1_001)
    files = [ours, theirs, "file-unknown", large, ours]
    content = b"".join(line(n, messages=refers_to(file)) for n, file in enumerate(files, start=1))
    batch_id = await world.create(content, **CLAUDE)

    await world.planner(claude=AnthropicSettings(file_bytes=1_000)).step()
    await FileStore(world.mongo).delete_owned("org_a", ours)

    good, refused = await world.shards(batch_id)
    requests = await sent.requests(await world.batch(batch_id), good)
    assert [params["messages"][0]["content"][0]["source"]["data"] for params in requests.values()] == [
        "Our notes.",
        "Our notes.",
    ]
    said = await answers(world, refused)
    assert {error["param"] for _, error in said.values()} == {"messages[0].content[0].file.file_id"}
    assert "1000 bytes at most" in said[4][1]["message"]
    assert said[2][1]["message"].replace(theirs, "X") == said[3][1]["message"].replace("file-unknown", "X")


async def test_what_the_files_are_made_of_is_kept_for_the_batch(world: Any) -> None:
    ours = await store_file(world, "org_a", b"Our notes.")
    batch_id = await world.create(line(1, messages=refers_to(ours)), **CLAUDE)

    await world.planner().step()

    kinds = [blob["kind"] for blob in await world.mongo.collection("blobs").find_all({"pins": batch_id})]
    assert sorted(kinds) == ["index", "input", "input", "translation"]


async def test_refusals_beyond_a_documents_room_are_several_shards(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("floopy_submitter.core.unsent.MAX_LINES", 3)
    content = b"".join(line(number, n=2) for number in range(1, 8))
    batch_id = await world.create(content, **CLAUDE)

    await world.planner(segment=(4, 10_000_000)).step()

    shards = await world.shards(batch_id)
    assert [(shard["ranges"], shard["segments"]) for shard in shards] == [
        ([[1, 3]], [0]),
        ([[4, 6]], [0, 1]),
        ([[7, 7]], [1]),
    ]
    assert [list(await answers(world, shard)) for shard in shards] == [[1, 2, 3], [4, 5, 6], [7]]
