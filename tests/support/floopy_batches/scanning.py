"""Lines of a batch's input, whole or with something wrong, and scans of them."""

import json
from dataclasses import replace
from typing import Any

from floopy_submitter.core.cutting import SegmentLimits, ShardLimits
from floopy_submitter.core.faults import Fault
from floopy_submitter.core.scan import InputScan

CHAT = "/v1/chat/completions"
EMBEDDINGS = "/v1/embeddings"
MESSAGES = [{"role": "user", "content": "Hello"}]
MIB = 1024 * 1024


def request(custom_id: str = "a", **fields: Any) -> dict[str, Any]:
    body = {"model": "gpt-4o-mini", "messages": MESSAGES}
    return {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": body, **fields}


def encoded(line: Any) -> bytes:
    return line if isinstance(line, bytes) else json.dumps(line).encode()


def scanned(*lines: Any, endpoint: str = CHAT, piece: int = 64 * 1024) -> InputScan:
    return scan_bytes(b"".join(encoded(line) + b"\n" for line in lines), endpoint=endpoint, piece=piece)


def scan_bytes(content: bytes, endpoint: str = CHAT, piece: int = 64 * 1024) -> InputScan:
    scan, _ = scan_rows(content, endpoint, piece)
    return scan


def scan_rows(content: bytes, endpoint: str = CHAT, piece: int = 64 * 1024) -> tuple[InputScan, bytes]:
    scan = InputScan(endpoint, SegmentLimits(5_000, 16 * MIB), ShardLimits(50_000, 200_000_000))
    rows = [scan.feed(content[start : start + piece]) for start in range(0, len(content), piece)]
    return scan, b"".join([*rows, scan.finish()])


def the_fault(*lines: Any, endpoint: str = CHAT) -> Fault:
    """The only fault of the lines; the same behind a good line, where the short path is open."""
    [fault] = scanned(*lines, endpoint=endpoint).faults
    good = request("good", url=endpoint, body={**request()["body"], "input": "Hello"})
    [behind] = scanned(good, *lines, endpoint=endpoint).faults
    assert behind == replace(fault, line=fault.line + 1)
    return fault


def all_taken(*lines: Any) -> bool:
    """No fault in the lines, first in a file or not."""
    scans = [scanned(*lines), scanned(request("good"), *lines)]
    return all(not scan.faults for scan in scans) and scans[0].lines == len(lines)


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in request().items() if key != name}


def with_body(**fields: Any) -> dict[str, Any]:
    body = {"model": "gpt-4o-mini", "messages": MESSAGES, **fields}
    return request(body={key: value for key, value in body.items() if value is not ...})


def raw_body(body: bytes) -> bytes:
    head = b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":'
    return head + b'{"model":"gpt-4o-mini","messages":["Hi"],"x":' + body + b"}}"
