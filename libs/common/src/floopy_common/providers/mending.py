"""Makes a provider's JSON readable where its text is not quite Unicode."""

import re

_ESCAPES = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(?P<lone>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)


def mended(raw: bytes) -> bytes:
    """Broken UTF-8 and halves of surrogate pairs become U+FFFD: models write them, no decoder takes them."""
    return _ESCAPES.sub(lambda found: rb"\ufffd" if found["lone"] else found[0], valid(raw))


def valid(raw: bytes) -> bytes:
    """Valid UTF-8: a broken character costs that character, not an answer that was paid for."""
    try:
        raw.decode()
    except UnicodeDecodeError:
        return raw.decode("utf-8", "replace").encode()
    return raw
