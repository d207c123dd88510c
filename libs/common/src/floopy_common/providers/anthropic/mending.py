"""Makes a provider's JSON readable where its text is not quite Unicode."""

import re

_ESCAPES = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(?P<lone>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)


def mended(raw: bytes) -> bytes:
    """Broken UTF-8 and halves of surrogate pairs become U+FFFD: an answer that was paid for is not lost."""
    try:
        raw.decode()
    except UnicodeDecodeError:
        raw = raw.decode("utf-8", "replace").encode()
    return _ESCAPES.sub(lambda found: rb"\ufffd" if found["lone"] else found[0], raw)
