"""Keeps secrets out of whatever is written down about the system's doings."""

import re

_SECRETS = re.compile(
    r"(?:(?<=[^A-Za-z0-9])|^)(?:sk-[A-Za-z0-9_\-]{6,}|flp_[A-Za-z0-9_]{16,})"
    r"|(?i:bearer\s+)[A-Za-z0-9._~+/\-]{8,}=*"
    r"|(?i:mongodb(?:\+srv)?://)[^/@\s:]+:[^@\s]+(?=@)"
)


_MARKS = ("sk-", "flp_", "bearer", "mongodb")
"""In lower case; text with none of them holds no secret, and saying so takes a thirtieth of the pattern."""


def redact(text: str) -> str:
    """`text` with every API key, bearer token and database password masked."""
    lowered = text.lower()
    return _SECRETS.sub("[redacted]", text) if any(mark in lowered for mark in _MARKS) else text
