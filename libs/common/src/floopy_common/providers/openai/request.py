"""From an input line to the line OpenAI gets: the custom_id is ours, every other byte is the user's."""

TRANSLATOR_VERSION = 1
"""Pinned in a batch's plan; a change of `upstream_line` that changes lengths or bytes raises it."""

NONCE_LENGTH = 10
_FRAME = len(b'{"custom_id":"-","method":"POST","url":"","body":}\n') + NONCE_LENGTH


def upstream_line(nonce: str, line_no: int, url: str, raw_body: bytes | memoryview) -> bytes:
    """One line of the uploaded input, newline included; `url` is one of the batch endpoints."""
    return b'{"custom_id":"%b-%d","method":"POST","url":"%b","body":%b}\n' % (
        nonce.encode(),
        line_no,
        url.encode(),
        bytes(raw_body),
    )


def upstream_length(line_no: int, url: str, body_length: int) -> int:
    """`len(upstream_line(...))` without making it; the nonce has its fixed length."""
    return _FRAME + len(str(line_no)) + len(url) + body_length
