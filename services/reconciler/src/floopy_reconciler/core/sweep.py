"""The sweeper's round: what nobody refers to goes, a bounded piece at a time."""

import logging
from dataclasses import dataclass

from floopy_reconciler.ports import SweepReports, Sweeps

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SweepTimes:
    """Seconds: `age` of what may be removed, `grace` for readers of what was condemned."""

    age: float
    grace: float


class Sweeper:
    """Goes through pins, blobs and chunks again and again; any number of sweepers may run."""

    def __init__(self, *, sweeps: Sweeps, times: SweepTimes, reports: SweepReports) -> None:
        self._sweeps = sweeps
        self._times = times
        self._reports = reports
        self._pins_after = ""
        self._chunks_after = ""

    async def step(self) -> bool:
        """One piece of each kind; True while this round has more."""
        age = self._times.age
        leaked, self._pins_after = await self._sweeps.remove_leaked_pins(age, self._pins_after)
        condemned = await self._sweeps.condemn_unreferenced(age)
        self._chunks_after = await self._sweeps.condemn_orphan_chunks(age, self._chunks_after)
        deleted = await self._sweeps.delete_condemned(self._times.grace)
        self._reports.leaked(leaked)
        self._reports.swept(deleted)
        if leaked or deleted:
            _log.info("swept", extra={"event": "swept", "blobs": deleted, "pins": leaked})
        return bool(condemned or deleted or self._pins_after or self._chunks_after)
