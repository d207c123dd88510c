"""Uploads no honest client sends: refused in OpenAI's words, and nothing of them stays."""

import asyncio
import gzip
import io
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from waiting import eventually

from floopy_api.handlers import multipart

LINE = b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{}}\n'
MAX_UPLOAD = 4_000_000
BOUNDARY = "xXx"


def part(name: str, value: bytes, *more: str, filename: str | None = None) -> bytes:
    named = f'Content-Disposition: form-data; name="{name}"'
    if filename is not None:
        named += f'; filename="{filename}"'
    head = "\r\n".join([f"--{BOUNDARY}", named, *more])
    return f"{head}\r\n\r\n".encode() + value + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()
PURPOSE = part("purpose", b"batch")
FILE = part("file", LINE, filename="in.jsonl")
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


async def post(http: aiohttp.ClientSession, body: Any, **headers: str) -> tuple[int, dict[str, Any]]:
    data = io.BytesIO(body) if isinstance(body, bytes) else body
    async with http.post("/v1/files", data=data, headers={**FORM, **headers}) as answer:
        decoded = await answer.json()
    return answer.status, decoded.get("error", decoded)


@pytest.mark.surface("1.1 part order is free")
@pytest.mark.parametrize("body", [PURPOSE + FILE + END, FILE + PURPOSE + END])
async def test_the_purpose_may_come_before_or_after_the_file(
    http: aiohttp.ClientSession, body: bytes
) -> None:
    status, file = await post(http, body)

    assert (status, file["purpose"], file["bytes"]) == (200, "batch", len(LINE))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no boundary at all",
        END,
        PURPOSE + END,
        FILE + END,
        FILE[:-20],
        PURPOSE + FILE,
        PURPOSE + FILE + f"--{BOUNDARY}".encode(),
        PURPOSE + FILE + b"--other--\r\n",
        PURPOSE + FILE + FILE + END,
        b"".join(part(f"field{n}", b"x") for n in range(9)) + FILE + END,
        b"".join(part(f"field{n}", b"x") for n in range(1_000)) + END,
        part("purpose", b"b" * 4_097) + FILE + END,
        part("purpose", b"\xff") + FILE + END,
        PURPOSE + part("file", LINE, *(f"X-{n}: y" for n in range(32)), filename="x") + END,
        PURPOSE + part("file", LINE, *(f"X-{n}: y" for n in range(5_000)), filename="x") + END,
        PURPOSE + part("file", LINE, "X-Long: " + "y" * 70_000, filename="x") + END,
        PURPOSE + part("file", LINE, "Content-Transfer-Encoding: base64", filename="x") + END,
        PURPOSE + part("file", b"--in\r\n\r\n--in--", "Content-Type: multipart/mixed; boundary=in") + END,
        f"--{BOUNDARY}\r\nX: nameless\r\n\r\nx\r\n".encode() + FILE + END,
        part("_charset_", b"x" * 100) + PURPOSE + FILE + END,
    ],
)
async def test_a_broken_form_is_a_bad_request_and_leaves_nothing(
    service: Any, http: aiohttp.ClientSession, body: bytes
) -> None:
    status, error = await post(http, body)

    assert (status, error["type"]) == (400, "invalid_request_error")
    await service.stores_nothing()


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("application/json", 415),
        ("text/plain", 415),
        ("multipart/form-data", 400),
        ("multipart/form-data; boundary=" + "b" * 71, 400),
    ],
)
async def test_what_is_no_form_is_refused(
    http: aiohttp.ClientSession, content_type: str, expected: int
) -> None:
    status, _ = await post(http, FILE + END, **{"Content-Type": content_type})

    assert status == expected


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, identity"])
async def test_a_compressed_body_is_refused_before_it_is_undone(
    service: Any, http: aiohttp.ClientSession, encoding: str
) -> None:
    bomb = gzip.compress(PURPOSE + part("file", b"0" * 10_000_000, filename="x") + END)

    status, error = await post(http, bomb, **{"Content-Encoding": encoding})

    assert (status, error["type"]) == (415, "invalid_request_error")
    await service.stores_nothing()


async def test_a_compressed_part_is_refused(http: aiohttp.ClientSession) -> None:
    body = PURPOSE + part("file", gzip.compress(LINE), "Content-Encoding: gzip", filename="x") + END

    assert (await post(http, body))[0] == 415


