"""The one look an upload gets: whether its first line that is not blank is a JSON object."""

import msgspec

_BOM = b"\xef\xbb\xbf"
_BLANK = b" \t\r\n\v\f"
_READ_WHOLE = 1024 * 1024
"""A longer first line is judged by its first character, so that memory stays flat; the planner reads it."""


class FirstLine:
    """Takes a file's bytes as they pass and keeps no more than the line in question."""

    def __init__(self) -> None:
        self._seen = bytearray()
        self._searched = 0
        self._at_start = True
        self._verdict: bool | None = None

    def feed(self, data: bytes) -> None:
        if self._verdict is not None:
            return
        self._seen += data
        if self._at_start:
            if len(self._seen) < len(_BOM) and _BOM.startswith(self._seen):
                return
            del self._seen[: len(_BOM) if self._seen.startswith(_BOM) else 0]
            self._at_start = False
        self._drop_blanks()
        end = self._seen.find(b"\n", self._searched)
        self._searched = len(self._seen)
        if end >= 0:
            self._settle(_is_object(bytes(self._seen[:end])))
        elif len(self._seen) > _READ_WHOLE:
            self._settle(self._seen.startswith(b"{"))

    @property
    def is_settled(self) -> bool:
        """Whether more bytes would change nothing."""
        return self._verdict is not None

    def is_object(self) -> bool:
        """The verdict, once the file is at its end."""
        if self._verdict is None:
            self._drop_blanks()
            self._settle(_is_object(bytes(self._seen)))
        return bool(self._verdict)

    def _drop_blanks(self) -> None:
        if self._seen and self._seen[0] in _BLANK:
            del self._seen[: len(self._seen) - len(self._seen.lstrip(_BLANK))]
            self._searched = 0

    def _settle(self, verdict: bool) -> None:
        self._verdict = verdict
        self._seen.clear()


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(msgspec.json.decode(line), dict)
    except (ValueError, RecursionError):
        return False
