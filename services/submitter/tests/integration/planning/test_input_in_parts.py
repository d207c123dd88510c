"""An input uploaded in parts, cut in the middle of lines, is planned as if it were one piece."""

import random
from itertools import pairwise
from typing import Any

from floopy_common.domain.index import unpack_input


async def in_parts(world: Any, content: bytes, parts: int) -> str:
    """A batch whose input is `content` in that many blobs, cut anywhere; its id."""
    cuts = sorted(random.Random(7).sample(range(1, len(content)), parts - 1))
    ranges = []
    for start, end in pairwise([0, *cuts, len(content)]):
        blob = await world.blobs.put("input", content[start:end])
        ranges.append({"blob": blob.id, "offset": 0, "length": blob.length})
    snapshot = {"ranges": ranges, "bytes": len(content), "filename": "in.jsonl", "purpose": "batch"}
    return str(await world.create(None, input=snapshot))


async def planned(world: Any, batch_id: str) -> tuple[Any, ...]:
    """What does not depend on the batch's name: index, segments, shards."""
    await world.planner(segment=(10, 10_000), shard=(20, 10_000)).step()
    batch = await world.batch(batch_id)
    assert batch["status"] == "in_progress", batch["errors"]
    index = list(unpack_input(await world.blobs.read_bytes(batch["plan"]["index_blob"])))
    segments = [(s["first_line"], s["last_line"], s["bytes"]) for s in await world.segments(batch_id)]
    shards = [(s["ranges"], s["lines"], s["bytes"]) for s in await world.shards(batch_id)]
    return index, segments, shards


async def test_where_the_parts_were_cut_makes_no_difference(world: Any, make_lines: Any) -> None:
    content = make_lines(200)

    whole = await planned(world, await in_parts(world, content, 1))
    cut = await planned(world, await in_parts(world, content, 40))

    assert cut == whole
    assert len(whole[0]) == 200
    assert len(whole[2]) > 1