@pytest.mark.surface("1.1 size of a file")
async def test_the_largest_file_is_taken(http: aiohttp.ClientSession) -> None:
    largest = LINE + b"x" * (MAX_UPLOAD - len(LINE))

    status, file = await post(http, PURPOSE + part("file", largest, filename="x") + END)

    assert (status, file["bytes"]) == (200, MAX_UPLOAD)


async def _in_pieces(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


@pytest.mark.surface("5 body too large")
async def test_a_larger_file_is_refused_by_its_bytes(service: Any, http: aiohttp.ClientSession) -> None:
    too_large = LINE + b"x" * (MAX_UPLOAD - len(LINE) + 1)

    status, error = await post(http, _in_pieces(PURPOSE + part("file", too_large, filename="x") + END))

    assert (status, error["type"]) == (413, "invalid_request_error")
    await service.stores_nothing()


@asynccontextmanager
async def raw(
    service: Any, alice: Any, *lines: str
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection on which the head of an upload was sent."""
    host, port = service.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = [
        "POST /v1/files HTTP/1.1",
        f"Host: {host}",
        f"Authorization: Bearer {alice.api_key}",
        f"Content-Type: {FORM['Content-Type']}",
        *lines,
    ]
    writer.write(("\r\n".join(head) + "\r\n\r\n").encode())
    try:
        yield reader, writer
    finally:
        writer.close()


async def status_of(reader: asyncio.StreamReader) -> int:
    line = await asyncio.wait_for(reader.readline(), 10)
    return int(line.split()[1])


@pytest.mark.surface("5 body too large; 9.18")
async def test_a_larger_file_is_refused_by_its_announced_length_alone(service: Any, alice: Any) -> None:
    async with raw(service, alice, "Content-Length: 201000000", "Expect: 100-continue") as (reader, _):
        assert await status_of(reader) == 413


async def test_a_client_that_waits_to_be_asked_is_asked(service: Any, alice: Any) -> None:
    body = PURPOSE + FILE + END
    length = f"Content-Length: {len(body)}"
    async with raw(service, alice, length, "Expect: 100-continue") as (reader, writer):
        assert await status_of(reader) == 100
        assert await reader.readline() == b"\r\n"
        writer.write(body)
        assert await status_of(reader) == 200


@pytest.mark.surface("1.1 a client that leaves in the middle leaves nothing")
@pytest.mark.parametrize("framing", ["Content-Length: 3900000", "Transfer-Encoding: chunked"])
async def test_a_client_that_leaves_in_the_middle_leaves_nothing(
    service: Any, alice: Any, framing: str
) -> None:
    begun = PURPOSE + part("file", LINE + b"x" * 3_000_000, filename="x")

    async def chunks_are_there() -> bool:
        return bool(await service.count("blob_chunks"))

    async with raw(service, alice, framing) as (_, writer):
        writer.write(f"{len(begun):x}\r\n".encode() + begun if "chunked" in framing else begun)
        await eventually(chunks_are_there, timeout=10, what="an upload under way")
        writer.transport.abort()

        await service.stores_nothing()


async def test_a_client_that_falls_silent_is_let_go(
    service: Any, alice: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multipart, "_IDLE", 0.1)
    async with raw(service, alice, "Content-Length: 1000") as (reader, writer):
        writer.write(PURPOSE)

        assert await status_of(reader) == 408


async def test_concurrent_uploads_do_not_mix(http: aiohttp.ClientSession) -> None:
    async def one(number: int) -> None:
        content = LINE + f"{number}".encode() * 300_000
        status, file = await post(http, PURPOSE + part("file", content, filename=f"{number}") + END)
        assert status == 200
        async with http.get(f"/v1/files/{file['id']}/content") as answer:
            assert await answer.read() == content

    await asyncio.gather(*(one(number) for number in range(8)))


async def test_a_file_without_a_single_newline_is_taken(http: aiohttp.ClientSession) -> None:
    body = PURPOSE + part("file", b'{"a": "' + b"x" * 3_000_000 + b'"}', filename="x") + END

    assert (await post(http, body))[0] == 200


@pytest.mark.parametrize("make", [lambda: b"\n" * 3_000_000, lambda: '{"a":1}'.encode("utf-16") * 1_000])
async def test_odd_bytes_are_refused_cleanly(http: aiohttp.ClientSession, make: Callable[[], bytes]) -> None:
    assert (await post(http, PURPOSE + part("file", make(), filename="x") + END))[0] == 400
