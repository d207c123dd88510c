"""Which shard answers which line: by order of precedence, recorded so that a repeat chooses the same."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from floopy_common.domain.errors import FloopyError
from floopy_common.domain.index import FLAG_OK, InputEntry, ResultEntry
from floopy_common.domain.shard import ShardState
from floopy_reconciler.ports import Document

Answers = Mapping[int, ResultEntry]
"""A source's entries by line number."""


class Uncovered(FloopyError):  # noqa: N818 - says what happened
    """A line that no settled shard covers: its segment was not ready to be written."""


class Choice(msgspec.Struct, frozen=True, gc=False):
    """`source` speaks for the line, by its entry or, where it has none, by the way it ended."""

    source: int
    entry: ResultEntry | None


def sources_of(shards: Iterable[Document], first_line: int, last_line: int) -> list[Document]:
    """What a segment draws on, in order of precedence, with all that rendering needs of each shard.

    The deepest retry comes first. `format` names how the archive is written: by the provider, or as it says.
    Raises Uncovered for a shard that has not ended.
    """
    ordered = sorted(shards, key=lambda shard: (-shard["depth"], shard["no"], shard["_id"]))
    return [_source(shard, first_line, last_line) for shard in ordered]


def _source(shard: Document, first_line: int, last_line: int) -> Document:
    if not ShardState(shard["state"]).is_terminal:
        raise Uncovered(f"shard {shard['_id']} is {shard['state']}")
    archive = shard.get("archive")
    refused = shard.get("refused")
    return {
        "shard": shard["_id"],
        "provider_batch_id": shard.get("provider_batch_id"),
        "provider": shard["provider"],
        "group": shard["group"],
        "ranges": _clipped(shard["ranges"], first_line, last_line),
        "ended": shard["ended"],
        "ended_at": shard.get("ended_at"),
        "submitted_at": shard.get("submitted_at"),
        "archive": archive and {name: archive.get(name) for name in ("index_blob", "output", "error")},
        "format": (archive or {}).get("format") or shard["provider"],
        "refused": refused and _refusal(refused, first_line, last_line),
    }


def _clipped(ranges: Iterable[Sequence[int]], first_line: int, last_line: int) -> list[list[int]]:
    return [
        [max(first, first_line), min(last, last_line)]
        for first, last in ranges
        if first <= last_line and last >= first_line
    ]


def _refusal(refused: Document, first_line: int, last_line: int) -> Document:
    """The shard's message, and those about lines of this segment."""
    errors = refused.get("errors") or []
    return {
        "code": refused.get("code"),
        "message": refused.get("message"),
        "errors": [error for error in errors if first_line <= (error.get("line") or 0) <= last_line],
    }


def choose(
    lines: Sequence[InputEntry],
    sources: Sequence[Document],
    answers: Sequence[Answers],
    never_ran: Callable[[int, ResultEntry], bool],
) -> list[Choice]:
    """One choice per line. `never_ran(source, entry)` reads an entry; it is asked only where two compete.

    A success stands whatever else was said; then the deepest retry that did run; then whoever has an entry.
    Raises Uncovered for a line without a source.
    """
    if len(sources) == 1 and _covers_all(sources[0], lines):
        entry_of = answers[0].get
        return [Choice(0, entry_of(line.line_no)) for line in lines]
    chains = _chains(lines, sources)
    return [_pick(line.line_no, chain, answers, never_ran) for line, chain in zip(lines, chains, strict=True)]


def _covers_all(source: Document, lines: Sequence[InputEntry]) -> bool:
    """Whether the source covers these lines in the simplest of ways, which is the most frequent one."""
    if not lines or len(source["ranges"]) != 1:
        return False
    [[first, last]], group = source["ranges"], source["group"]
    return first <= lines[0].line_no and lines[-1].line_no <= last and all(x.group == group for x in lines)


def _chains(lines: Sequence[InputEntry], sources: Sequence[Document]) -> list[list[int]]:
    """For each line the sources that cover it, in order of precedence."""
    numbers = [line.line_no for line in lines]
    chains: list[list[int]] = [[] for _ in lines]
    for position, source in enumerate(sources):
        group = source["group"]
        for first, last in source["ranges"]:
            for at in range(bisect_left(numbers, first), bisect_right(numbers, last)):
                if lines[at].group == group:
                    chains[at].append(position)
    return chains


def _pick(
    line_no: int,
    chain: Sequence[int],
    answers: Sequence[Answers],
    never_ran: Callable[[int, ResultEntry], bool],
) -> Choice:
    if len(chain) == 1:
        return Choice(chain[0], answers[chain[0]].get(line_no))
    if not chain:
        raise Uncovered(f"no shard covers line {line_no}")
    found = [Choice(source, entry) for source in chain if (entry := answers[source].get(line_no))]
    if not found:
        return Choice(chain[0], None)
    for choice in found:
        if choice.entry is not None and choice.entry.flags & FLAG_OK:
            return choice
    if len(found) == 1:
        return found[0]
    ran = (choice for choice in found if choice.entry and not never_ran(choice.source, choice.entry))
    return next(ran, found[0])
