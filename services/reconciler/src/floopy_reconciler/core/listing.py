"""Looks at many provider batches at once: an account's list of them is read instead of each by itself."""

import asyncio
import logging
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from floopy_common.domain.shard import URGENT
from floopy_common.providers.port import (
    AccountMissing,
    BatchProvider,
    NotFound,
    ProviderBatch,
    ProviderDirectory,
    ProviderError,
    Unavailable,
)
from floopy_reconciler.core.cancel import wants_cancel
from floopy_reconciler.core.collector import Collector
from floopy_reconciler.core.look import Look, Pace, early, understand
from floopy_reconciler.core.poll import outcome_of
from floopy_reconciler.core.ready import is_small
from floopy_reconciler.core.schedule import Schedule
from floopy_reconciler.ports import (
    Changed,
    Document,
    ListingClaim,
    ListingHold,
    ListingShards,
    LookReports,
    LooksStore,
)

_log = logging.getLogger(__name__)

_WALKS = 4
"""Stretches of one listing read at the same time, once marks say where each begins."""
_MARK_EVERY = 10
"""Pages of a stretch."""
_MAX_MARKS = 400
_MAX_PAGES = 2_000
"""Of one stretch: twice what a provider lets an account create in the two days a batch may take."""
_OLDER = timedelta(minutes=15)
"""A batch may be this much older than its shard says; one that is older still gets a look of its own."""
_PATIENCE = 2
"""Failures in a row that an account's shards wait out before each is looked at by itself."""
_REST = 10
"""Longest intervals before a listing that is of no use is read again."""

Stretch = tuple[str | None, str | None]
"""The id behind which it begins, None for the newest, and the one with which it ends, None for the oldest."""


