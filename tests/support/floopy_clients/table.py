"""docs/clients.md: what every client ran and what came back, written from the reports."""

from typing import Any

HEAD = """# Clients

A program written against OpenAI must not be able to tell the difference. `tests/clients` sends the official
SDKs on one journey through one running system (`floopy up`, the providers played by the simulator). Each
reports what came back for every operation: the fields, their types and the values that are the same every
time; for errors the SDK's own exception class, status, `code`, `param` and `type`. Every report must equal
that of the locked SDK, which itself is held against the fields of the SDK's own models.

This page is written from the reports (`make clients`), and `make test` fails when it differs from them. A
column is a client; `=` means the operation ran and came back as with the first one, `-` that this SDK has
no such helper.

"""

TAIL = """
Versions are pinned: the locked SDK in `requirements/dev.txt`, the others in
`tests/clients/*/requirements.txt` and `tests/clients/node/package-lock.json`. To take a newer one, change
the pin and run `make clients`. The newest Node SDK asks for Node 22 and is run on whatever Node is here;
the major before it asks for no version of Node.

Not on the journey: files of more than one part of 64 MiB, and batches that expire, which takes a day; the
suites of the services hold those.
"""


def page(reports: list[dict[str, Any]]) -> str:
    """The whole page; the first report is the measure of the others."""
    first, *others = reports
    clients = [report["client"] for report in reports]
    rows = [
        "| Operation | Came back | " + " | ".join(clients) + " |",
        "|---|---|" + "---|" * len(clients),
    ]
    for name, result in first["operations"].items():
        cells = ["ran", *(_cell(report["operations"], name, result) for report in others)]
        rows.append(f"| {name} | {said(result)} | " + " | ".join(cells) + " |")
    return HEAD + "\n".join(rows) + "\n" + TAIL


def _cell(operations: dict[str, Any], name: str, expected: Any) -> str:
    if name not in operations:
        return "-"
    return "=" if operations[name] == expected else "differs"


def said(result: Any) -> str:
    """One line about a result."""
    if isinstance(result, dict) and "class" in result:
        return f"`{result['class']}`, code `{result['code']}`, param `{result['param']}`"
    if isinstance(result, dict) and "object" in result:
        return _object(result)
    if isinstance(result, dict):
        plain = {name: value for name, value in result.items() if name != "keys"}
        return ", ".join(f"{name} {_word(value)}" for name, value in plain.items())
    if isinstance(result, list):
        return f"{result[-1]} lines" if isinstance(result[-1], int) else "a list"
    return _word(result)


def _object(result: dict[str, Any]) -> str:
    status = f", `{result['status']}`" if "status" in result else ""
    return f"`{result['object']}`{status}, {len(result)} fields"


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
