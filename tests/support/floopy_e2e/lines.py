"""Input files for end-to-end tests, every line with a text of its own."""

import json
from collections.abc import Callable, Iterable
from typing import Any

from floopy_e2e.providers import OPENAI, Provider


def chat_line(custom_id: str, text: str, **body: Any) -> bytes:
    request = {"model": OPENAI.model, "messages": [{"role": "user", "content": text}], **body}
    line = {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": request}
    return json.dumps(line, ensure_ascii=False).encode() + b"\n"


def chat_file(
    count: int,
    directive: Callable[[int], str | None] = lambda _: None,
    tag: str = "",
    provider: Provider = OPENAI,
) -> bytes:
    """`count` chat lines; `directive(n)` scripts the simulator's answer to line n (from 1)."""
    return b"".join(_lines(count, directive, tag, provider))


def _lines(
    count: int, directive: Callable[[int], str | None], tag: str, provider: Provider
) -> Iterable[bytes]:
    for number in range(1, count + 1):
        scripted = directive(number)
        text = f"Say something about number {number} {tag}".strip()
        if scripted:  # in the text, since metadata does not travel to every provider
            text += f" [sim: {scripted}]"
        yield chat_line(f"line {number} é/{tag}", text, model=provider.model)


def custom_ids(content: bytes) -> list[str]:
    """The custom_id of every line, in the file's order."""
    return [json.loads(line)["custom_id"] for line in content.split(b"\n") if line]