@dataclass
class Reading:
    """One reading of one account's listing; `due` is how many shards were due when it began."""

    hold: ListingHold
    provider: BatchProvider
    oldest: datetime
    due: int
    floor: float
    spread: float = field(default_factory=early)
    pages: int = 0
    found: int = 0
    marks: dict[tuple[int, int], Document] = field(default_factory=dict)
    failure: ProviderError | None = None

    @property
    def account_id(self) -> str:
        return self.hold.account_id

    def is_over(self, page: Sequence[ProviderBatch]) -> bool:
        """The rest of the listing is older than every open shard."""
        return all(batch.created_at < self.oldest for batch in page)

    def ordered_marks(self) -> list[Document]:
        marks = [self.marks[place] for place in sorted(self.marks)]
        once = list({mark["id"]: mark for mark in marks}.values())
        return once[:: -(-len(once) // _MAX_MARKS) or 1]


class Lister:
    """Carries out readings; every look is fenced by its shard, so that two readings harm nobody."""

    def __init__(
        self,
        *,
        schedule: Schedule,
        listed: ListingShards,
        shards: LooksStore,
        providers: ProviderDirectory,
        collector: Collector,
        pace: Pace,
        changed: Changed,
        reports: LookReports,
    ) -> None:
        self._schedule = schedule
        self._listed = listed
        self._shards = shards
        self._providers = providers
        self._collector = collector
        self._pace = pace
        self._changed = changed
        self._reports = reports

    async def start(self) -> set[str]:
        """Start the readings that are due; accounts whose shards are looked at that way, by whomever."""
        return await self._schedule.start(self.read)

    def floor(self, account_id: str) -> float:
        """Seconds between two looks that an account's share of all there is to look at leaves."""
        return self._schedule.floor(account_id)

    async def read(self, claim: ListingClaim, due: int) -> None:
        """Read the listing from its newest batch to the oldest one that is open."""
        async with claim.hold() as hold:
            try:
                await self._read(hold, due)
            except (ProviderError, AccountMissing) as error:
                await self._failed(hold, error)
            except asyncio.CancelledError:
                await hold.let_go()
                raise

    async def _read(self, hold: ListingHold, due: int) -> None:
        provider = await self._providers.for_account(hold.account_id)
        submitted = await self._listed.oldest_open(hold.account_id)
        if submitted is None:
            await hold.finish(0, [])
            return
        floor = self._schedule.floor(hold.account_id)
        reading = Reading(hold, provider, submitted - _OLDER, due, floor)
        stretches = deque(enumerate(stretches_of(hold.marks, reading.oldest)))
        async with asyncio.TaskGroup() as walks:
            for _ in range(min(_WALKS, len(stretches))):
                walks.create_task(self._walk(reading, stretches))
        if reading.failure is not None:
            raise reading.failure
        await self._finish(reading)

    async def _finish(self, reading: Reading) -> None:
        hold = reading.hold
        hurried = await self._listed.hurry_unseen(hold.account_id, hold.began_at)
        if reading.found * 2 >= reading.due:
            self._schedule.read(hold.account_id, reading.pages)
            await hold.finish(reading.pages, reading.ordered_marks())
            return
        _log.warning(
            "a provider's list lacks most of our batches",
            extra={"event": "listing_useless", "account_id": hold.account_id, "unlisted": hurried},
        )
        self._schedule.read(hold.account_id, 0)
        await hold.fail(self._pace.longest * _REST, wait=False)

    async def _failed(self, hold: ListingHold, error: ProviderError | AccountMissing) -> None:
        _log.warning(
            "a provider's list of batches was not read",
            extra={"event": "listing_failed", "account_id": hold.account_id, "cause": str(error)},
        )
        asked = getattr(error, "retry_after", None) or 0.0
        delay = max(asked, self._pace.after_failure(hold.failures + 1))
        passing = not isinstance(error, NotFound) and hold.failures < _PATIENCE
        if passing and asked <= self._pace.longest:
            await hold.fail(delay, wait=True)
        else:
            self._schedule.read(hold.account_id, 0)
            await hold.fail(self._pace.longest * _REST, wait=False)

    async def _walk(self, reading: Reading, stretches: deque[tuple[int, Stretch]]) -> None:
        while stretches and reading.failure is None:
            number, (after, until) = stretches.popleft()
            try:
                await self._stretch(reading, number, after, until)
            except ProviderError as error:
                reading.failure = error

    async def _stretch(self, reading: Reading, number: int, after: str | None, until: str | None) -> None:
        met = {after}
        for page in range(1, _MAX_PAGES + 1):
            listed_at = reading.hold.now()
            batches, more = await reading.provider.list_page(after)
            reading.pages += 1
            await self._page(reading, batches, listed_at)
            end = next((batch for batch in batches if batch.id == until), None)
            if end is not None:
                reading.marks[number, page] = {"id": end.id, "at": end.created_at}
            if end is not None or not more or not batches or reading.is_over(batches):
                return
            after = batches[-1].id
            if after in met:
                raise Unavailable("the provider's list of batches repeats itself")
            met.add(after)
            if page % _MARK_EVERY == 0:
                reading.marks[number, page] = {"id": after, "at": batches[-1].created_at}
        raise Unavailable(f"the provider's list of batches has more than {_MAX_PAGES} pages")

    async def _page(self, reading: Reading, batches: Sequence[ProviderBatch], listed_at: datetime) -> None:
        """Nothing that was seen needs a write of its own unless it is news."""
        by_id = {batch.id: batch for batch in batches}
        shards = await self._listed.open_among(reading.account_id, by_id)
        reading.found += len(shards)
        news, calm = self._sort(reading, shards, by_id, listed_at)
        for interval, ids in calm.items():
            delay = interval * reading.spread
            await self._listed.unchanged(
                reading.account_id, ids, listed_at=listed_at, interval=interval, delay=delay
            )
        await self._record(reading, news, listed_at)
        quiet = sum(len(ids) for ids in calm.values())
        self._reports.listed(quiet, [late for shard in shards for late in _lateness(shard, listed_at)])

    def _sort(
        self,
        reading: Reading,
        shards: Sequence[Document],
        by_id: Mapping[str, ProviderBatch],
        listed_at: datetime,
    ) -> tuple[list[tuple[Document, Look]], dict[float, list[str]]]:
        """News, and by their next interval the ids of those of whom there is none."""
        room = {small: self._collector.room_for(reading.account_id, small=small) for small in (True, False)}
        news: list[tuple[Document, Look]] = []
        calm: dict[float, list[str]] = defaultdict(list)
        for shard in shards:
            if not is_free(shard, listed_at):
                continue
            look = understand(shard, by_id[shard["provider_batch_id"]])
            collect = look.status.is_terminal and room[is_small(shard)] > 0
            room[is_small(shard)] -= collect
            if look.changed or collect or shard.get("provider_lost_at") is not None:
                news.append((shard, look))
                continue
            interval = self._pace.next_rung(shard["poll"].get("interval"), reading.floor)
            if shard["poll"]["next_at"] <= listed_at + timedelta(seconds=interval / 2):
                calm[interval].append(shard["provider_batch_id"])
        return news, calm

    async def _record(
        self, reading: Reading, news: Sequence[tuple[Document, Look]], listed_at: datetime
    ) -> None:
        recorded: list[tuple[Document, Look]] = []
        for shard, look in news:
            after = await self._shards.record_look(
                shard,
                status=look.status.value,
                counts=look.counts,
                files=look.files,
                interval=self._pace.after(shard, look, reading.floor),
                answered=not look.shows,
                began_at=listed_at,
            )
            if after is not None:
                recorded.append((after, look))
                self._reports.looked(outcome_of(look).value, None)
        for batch_id in dict.fromkeys(shard["batch_id"] for shard, look in recorded if look.shows):
            await self._changed(batch_id)
        for shard, look in recorded:
            if look.shows:
                await self._shards.answer_look(shard)
            if look.status.is_terminal:
                self._collector.collect(shard, look, reading.provider)


def stretches_of(marks: Sequence[Document], oldest: datetime) -> list[Stretch]:
    """A listing in pieces that begin and end at `marks`, as far as it is not older than `oldest`."""
    ids = [mark["id"] for mark in marks if mark["at"] >= oldest]
    return list(zip([None, *ids], [*ids, None], strict=True))


def is_free(shard: Document, listed_at: datetime) -> bool:
    """Whether a listing may speak for the shard: nobody looks or looked since, nor is to by itself."""
    poll = shard["poll"]
    claimed, started = poll.get("claimed_until"), poll.get("started_at")
    return (
        poll["next_at"] > URGENT
        and (claimed is None or claimed <= listed_at)
        and (started is None or started <= listed_at)
        and not wants_cancel(shard)
    )


def _lateness(shard: Document, listed_at: datetime) -> Iterator[float]:
    """Seconds since the shard was due, of one that was."""
    next_at = shard["poll"]["next_at"]
    if URGENT < next_at <= listed_at:
        yield (listed_at - next_at).total_seconds()
