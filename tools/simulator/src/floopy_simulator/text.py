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
CHARACTERS_PER_TOKEN = 4
"""The usual rule of thumb; usage has to be derived from lengths alone."""


def count_tokens(characters: int) -> int:
    return (characters + CHARACTERS_PER_TOKEN - 1) // CHARACTERS_PER_TOKEN


def write_reply(prompt: str, digest: bytes, words: int | None = None) -> str:
    """A reply in the prompt's own words; `digest` picks its length and wording."""
    if words is None:
        words = 16 + digest[0] % 48
        prompt = prompt[: 16 * words]
    picked = prompt.split()[:words] or ["(nothing)"]
    return f"{OPENINGS[digest[1] % 8]}{' '.join(picked)}.{CLOSINGS[digest[2] % 4]}"


def write_repetition(prompt: str, digest: bytes) -> str:
    phrase = " ".join(prompt[:200].split()[:5]) or OPENINGS[digest[1] % 8].strip()
    return " ".join([phrase] * 40)


def write_filler(size: int, digest: bytes) -> str:
    """Exactly `size` characters."""
    block = f"{digest.hex()} fills the page. "
    return (block * (size // len(block) + 1))[:size]
