"""Results of a real HTTP provider, whatever happens to them: archived as they came, each line once."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from floopy.simulation import OwnSimulator
from floopy_common.chassis.mongo import Mongo
from floopy_common.chassis.secrets import Keyring
from floopy_common.domain.index import FLAG_OK, FLAG_RETRYABLE, InputEntry, ResultEntry, unpack_result
from floopy_common.providers.clients import open_clients
from floopy_common.providers.formats import RESULT_FORMATS
from floopy_common.settings import AnthropicSettings, ProviderSettings, ProvidersSettings, Settings
from floopy_common.stores.batches import BatchStore
from floopy_common.stores.blobs import BlobStore
from floopy_common.stores.finishing import PlannedLines
from floopy_common.stores.polling import PollStore
from floopy_common.stores.summaries import SummaryStore
from floopy_reconciler.adapters.archives import ScratchArchives
from floopy_reconciler.core.collector import Collector
from floopy_reconciler.core.look import Pace
from floopy_reconciler.core.poll import Poller
from floopy_reconciler.core.pool import Pool, Pools
from floopy_reconciler.core.refuse import Backoff, Refuser
from floopy_reconciler.core.retry import RetryPolicy
from floopy_reconciler.core.settle import Patience, Settler
from floopy_reconciler.core.sources import choose, sources_of
from floopy_reconciler.metrics import PrometheusReports

SECRET = "a secret for tests that nobody needs to guess"
OPEN = {"submitted", "cancelling", "downloading"}
PATIENCE = 2


class Bench:
    """The poller with everything real behind it."""

    def __init__(self, mongo: Mongo, world: Any, poller: Poller, pools: Pools) -> None:
        self.mongo = mongo
        self.world = world
        self.poller = poller
        self.pools = pools

    async def collect(self, planted: Any, wait_for: Callable[..., Any]) -> list[dict[str, Any]]:
        """Poll until no shard is with the provider any more; the shards then."""

        async def done() -> list[dict[str, Any]] | None:
            await self.poller.step()
            shards: list[dict[str, Any]] = await self.world.shards(planted)
            return shards if not any(shard["state"] in OPEN for shard in shards) else None

        found: list[dict[str, Any]] = await wait_for(done, "every shard collected")
        return found

    async def entries(self, shard: dict[str, Any]) -> dict[int, ResultEntry]:
        packed = await self.world.blobs.read_bytes(shard["archive"]["index_blob"])
        entries = list(unpack_result(packed))
        assert [e.line_no for e in entries] == sorted({e.line_no for e in entries})
        return {entry.line_no: entry for entry in entries}

    async def archived(self, shard: dict[str, Any], entry: ResultEntry) -> bytes:
        part = shard["archive"]["error" if entry.source else "output"]
        raw: bytes = await self.world.blobs.read_bytes(part["blob"], entry.offset, entry.length)
        return raw


@pytest.fixture
def pace() -> Pace:
    return Pace(0.02, 0.1)


@pytest.fixture
async def bench(
    mongo: Mongo, world: Any, sim: OwnSimulator, tmp_path: Path, pace: Pace
) -> AsyncIterator[Bench]:
    providers = ProvidersSettings(
        openai=ProviderSettings(base_url=sim.openai_base_url),
        anthropic=AnthropicSettings(base_url=sim.anthropic_base_url),
    )
    settings = Settings(providers=providers, secret_key=SecretStr(SECRET))
    polls, batches, lines = PollStore(mongo, "test", 30), BatchStore(mongo), PlannedLines(mongo, world.blobs)

    async def changed(_: str) -> None:
        return

    pools = Pools(
        Pool(8, 8, lambda: None),
        Pool(4, 1, lambda: None),
        Pool(4, 4, lambda: None),
        Pool(4, 4, lambda: None),
    )
    async with open_clients(mongo, settings, Keyring(settings.secret_key)) as clients:
        settler = Settler(
            shards=polls,
            batches=batches,
            lines=lines,
            archives=ScratchArchives(
                tmp_path / "scratch", BlobStore(mongo), max_result=10**8, max_total=10**9
            ),
            formats=RESULT_FORMATS.__getitem__,
            retries=RetryPolicy(depth=3, window_left=60),
            refuser=Refuser(
                shards=polls, batches=batches, lines=lines, backoff=Backoff(5, 60), fail_when_full=False
            ),
            patience=Patience(PATIENCE, PATIENCE, 0.01, 0.05),
            changed=changed,
            reports=PrometheusReports(),
            now=lambda: datetime.now(UTC),
            hit=lambda _: None,
        )
        poller = Poller(
            shards=polls,
            providers=clients,
            collector=Collector(settler, pools.downloads, pools.small_downloads, PrometheusReports()),
            listings=NoListings(),
            pool=pools.looks,
            pace=pace,
            claim_for=30,
            changed=changed,
            reports=PrometheusReports(),
            now=lambda: datetime.now(UTC),
            hit=lambda _: None,
        )
        yield Bench(mongo, world, poller, pools)
        await pools.close()
    # the scratch copy of a download never outlives it
    assert not list((tmp_path / "scratch").glob("*.part"))


class NoListings:
    """Each provider batch is looked at by itself."""

    async def start(self) -> set[str]:
        return set()

    def floor(self, account_id: str) -> float:
        return 0.0


@pytest.fixture
def collect(bench: Bench, wait_for: Callable[..., Any]) -> Callable[..., Any]:
    return lambda planted: bench.collect(planted, wait_for)


async def test_results_are_archived_and_indexed_by_line(
    bench: Bench, world: Any, collect: Any, body: Any
) -> None:
    planted = await world.submitted(
        [body("a"), body("b", sim="status=400"), body("c")], blank_first=2, shard_lines=2
    )

    first, second = await collect(planted)

    assert [(s["state"], s["ended"], s["lease"]["token"]) for s in (first, second)] == [
        ("settled", "finished", None)
    ] * 2
    entries = await bench.entries(first)
    assert {line: (entry.source, entry.flags) for line, entry in entries.items()} == {
        3: (0, FLAG_OK),
        4: (1, 0),
    }
    nonce = first["attempts"][0]["nonce"].encode()
    for line, entry in entries.items():
        assert b'"%b-%d"' % (nonce, line) in await bench.archived(first, entry)
    assert first["archive"]["lines"] == 2
    pins = await bench.mongo.collection("blobs").count({"pins": planted.id})
    assert pins == 2 + 3 + 2


@pytest.mark.parametrize("pace", [Pace(3_600, 3_600)])
async def test_ended_shards_wait_for_room_and_not_for_another_look(
    bench: Bench, world: Any, collect: Any, body: Any, sim: OwnSimulator
) -> None:
    await sim.configure(auto=False)
    planted = await world.submitted([body(f"q{n}") for n in range(11)], shard_lines=1)
    for shard in await world.shards(planted):
        await sim.advance(shard["provider_batch_id"], "completed")
    assert bench.pools.small_downloads.free < 11

    shards = await collect(planted)

    assert [shard["ended"] for shard in shards] == ["finished"] * 11
    assert all(shard["archive"]["succeeded"] == 1 for shard in shards)


async def test_archive_is_what_the_provider_sent_byte_for_byte(
    bench: Bench, world: Any, collect: Any, body: Any
) -> None:
    planted = await world.submitted([body("a"), body("b"), body("c", sim="garbled")])
    (shard,) = await collect(planted)

    upstream = await world.sdk.batches.retrieve(shard["provider_batch_id"])
    sent = (await world.sdk.files.content(upstream.output_file_id)).content

    assert await world.blobs.read_bytes(shard["archive"]["output"]["blob"]) == sent
    assert shard["archive"]["output"]["length"] == len(sent)


@pytest.mark.parametrize(
    ("directive", "kind", "answered"),
    [
        ("duplicate", "duplicate", True),
        ("duplicate=other", "duplicate", True),
        ("unknown", "unknown", None),
        ("garbled", "malformed", False),
        ("both", "duplicate", True),
    ],
)
async def test_spoilt_results_are_counted_and_never_double_a_line(
    bench: Bench, world: Any, collect: Any, body: Any, directive: str, kind: str, answered: bool | None
) -> None:
    planted = await world.submitted([body("a"), body("b", sim=directive), body("c")])

    (shard,) = await collect(planted)

    assert shard["archive"]["quarantined"][kind] >= 1
    entries = await bench.entries(shard)
    assert {1, 3} <= set(entries)
    if answered is not None:
        assert (2 in entries) is answered


async def test_success_wins_over_a_failure_of_the_same_line(
    bench: Bench, world: Any, collect: Any, body: Any
) -> None:
    planted = await world.submitted([body("a", sim="both")])

    (shard,) = await collect(planted)

    assert (await bench.entries(shard))[1].flags == FLAG_OK


async def test_missing_line_is_accepted_after_a_few_downloads(
    bench: Bench, world: Any, collect: Any, body: Any, sim: OwnSimulator
) -> None:
    planted = await world.submitted([body("a"), body("b", sim="missing")])

    (shard,) = await collect(planted)

    assert (shard["ended"], shard["downloads"]) == ("finished", PATIENCE)
    assert set(await bench.entries(shard)) == {1}
    assert len(await sim.calls("files.content")) == PATIENCE + 1


@pytest.mark.parametrize("mode", ["length", "chunked"])
async def test_results_cut_short_are_fetched_again(
    bench: Bench, world: Any, collect: Any, body: Any, sim: OwnSimulator, mode: str
) -> None:
    await sim.fault("files.content", {"kind": "truncate", "bytes": 700, "mode": mode}, times=1)
    planted = await world.submitted([body("a"), body("b"), body("c")])

    (shard,) = await collect(planted)

    assert set(await bench.entries(shard)) == {1, 2, 3}


@pytest.mark.parametrize(
    "fault", [{"kind": "drop"}, {"kind": "status", "status": 500}, {"kind": "status", "status": 429}]
)
async def test_download_that_fails_is_tried_again(
    bench: Bench, world: Any, collect: Any, body: Any, sim: OwnSimulator, fault: dict[str, Any]
) -> None:
    await sim.fault("files.content", fault, times=PATIENCE + 3)
    planted = await world.submitted([body("a")])

    (shard,) = await collect(planted)

    assert shard["ended"] == "finished"
    assert set(await bench.entries(shard)) == {1}


async def test_download_that_is_stopped_is_anybodys_at_once(
    bench: Bench, world: Any, collect: Any, body: Any, sim: OwnSimulator, wait_for: Any
) -> None:
    held = await sim.fault("files.content", {"kind": "hold"}, times=1)
    planted = await world.submitted([body("a")])

    async def downloading() -> bool:
        await bench.poller.step()
        return bool((await sim.fault_state(held))["waiting"])

    await wait_for(downloading, "a download under way")
    await bench.pools.small_downloads.close()

    (shard,) = await world.shards(planted)
    assert (shard["state"], shard["lease"]["token"]) == ("downloading", None)
    (shard,) = await collect(planted)
    assert set(await bench.entries(shard)) == {1}


async def test_results_the_provider_no_longer_has_end_the_shard_as_lost(
    bench: Bench, world: Any, collect: Any, body: Any, sim: OwnSimulator
) -> None:
    await sim.fault("files.content", {"kind": "status", "status": 404}, times=None)
    planted = await world.submitted([body("a")])

    (shard,) = await collect(planted)

    assert (shard["ended"], shard["archive"]) == ("lost", None)


async def test_one_file_gone_keeps_what_the_other_says(
    bench: Bench, world: Any, collect: Any, body: Any, sim: OwnSimulator
) -> None:
    await sim.fault("files.content", {"kind": "status", "status": 404}, times=None, file="error")
    planted = await world.submitted([body("a"), body("b", sim="status=400")])

    (shard,) = await collect(planted)

    assert shard["ended"] == "lost"
    assert set(await bench.entries(shard)) == {1}


async def test_completed_without_files_waits_for_them(
    bench: Bench, world: Any, collect: Any, body: Any, sim: OwnSimulator
) -> None:
    early = {"kind": "patch", "body": {"output_file_id": None, "status": "completed"}}
    await sim.configure(auto=False)
    planted = await world.submitted([body("a")])
    # what is shown after the early looks must not depend on how fast they were
    await sim.advance(await upstream_of(world, planted), "completed")
    await sim.fault("batches.get", early, times=2)

    (shard,) = await collect(planted)

    assert set(await bench.entries(shard)) == {1}
    assert shard["downloads"] >= 1


async def test_completed_without_files_for_ever_ends_with_missing_lines(
    bench: Bench, world: Any, collect: Any, body: Any, sim: OwnSimulator
) -> None:
    never = {"kind": "patch", "body": {"output_file_id": None, "error_file_id": None}}
    await sim.fault("batches.get", never, times=None)
    planted = await world.submitted([body("a")])

    (shard,) = await collect(planted)

    assert (shard["ended"], shard["archive"], shard["downloads"]) == ("finished", None, PATIENCE)


async def test_results_of_somebody_elses_batch_detach_the_shard(
    bench: Bench, world: Any, collect: Any, body: Any
) -> None:
    planted = await world.plan([body("a"), body("b")])
    (shard,) = planted.shards
    foreign = await world.submit(planted, shard, nonce="ffffffffff")

    (after,) = await collect(planted)

    assert (after["state"], after["foreign"], after["archive"]) == ("submit_unknown", [foreign], None)


async def test_lines_that_failed_in_passing_get_a_retry_shard(
    bench: Bench, world: Any, collect: Any, body: Any
) -> None:
    planted = await world.submitted(
        [body("a"), body("b", sim="status=500"), body("c", sim="status=400"), body("d", sim="status=429")],
        segment_lines=2,
    )

    parent, retry = await collect(planted)

    assert (parent["state"], retry["state"], retry["parent"]) == ("settled", "planned", parent["_id"])
    assert (retry["ranges"], retry["lines"], retry["segments"]) == ([[2, 2], [4, 4]], 2, [0, 1])
    flags = {line: entry.flags for line, entry in (await bench.entries(parent)).items()}
    assert flags == {1: FLAG_OK, 2: FLAG_RETRYABLE, 3: 0, 4: FLAG_RETRYABLE}


async def test_line_is_retried_up_to_the_depth(bench: Bench, world: Any, collect: Any, body: Any) -> None:
    planted = await world.submitted([body("a", sim="status=503")])

    for depth in range(1, 4):
        shards = await collect(planted)
        assert [s["depth"] for s in shards] == list(range(depth + 1))
        await world.submit(planted, shards[-1])
    shards = await collect(planted)

    assert [s["state"] for s in shards] == ["settled"] * 4


async def test_no_retry_while_the_batch_is_ending(bench: Bench, world: Any, collect: Any, body: Any) -> None:
    planted = await world.submitted([body("a", sim="status=500")], ending="expired")

    assert len(await collect(planted)) == 1


async def test_full_queue_puts_the_shard_back_in_line(
    bench: Bench, world: Any, collect: Any, body: Any, sim: OwnSimulator
) -> None:
    await sim.configure(enqueued_token_limit=1)
    planted = await world.submitted([body("a")])

    (shard,) = await collect(planted)

    assert (shard["state"], shard["waiting"]["reason"]) == ("waiting", "provider_queue_full")
    assert (shard["provider_batch_id"], shard["queue_refusals"]) == (None, 1)


@pytest.mark.surface("4.4 model_not_found, in the provider's words")
async def test_refused_input_names_the_users_lines(bench: Bench, world: Any, collect: Any, body: Any) -> None:
    wrong = {**body("b"), "model": "no-such-model"}
    planted = await world.submitted([body("x")] * 3 + [body("a"), wrong], blank_first=4, shard_lines=3)

    _, second = await collect(planted)

    assert (second["state"], second["ended"]) == ("refused", "refused")
    assert {error["line"] for error in second["refused"]["errors"]} == {9}
    assert all(error["message"] for error in second["refused"]["errors"])


async def test_cancelled_upstream_keeps_what_was_finished_and_leaves_the_rest_to_our_reason(
    bench: Bench, world: Any, collect: Any, body: Any, sim: OwnSimulator
) -> None:
    await sim.configure(auto=False)
    planted = await world.submitted([body(f"q{n}") for n in range(4)], ending="expired")
    (shard,) = planted.shards
    upstream = (await world.shards(planted))[0]["provider_batch_id"]
    await sim.advance(upstream, "in_progress", completed=2)
    await bench.mongo.collection("shards").update_one(
        {"_id": shard["_id"]}, {"$set": {"cancel_asked_at": datetime.now(UTC)}}
    )

    (after,) = await collect(planted)

    assert after["ended"] == "expired"
    entries = await bench.entries(after)
    assert len(entries) == 2
    assert {entry.flags for entry in entries.values()} == {FLAG_OK}
    assert len(await sim.calls("batches.cancel")) == 1


async def test_expired_upstream_ends_the_shard_as_expired(
    bench: Bench, world: Any, collect: Any, body: Any, sim: OwnSimulator
) -> None:
    await sim.configure(auto=False)
    planted = await world.submitted([body("a"), body("b")])
    upstream = (await world.shards(planted))[0]["provider_batch_id"]
    await sim.advance(upstream, "expired", completed=1)

    (after,) = await collect(planted)

    assert after["ended"] == "expired"
    assert len(await bench.entries(after)) == 1


@pytest.mark.parametrize("status", [500, 404])
async def test_looks_that_fail_change_nothing_but_the_time_of_the_next(
    bench: Bench, world: Any, collect: Any, body: Any, sim: OwnSimulator, status: int
) -> None:
    await sim.fault("batches.get", {"kind": "status", "status": status}, times=3)
    planted = await world.submitted([body("a")])

    (shard,) = await collect(planted)

    assert shard["ended"] == "finished"


async def test_status_that_goes_backwards_is_ignored(
    bench: Bench, world: Any, collect: Any, body: Any, sim: OwnSimulator
) -> None:
    await sim.fault("files.content", {"kind": "status", "status": 500}, times=1)
    back = {"kind": "patch", "body": {"status": "finalizing", "output_file_id": None}}
    planted = await world.submitted([body("a")])
    await sim.fault("batches.get", back, times=5, skip=1)

    (shard,) = await collect(planted)

    assert set(await bench.entries(shard)) == {1}


def asked_of_claude(question: str, sim: str | None = None) -> dict[str, Any]:
    content = question if sim is None else f"{question} [sim:{sim}]"
    return {
        "model": "claude-haiku-4-5",
        "max_tokens": 64,
        "messages": [{"role": "user", "content": content}],
    }


async def upstream_of(world: Any, planted: Any) -> str:
    return str((await world.shards(planted))[-1]["provider_batch_id"])


@pytest.mark.edge(14)
async def test_messages_in_any_order_are_indexed_by_their_lines(
    bench: Bench, claude_world: Any, collect: Any
) -> None:
    planted = await claude_world.submitted([asked_of_claude(f"q{n}") for n in range(1, 21)], blank_first=3)

    (shard,) = await collect(planted)

    entries = await bench.entries(shard)
    assert list(entries) == list(range(4, 24))
    offsets = [entry.offset for entry in entries.values()]
    assert offsets != sorted(offsets)  # they did not come in the order of their lines
    nonce = shard["attempts"][0]["nonce"].encode()
    for line_no, entry in entries.items():
        assert b'"%b-%d"' % (nonce, line_no) in await bench.archived(shard, entry)


@pytest.mark.edge(15)
async def test_messages_that_are_missing_doubled_or_unknown_spoil_no_other(
    bench: Bench, claude_world: Any, collect: Any, caplog: pytest.LogCaptureFixture
) -> None:
    words = [None, "missing", "duplicate", "duplicate=other", "unknown", None]
    planted = await claude_world.submitted([asked_of_claude(f"q{n}", sim) for n, sim in enumerate(words)])

    (shard,) = await collect(planted)

    entries = await bench.entries(shard)
    assert set(entries) == {1, 3, 4, 5, 6}
    assert (shard["ended"], shard["downloads"]) == ("finished", PATIENCE)
    assert {entry.flags for entry in entries.values()} == {FLAG_OK}
    quarantined = shard["archive"]["quarantined"]
    assert (quarantined["duplicate"], quarantined["unknown"]) == (2, 1)
    alerts = [record for record in caplog.records if getattr(record, "event", "") == "answers_missing"]
    assert [(record.levelname, vars(record)["lines"]) for record in alerts] == [("ERROR", 1)]
    archive = await bench.world.blobs.read_bytes(shard["archive"]["output"]["blob"])
    nonce = shard["attempts"][0]["nonce"].encode()
    for line_no in (3, 4):  # of two answers to a line the first
        first = next(row for row in archive.split(b"\n") if b'"%b-%d"' % (nonce, line_no) in row)
        assert await bench.archived(shard, entries[line_no]) == first


@pytest.mark.edge(13)
async def test_progress_shows_a_message_batch_that_ended_while_another_runs(
    bench: Bench, claude_world: Any, sim: OwnSimulator, wait_for: Callable[..., Any]
) -> None:
    await sim.configure(auto=False)
    planted = await claude_world.submitted([asked_of_claude(f"q{n}") for n in range(5)], shard_lines=3)
    first, second = [shard["provider_batch_id"] for shard in await claude_world.shards(planted)]
    await sim.advance(first, "ended")
    await sim.advance(second, "in_progress", completed=1)

    async def collected() -> bool:
        await bench.poller.step()
        shards = await claude_world.shards(planted)
        return [shard["state"] for shard in shards] == ["settled", "submitted"]

    await wait_for(collected, "the first collected")

    # what runs says nothing of its requests until it has ended
    summary = await SummaryStore(bench.mongo).compute(planted.id, planted.batch["plan"]["plan_id"], 5)
    assert summary["counts"] == {"completed": 3, "failed": 0}
    assert summary["shards"] == {"settled": 1, "submitted": 1}


@pytest.mark.edge(19)
async def test_an_overloaded_message_succeeds_the_second_time_and_is_answered_once(
    bench: Bench, claude_world: Any, collect: Any
) -> None:
    planted = await claude_world.submitted(
        [asked_of_claude("a"), asked_of_claude("b", "status=529 times=1"), asked_of_claude("c")]
    )

    parent, retry = await collect(planted)
    assert (retry["parent"], retry["ranges"], retry["kind"]) == (parent["_id"], [[2, 2]], "retry")
    await claude_world.submit(planted, retry)
    parent, retry = await collect(planted)

    flags = {line: entry.flags for line, entry in (await bench.entries(parent)).items()}
    assert flags == {1: FLAG_OK, 2: FLAG_RETRYABLE, 3: FLAG_OK}
    assert {line: entry.flags for line, entry in (await bench.entries(retry)).items()} == {2: FLAG_OK}
    sources = sources_of([parent, retry], 1, 3)
    answers = [await bench.entries(retry), await bench.entries(parent)]
    chosen = choose([InputEntry(n, 0, 1, 0) for n in (1, 2, 3)], sources, answers, lambda *_: False)
    assert [sources[choice.source]["shard"] for choice in chosen] == [
        parent["_id"],
        retry["_id"],
        parent["_id"],
    ]


@pytest.mark.edge(11)
@pytest.mark.parametrize("ending", ["cancelled", "expired"])
async def test_cancelled_message_batch_keeps_what_ran_and_leaves_the_rest_to_our_reason(
    bench: Bench, claude_world: Any, collect: Any, sim: OwnSimulator, ending: str
) -> None:
    await sim.configure(auto=False)
    planted = await claude_world.submitted([asked_of_claude(f"q{n}") for n in range(4)], ending=ending)
    await sim.advance(await upstream_of(claude_world, planted), "in_progress", completed=2)
    await bench.mongo.collection("shards").update_one({}, {"$set": {"cancel_asked_at": datetime.now(UTC)}})

    (after,) = await collect(planted)

    assert (after["state"], after["ended"]) == ("settled", ending)
    assert after["provider_status"] == "cancelled"
    assert {entry.flags for entry in (await bench.entries(after)).values()} == {FLAG_OK}
    assert after["archive"]["succeeded"] == 2
    assert len(await sim.calls("messages.batches.cancel")) == 1


async def test_message_batch_that_ran_out_of_its_own_time_is_tried_again(
    bench: Bench, claude_world: Any, collect: Any, sim: OwnSimulator
) -> None:
    await sim.configure(auto=False)
    planted = await claude_world.submitted([asked_of_claude(f"q{n}") for n in range(4)])
    await sim.advance(await upstream_of(claude_world, planted), "expired", completed=1)

    first, retry = await collect(planted)

    assert (first["state"], first["ended"], first["archive"]["succeeded"]) == ("settled", "finished", 1)
    assert (retry["kind"], retry["lines"], retry["state"]) == ("retry", 3, "planned")
    await claude_world.submit(planted, retry)
    await sim.advance(await upstream_of(claude_world, planted), "ended")
    _, retry = await collect(planted)
    assert (retry["ended"], retry["archive"]["succeeded"]) == ("finished", 3)


async def test_message_batch_that_ran_out_of_the_batchs_time_as_well_expires(
    bench: Bench, claude_world: Any, collect: Any, sim: OwnSimulator
) -> None:
    await sim.configure(auto=False)
    soon = datetime.now(UTC) + timedelta(seconds=30)
    planted = await claude_world.submitted([asked_of_claude(f"q{n}") for n in range(3)], expires_at=soon)
    await sim.advance(await upstream_of(claude_world, planted), "expired", completed=1)

    (after,) = await collect(planted)

    assert (after["ended"], after["archive"]["succeeded"]) == ("expired", 1)


@pytest.mark.parametrize("sim_words", ["status=529", "status=500", "status=429"])
async def test_message_that_failed_in_passing_is_tried_three_times_more(
    bench: Bench, claude_world: Any, collect: Any, sim_words: str
) -> None:
    planted = await claude_world.submitted([asked_of_claude("a", sim_words), asked_of_claude("b")])

    for depth in range(1, 4):
        shards = await collect(planted)
        assert [(s["depth"], s["lines"]) for s in shards] == [(0, 2), *((n, 1) for n in range(1, depth + 1))]
        await claude_world.submit(planted, shards[-1])
    shards = await collect(planted)

    assert [s["ended"] for s in shards] == ["finished"] * 4


async def test_message_that_was_refused_is_not_tried_again(
    bench: Bench, claude_world: Any, collect: Any
) -> None:
    planted = await claude_world.submitted([asked_of_claude("a", "status=400")])

    (after,) = await collect(planted)

    assert after["provider_counts"] == {"total": 1, "completed": 0, "failed": 1}


async def test_progress_is_what_results_show_once_they_are_here(
    bench: Bench, world: Any, collect: Any, body: Any
) -> None:
    planted = await world.submitted([body("a"), body("b", sim="missing"), body("c")])

    (after,) = await collect(planted)

    assert after["provider_counts"]["completed"] == 3
    summary = await SummaryStore(bench.mongo).compute(planted.id, planted.batch["plan"]["plan_id"], 3)
    assert summary["counts"]["completed"] == 2


@pytest.mark.parametrize(
    ("status", "claimed", "shown"), [("in_progress", 2, 2), ("in_progress", 500, 3), ("completed", 3, 0)]
)
async def test_progress_is_no_more_than_can_be_known(
    bench: Bench, world: Any, body: Any, status: str, claimed: int, shown: int
) -> None:
    planted = await world.plan([body(f"q{n}") for n in range(3)])
    counts = {"total": 3, "completed": claimed, "failed": 0}
    await bench.mongo.collection("shards").update_one(
        {}, {"$set": {"state": "submitted", "provider_status": status, "provider_counts": counts}}
    )

    summary = await SummaryStore(bench.mongo).compute(planted.id, planted.batch["plan"]["plan_id"], 3)

    assert summary["counts"]["completed"] == shown


async def test_results_that_kill_their_collectors_are_left_alone_and_others_are_collected(
    bench: Bench, world: Any, collect: Any, body: Any, wait_for: Callable[..., Any]
) -> None:
    planted = await world.submitted([body("a"), body("b")], shard_lines=1)
    deadly = (await world.shards(planted))[0]["_id"]
    shards = bench.mongo.collection("shards")
    polls = PollStore(bench.mongo, "victim", 30)
    for deaths in range(3):
        async with polls.hold((await shards.find_one({"_id": deadly})) or {}) as hold:
            assert hold is not None
            assert hold.shard["lease"]["deaths"] == deaths
        # its holder is gone without a word
        await shards.update_one({"_id": deadly}, [{"$set": {"lease.expires_at": "$$NOW"}}])

    async def left_alone() -> bool:
        await bench.poller.step()
        first, second = await world.shards(planted)
        return bool(first["lease"]["token"] is None and second["state"] == "settled")

    await wait_for(left_alone, "the deadly one left alone, the other settled")
    (found,) = [shard for shard in await world.shards(planted) if shard["_id"] == deadly]
    assert (found["state"], found["lease"]["deaths"]) == ("downloading", 3)
    assert (found["poll"]["next_at"] - datetime.now(UTC)).total_seconds() > 10

    await shards.update_one({"_id": deadly}, [{"$set": {"poll.next_at": "$$NOW"}}])
    assert [shard["state"] for shard in await collect(planted)] == ["settled", "settled"]
