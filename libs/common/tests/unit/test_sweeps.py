"""How long an attempt that was given up is looked for."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from floopy_common.stores.orphans import SweepStore


class Shards:
    def __init__(self) -> None:
        self.writes = 0

    async def update_one(self, *_: Any) -> int:
        self.writes += 1
        return 1

    def collection(self, _: str) -> "Shards":
        return self


@pytest.mark.parametrize(("created", "stopped"), [(1, 0), (26, 1), (None, 1)])
async def test_an_attempt_is_looked_for_from_its_create_on(created: int | None, stopped: int) -> None:
    now, shards = datetime.now(UTC), Shards()
    creating_at = None if created is None else now - timedelta(hours=created)
    attempt = {"intent_at": now - timedelta(hours=27), "creating_at": creating_at}
    shard = {"_id": "s", "sweep": {"began_at": now, "next_at": now}, "attempts": [attempt]}

    await SweepStore(shards).finish(shard, 25 * 3600)  # type: ignore[arg-type]

    assert shards.writes == stopped
