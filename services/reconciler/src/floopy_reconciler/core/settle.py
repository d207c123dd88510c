"""Collects what a provider batch left: download, verify, archive, retry what failed in passing, settle."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field

from floopy_common.domain.index import FLAG_OK, SOURCE_ERROR, SOURCE_OUTPUT, pack_result
from floopy_common.domain.shard import ShardEnd
from floopy_common.providers.port import BatchProvider, NotFound, ProviderError, ProviderStatus
from floopy_reconciler.core.lines import lines_of
from floopy_reconciler.core.look import Look
from floopy_reconciler.core.quarantine import pause_for
from floopy_reconciler.core.refuse import Refuser
from floopy_reconciler.core.results import Expected, Joined, ResultScan, join_results
from floopy_reconciler.core.retry import OWN_WINDOWS, RetryPolicy, out_of_its_own_time, retry_shard
from floopy_reconciler.errors import ResultsTooLarge
from floopy_reconciler.ports import (
    Archives,
    Batches,
    Changed,
    Document,
    Hit,
    Hold,
    LineIndexes,
    Now,
    Received,
    ResultFormat,
    SettleReports,
    SettlingStore,
)

_log = logging.getLogger(__name__)

_UNEXPLAINED = frozenset({ShardEnd.FINISHED, ShardEnd.LOST})
"""Ways to end that do not say why a line has no answer."""
_SOURCES = ((SOURCE_OUTPUT, "output"), (SOURCE_ERROR, "error"))


@dataclass(frozen=True)
class Patience:
    """How often results that are not whole are fetched again before they count as all there is.

    `for_lines`: there are results, but lines are missing; `for_files`: a file is missing altogether.
    `dead`: seconds, at first, that results are left alone that several workers died of.
    """

    for_lines: int
    for_files: int
    shortest: float
    longest: float
    dead: float = 30.0

    def delay(self, downloads: int) -> float:
        return min(self.shortest * 2.0 ** min(downloads, 20), self.longest)


@dataclass
class _Results:
    """Downloads by source, and what they say; `gone`: a file that the provider named cannot be had."""

    received: dict[int, Received] = field(default_factory=dict)
    scans: dict[int, ResultScan] = field(default_factory=dict)
    gone: bool = False


@dataclass(frozen=True)
class _Read:
    """What the downloads say, and the numbers of the lines they should speak of."""

    joined: Joined
    lines: Sequence[int]


class Settler:
    """Takes a shard whose provider batch has ended to its own end."""

    def __init__(
        self,
        *,
        shards: SettlingStore,
        batches: Batches,
        lines: LineIndexes,
        archives: Archives,
        formats: Callable[[str], ResultFormat],
        retries: RetryPolicy,
        refuser: Refuser,
        patience: Patience,
        changed: Changed,
        reports: SettleReports,
        now: Now,
        hit: Hit,
    ) -> None:
        self._shards = shards
        self._batches = batches
        self._lines = lines
        self._archives = archives
        self._formats = formats
        self._retries = retries
        self._refuser = refuser
        self._patience = patience
        self._changed = changed
        self._reports = reports
        self._now = now
        self._hit = hit

    async def settle(self, shard: Document, look: Look, provider: BatchProvider) -> None:
        """Whatever it ends in, the shard is settled, refused, waiting, or due for another look."""
        if is_refusal(look):
            if await self._refuser.refuse(shard, look):
                self._reports.settled(ShardEnd.REFUSED)
        else:
            async with self._shards.hold(shard) as hold:
                if hold is None:
                    return
                pause = pause_for(hold.shard, self._patience.dead)
                if pause is None:
                    await self._collect(hold, look, provider)
                else:
                    await self._quarantine(hold, pause)
        await self._changed(shard["batch_id"])

    async def _quarantine(self, hold: Hold, pause: float) -> None:
        self._reports.download_quarantined()
        _log.error(
            "results kill whoever collects them",
            extra={
                "event": "download_quarantined",
                "shard_id": hold.shard["_id"],
                "deaths": hold.shard["lease"]["deaths"],
                "pause": round(pause, 1),
            },
        )
        await hold.let_go(pause)

    async def _collect(self, hold: Hold, look: Look, provider: BatchProvider) -> None:
        try:
            async with AsyncExitStack() as downloads:
                lines = await self._lines_of(hold.shard)
                results = await self._fetch(look, provider, hold.shard, lines, downloads)
                self._hit("settle.after_download")
                await self._judge(hold, look, results, lines)
        except ProviderError as error:
            _log.warning(
                "results did not come through",
                extra={"event": "download_failed", "shard_id": hold.shard["_id"], "cause": str(error)},
            )
            await hold.let_go(self._patience.delay(hold.shard.get("downloads") or 0))
        except asyncio.CancelledError:
            await hold.let_go(0)
            raise

    async def _lines_of(self, shard: Document) -> Sequence[int]:
        batch = await self._planned(shard)
        packed = await self._lines.read(
            batch["plan"]["index_blob"], batch["_id"], shard["plan_id"], shard["segments"]
        )
        return await asyncio.to_thread(lines_of, shard, packed)

    async def _planned(self, shard: Document) -> Document:
        batch = await self._batches.get(shard["batch_id"])
        if batch is None or batch.get("plan") is None:
            raise LookupError(f"shard {shard['_id']} belongs to no planned batch")
        return batch

    async def _fetch(
        self,
        look: Look,
        provider: BatchProvider,
        shard: Document,
        lines: Sequence[int],
        downloads: AsyncExitStack,
    ) -> _Results:
        """Everything is read while it arrives: there is no second pass over what may be large."""
        results, expected = _Results(), Expected(nonce_of(shard), frozenset(lines))
        for source, name in _SOURCES:
            file_id = look.files.get(name)
            if file_id is None:
                continue
            try:
                scan = ResultScan(source, expected, self._formats(shard["provider"]))
                async with provider.open_result(file_id) as stream:
                    received = await self._archives.receive(stream, shard["batch_id"], scan.feed)
                downloads.push_async_callback(received.drop)
                results.received[source], results.scans[source] = received, scan
            except (NotFound, ResultsTooLarge) as error:
                results.gone = True
                _log.error(
                    "results cannot be had",
                    extra={"event": "results_gone", "source": name, "cause": str(error)},
                )
        return results

    async def _judge(self, hold: Hold, look: Look, results: _Results, lines: Sequence[int]) -> None:
        shard = hold.shard
        batch = await self._planned(shard)  # as it is now: its end may have been decided meanwhile
        keep_never_run = look.status is ProviderStatus.COMPLETED or out_of_its_own_time(batch, shard, look)
        scans = results.scans.values()
        joined = await asyncio.to_thread(join_results, scans, keep_never_run=keep_never_run)
        read = _Read(joined, lines)

        whole = is_whole(look, read.joined, len(read.lines))
        downloads = shard.get("downloads") or 0
        if read.joined.all_foreign:
            _log.error(
                "adopted provider batch is not ours",
                extra={"event": "foreign_results", "shard_id": shard["_id"]},
            )
            self._reports.detached()
            await hold.detach()
        elif not whole and downloads < self._bound(results):
            await hold.download_again(self._patience.delay(downloads))
        else:
            ended = ended_as(look, batch, gone=results.gone and not whole)
            await self._keep(hold, batch, results, read, ended)

    def _bound(self, results: _Results) -> int:
        """How often results that are not whole are worth fetching."""
        return self._patience.for_lines if results.received and not results.gone else self._patience.for_files

    async def _keep(
        self, hold: Hold, batch: Document, results: _Results, read: _Read, ended: ShardEnd
    ) -> None:
        archive = await self._archive(batch["_id"], results, read.joined)
        self._hit("settle.after_archive")

        retried = await self._try_again(batch, hold.shard, read)
        if retried and ended is ShardEnd.EXPIRED and hold.shard["provider"] in OWN_WINDOWS:
            # what there was no time for waits for the retry shard, whose ending explains it
            ended = ShardEnd.FINISHED
        await hold.settle(archive, ended)
        self._hit("settle.after_settle")

        self._reports.settled(ended)
        for kind, number in asdict(read.joined.quarantined).items():
            self._reports.quarantined(kind, number)
        missing = len(read.lines) - len(read.joined.entries)
        if missing and ended in _UNEXPLAINED:
            _log.error(
                "answers are missing",
                extra={"event": "answers_missing", "shard_id": hold.shard["_id"], "lines": missing},
            )
            self._reports.quarantined("missing", missing)

    async def _archive(self, batch_id: str, results: _Results, joined: Joined) -> Document | None:
        if not results.received:
            return None
        kept: Document = {"output": None, "error": None}
        indexing = asyncio.create_task(asyncio.to_thread(_index_of, joined))
        try:
            for source, name in _SOURCES:
                scan = results.scans.get(source)
                if scan is not None and scan.length:
                    blob = await results.received[source].keep()
                    kept[name] = {"blob": blob, "length": scan.length}
        finally:
            packed, succeeded = await indexing
        index = await self._archives.keep_index(packed, batch_id)
        return {
            "index_blob": index,
            **kept,
            "lines": len(joined.entries),
            "succeeded": succeeded,
            "quarantined": asdict(joined.quarantined),
        }

    async def _try_again(self, batch: Document, shard: Document, read: _Read) -> bool:
        """Before the shard counts as settled, so that no line is ever without a shard to wait for."""
        lines = read.joined.retryable()
        if not lines or not self._retries.allows(batch, shard, self._now()):
            return False
        starts = await self._lines.starts(batch["_id"], shard["plan_id"], shard["segments"])
        await self._shards.insert_retry(retry_shard(shard, lines, read.lines, starts))
        self._hit("settle.after_retry_shard")
        self._reports.retried(len(lines))
        return True


def _index_of(joined: Joined) -> tuple[bytes, int]:
    """The packed index, and how many of its lines succeeded."""
    entries = joined.in_order()
    return pack_result(entries), sum(1 for entry in entries if entry.flags & FLAG_OK)


def nonce_of(shard: Document) -> str:
    """The nonce of the attempt that made the shard's provider batch."""
    made = [a for a in shard["attempts"] if a["provider_batch_id"] == shard["provider_batch_id"]]
    return str(made[-1]["nonce"])


def is_refusal(look: Look) -> bool:
    """Whether nothing of the provider batch ran, so that there is nothing to collect."""
    return look.status is ProviderStatus.FAILED and not any(look.files.values())


def is_whole(look: Look, joined: Joined, lines: int) -> bool:
    """Whether every line is there that must be: all of them where the provider finished."""
    finished = look.status is ProviderStatus.COMPLETED
    return not joined.truncated and joined.present >= (lines if finished else min(lines, look.accounted))


def ended_as(look: Look, batch: Document, *, gone: bool) -> ShardEnd:
    """What explains the lines without an answer: our own decision to end the batch before the provider's."""
    if gone:
        return ShardEnd.LOST
    if look.status not in {ProviderStatus.EXPIRED, ProviderStatus.CANCELLED}:
        return ShardEnd.FINISHED
    return ShardEnd(batch.get("ending") or look.status.value)
