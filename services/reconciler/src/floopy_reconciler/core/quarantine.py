"""Leaves alone for a while what has cost several workers their lives, so that everything else goes on."""

from hashlib import blake2b

from floopy_reconciler.ports import Document

_LIVES = 3
"""Deaths that can be somebody else's doing: of a neighbour in the same process, of a restart."""
_LONGEST = 3_600.0


def pause_for(claimed: Document, shortest: float) -> float | None:
    """Seconds to give a claimed document back for; None when it may be worked on now.

    Each death doubles the pause. After one the document has its next try, so it is never given up. What died
    beside it is spread out, so that the innocent do not meet the guilty again.
    """
    lease = claimed["lease"]
    deaths: int = lease.get("deaths") or 0
    if not lease.get("taken_over") or deaths < _LIVES:
        return None
    digest = blake2b(f"{claimed['_id']} {deaths}".encode(), digest_size=4).digest()
    spread = 0.5 + int.from_bytes(digest, "big") / 2**32
    return min(shortest * 2.0 ** min(deaths - _LIVES, 20), _LONGEST) * spread
