"""Leases: who works on a document, decided by the database's clock and fenced by a token."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from floopy_common.chassis.mongo import Collection, DatabaseError, Document
from floopy_common.chassis.pipelines import assign, expire_in
from floopy_common.domain.errors import LeaseLost
from floopy_common.domain.ids import new_lease_token

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Lease:
    """A claim on one document; `deadline` is this process's monotonic bound, before the server's."""

    token: str
    owner: str
    deadline: float


def new_lease(owner: str, ttl: float) -> Lease:
    """Make this BEFORE the claiming write, so that the local deadline errs on the early side."""
    return Lease(new_lease_token(), owner, time.monotonic() + ttl)


def claim_stage(lease: Lease, ttl: float) -> Document:
    """The pipeline stage that takes the lease and counts the claim."""
    return assign(
        {"lease.token": lease.token, "lease.owner": lease.owner},
        raw={
            "lease.expires_at": expire_in(ttl),
            "lease.attempt": {"$add": [{"$ifNull": ["$lease.attempt", 0]}, 1]},
        },
    )


def death_stage() -> Document:
    """Before `claim_stage`: `lease.taken_over` says whether the last holder never let go.

    `lease.deaths` counts such holders since `no_deaths` was written.
    """
    died: Document = {"$ne": [{"$ifNull": ["$lease.token", None]}, None]}
    before: Document = {"$ifNull": ["$lease.deaths", 0]}
    return assign(raw={"lease.taken_over": died, "lease.deaths": {"$add": [before, {"$cond": [died, 1, 0]}]}})


def no_deaths() -> Document:
    """The stage of a write that shows that the document does not kill its holder."""
    return assign({"lease.deaths": 0})


def release_stage() -> Document:
    return assign({"lease.token": None, "lease.owner": None}, now=["lease.expires_at"])


def held(lease: Lease) -> Document:
    """The filter every write of a lease holder carries."""
    return {"lease.token": lease.token}


class LiveLease:
    """A lease that is being renewed."""

    def __init__(self, collection: Collection, document_id: str, lease: Lease) -> None:
        self._collection = collection
        self._id = document_id
        self._lease = lease
        self._floor = lease.deadline
        self.deadline = lease.deadline
        self.lost = False
        self.is_let_go = False

    @property
    def token(self) -> str:
        return self._lease.token

    def held(self) -> Document:
        return held(self._lease)

    def seconds_left(self) -> float:
        """Seconds in which nobody else can own the document, by this process's monotonic clock."""
        return self.deadline - time.monotonic()

    async def extend(self, seconds: float) -> None:
        """Hold the document for at least `seconds` from now; LeaseLost when it is no longer ours."""
        async with self.extending(seconds) as stage:
            if await self._collection.update_one({"_id": self._id, **self.held()}, [stage]) == 0:
                raise LeaseLost(self._id)

    @asynccontextmanager
    async def extending(self, seconds: float) -> AsyncIterator[Document]:
        """Likewise, by a write of the body that has the stage in it and raises when it matched nothing."""
        started = time.monotonic()
        longest = max(started + seconds, self._floor)
        yield assign(raw={"lease.expires_at": expire_in(longest - started)})
        self.deadline = self._floor = longest

    async def renew(self, ttl: float) -> None:
        """Like `extend`, but never shortens what a longer extension promised."""
        if time.monotonic() + ttl > self._floor:
            await self.extend(ttl)

    @contextmanager
    def letting_go(self) -> Iterator[None]:
        """Around the write that gives the document up, which alone says whether it was still ours."""
        self.is_let_go = True
        try:
            yield
        except BaseException:
            self.is_let_go = False
            raise


@asynccontextmanager
async def renewing(
    collection: Collection, document_id: str, lease: Lease, ttl: float
) -> AsyncIterator[LiveLease]:
    """Renew the lease every third of its life while the body runs; LeaseLost cancels the body."""
    live = LiveLease(collection, document_id, lease)
    body = asyncio.current_task()
    if body is None:
        raise RuntimeError("a lease is held by a task")
    heart = asyncio.create_task(_beat(live, ttl, body))
    try:
        yield live
    except asyncio.CancelledError:
        if not live.lost or body.uncancel() > 0:  # else somebody else stops the body as well
            raise
        _log.warning("lease lost", extra={"event": "lease_lost", "document": document_id})
        raise LeaseLost(document_id) from None
    finally:
        heart.cancel()
        await asyncio.gather(heart, return_exceptions=True)


async def _beat(live: LiveLease, ttl: float, body: asyncio.Task[object]) -> None:
    while not live.lost:
        await asyncio.sleep(ttl / 3)
        lost = False if live.is_let_go else await _is_lost(live, ttl)
        # a beat that met the releasing write on its way says nothing
        live.lost = lost and not live.is_let_go
    body.cancel()


async def _is_lost(live: LiveLease, ttl: float) -> bool:
    try:
        await live.renew(ttl)
    except LeaseLost:
        return True
    except DatabaseError as error:
        # the next beat tries again; past the deadline somebody else may own the document
        _log.warning("lease not renewed", extra={"event": "lease_renewal_failed", "error": str(error)})
        return live.seconds_left() <= 0
    return False
