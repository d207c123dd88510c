"""How late the event loops of services ran, from the histogram each of them keeps."""

import re
from collections.abc import Mapping

import aiohttp

Buckets = dict[float, float]
_BUCKET = re.compile(r'^floopy_loop_lag_seconds_bucket\{le="([^"]+)"\} (\S+)$', re.MULTILINE)


async def lags(ports: Mapping[str, int]) -> dict[str, Buckets]:
    """Of each process with this metrics port: how often its loop was late by at most so many seconds."""
    found = {}
    async with aiohttp.ClientSession() as session:
        for name, port in ports.items():
            async with session.get(f"http://127.0.0.1:{port}/metrics") as answer:
                text = await answer.text()
            found[name] = {float(bound): float(count) for bound, count in _BUCKET.findall(text)}
    return found


def percentiles(
    before: Mapping[str, Buckets], after: Mapping[str, Buckets], share: float = 0.99
) -> dict[str, float]:
    """Of each process, the bound below which `share` of what came between the two lies."""
    return {name: _bound(before.get(name, {}), after[name], share) for name in after}


def _bound(before: Buckets, after: Buckets, share: float) -> float:
    grown = {bound: count - before.get(bound, 0) for bound, count in after.items()}
    wanted = share * max(grown.values(), default=0)
    return min((bound for bound, count in grown.items() if count >= wanted), default=0.0)
