"""Input files of a given number of lines and bytes a line."""

import json
import random
from functools import lru_cache
from itertools import product
from pathlib import Path

_WORDS = ["batch", "line", "segment", "shard", "ledger", "receipt", "gateway", "request", "answer", "token"]


MODEL = "gpt-4o-mini"


def chat_line(number: int, size: int, tag: str, model: str = MODEL) -> bytes:
    """One chat request of exactly `size` bytes with its newline, if its frame is no larger."""
    frame = {
        "custom_id": f"{tag}-{number}",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": model, "messages": [{"role": "user", "content": ""}]},
    }
    empty = json.dumps(frame, separators=(",", ":")).encode() + b"\n"
    text = f"{tag} {number} " + " ".join(_WORDS[(number * 7 + i) % len(_WORDS)] for i in range(size // 4))
    return empty.replace(b'"content":""', b'"content":"%b"' % text[: max(0, size - len(empty))].encode())


def write_chat_file(path: Path, lines: int, size: int, tag: str = "bench", model: str = MODEL) -> int:
    """Write the file; its size in bytes."""
    with path.open("wb") as out:
        for number in range(1, lines + 1):
            out.write(chat_line(number, size, tag, model))
        return out.tell()


_TEXTS = 200
_SYLLABLES = ["ba", "de", "fi", "go", "hu", "ka", "le", "mi", "no", "pu", "ra", "se", "ti", "vo", "wa", "ze"]


@lru_cache(maxsize=_TEXTS)
def _prose(seed: int) -> str:
    """A thousand words as often as prose has them (Zipf), the frequent ones short.

    What looks at text has the work that prose makes: a few words in turn would be the answer of a model
    that goes round in circles.
    """
    words = ["".join(parts) for length in (1, 2, 3) for parts in product(_SYLLABLES, repeat=length)]
    weights = [1 / (rank + 0.5) for rank in range(1, len(words) + 1)]
    return " ".join(random.Random(seed).choices(words, weights, k=1_000))


def answer(number: int, size: int) -> bytes:
    """The body of a chat completion of about `size` bytes."""
    words = _prose(number % _TEXTS)[: max(0, size)]
    body = {
        "id": f"chatcmpl-{number:024d}",
        "object": "chat.completion",
        "created": 1_764_000_000,
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 250,
            "completion_tokens": 300,
            "total_tokens": 550,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
    }
    empty = json.dumps(body, separators=(",", ":")).encode()
    return empty.replace(b'"content":""', b'"content":"%b"' % words[: max(0, size - len(empty))].encode())
