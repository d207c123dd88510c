"""Writes some 200 real requests: the standard library's own docstrings, to summarise and to classify.

python examples/make_requests.py requests.jsonl [--model gpt-4o-mini]
"""

import argparse
import importlib
import inspect
import json
from collections.abc import Iterator
from pathlib import Path

MODULES = (
    "argparse asyncio base64 bisect collections concurrent.futures configparser contextlib copy csv "
    "dataclasses datetime decimal difflib email.message enum fractions functools glob gzip hashlib heapq "
    "html http.client inspect io ipaddress itertools json logging math mimetypes pathlib pickle queue "
    "random re sched secrets shelve shlex shutil smtplib socket sqlite3 statistics string subprocess "
    "tarfile tempfile textwrap threading time timeit tokenize traceback types unittest urllib.parse uuid "
    "warnings weakref xml.dom.minidom zipfile"
).split()

WANTED = 200

KINDS = ["text", "numbers", "files", "network", "concurrency", "data structures", "introspection", "other"]

CLASSIFICATION = {
    "type": "json_schema",
    "json_schema": {
        "name": "classification",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"kind": {"type": "string", "enum": KINDS}, "confident": {"type": "boolean"}},
            "required": ["kind", "confident"],
            "additionalProperties": False,
        },
    },
}


def docstrings() -> Iterator[tuple[str, str]]:
    """(qualified name, docstring) of the modules and their public classes and functions."""
    for name in MODULES:
        module = importlib.import_module(name)
        if module.__doc__:
            yield name, inspect.cleandoc(module.__doc__)
        for member in getattr(module, "__all__", ()):
            text = getattr(getattr(module, member), "__doc__", None)
            if isinstance(text, str) and len(text) > 120:
                yield f"{name}.{member}", inspect.cleandoc(text)


def request(number: int, name: str, text: str, model: str) -> dict[str, object]:
    """Every second line asks for a summary, the others for a classification in JSON."""
    body: dict[str, object] = {"model": model}
    if number % 2:
        task = "Summarise this Python documentation in one sentence."
        body["max_completion_tokens"] = 200
    else:
        task = f"Classify this Python documentation as one of: {', '.join(KINDS)}."
        body["response_format"] = CLASSIFICATION
    body["messages"] = [{"role": "system", "content": task}, {"role": "user", "content": text[:4000]}]
    custom_id = f"{'summary' if number % 2 else 'kind'}/{name}"
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}


def write_requests(path: Path, model: str) -> int:
    """Write the file; how many lines it has."""
    chosen = [pair for _, pair in zip(range(WANTED), docstrings(), strict=False)]
    with path.open("w", encoding="utf-8") as out:
        for number, (name, text) in enumerate(chosen, start=1):
            out.write(json.dumps(request(number, name, text, model), ensure_ascii=False) + "\n")
    return len(chosen)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--model", default="gpt-4o-mini")
    arguments = parser.parse_args()
    print(f"{write_requests(arguments.path, arguments.model)} requests in {arguments.path}")
