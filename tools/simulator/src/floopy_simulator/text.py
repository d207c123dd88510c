"""Plausible prose made from a request, the same for the same bytes."""

OPENINGS = (
    "In short: ",
    "Here is the gist: ",
    "To sum it up, ",
    "The main point is this: ",
    "Briefly, ",
    "The text says: ",
    "As asked, the essence: ",
    "My reading: ",
)
CLOSINGS = (
    " That covers the request.",
    " Nothing else of weight is said.",
    " The rest is detail.",
    " This is all that matters here.",
)
SHORTEST = 80
"""Characters of the prompt that a reply repeats at least."""
CHARACTERS_PER_TOKEN = 4
"""The usual rule of thumb; usage has to be derived from lengths alone."""


def count_tokens(characters: int) -> int:
    return (characters + CHARACTERS_PER_TOKEN - 1) // CHARACTERS_PER_TOKEN


def write_reply(prompt: str, digest: bytes, words: int | None = None) -> str:
    """A reply in the prompt's own words; `digest` picks its length and wording."""
    if words is None:
        # By characters, not words: this runs for every line of every batch.
        picked = prompt[: SHORTEST + 2 * digest[0]]
        if len(picked) < len(prompt):
            picked = picked.rpartition(" ")[0] or picked
    else:
        picked = " ".join(prompt.split()[:words])
    return f"{OPENINGS[digest[1] % 8]}{picked or '(nothing)'}.{CLOSINGS[digest[2] % 4]}"


def write_repetition(prompt: str, digest: bytes) -> str:
    phrase = " ".join(prompt[:200].split()[:5]) or OPENINGS[digest[1] % 8].strip()
    return " ".join([phrase] * 40)


def write_filler(size: int, digest: bytes) -> str:
    """Exactly `size` characters."""
    block = f"{digest.hex()} fills the page. "
    return (block * (size // len(block) + 1))[:size]
