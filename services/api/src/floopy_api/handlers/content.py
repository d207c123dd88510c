"""Downloads: any range of a file, streamed in small pieces to clients of any speed."""

import logging
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from urllib.parse import quote

from aiohttp import web

from floopy_api.core.ranges import Span, matches, span_of
from floopy_api.handlers.keys import BYTES, CALLER, FILES, PASSAGE
from floopy_api.handlers.middleware import route_of
from floopy_api.metrics import SENT_BYTES
from floopy_api.ports import Document
from floopy_common.chassis.mongo import DatabaseError
from floopy_common.domain.errors import FloopyError

_log = logging.getLogger(__name__)
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9._ -]", re.ASCII)


async def file_content(request: web.Request) -> web.StreamResponse:
    file = await request.app[FILES].get(request[CALLER], request.match_info["file_id"])
    etag = f'"{file["etag"]}"'
    if matches(etag, request.headers.get("If-None-Match")):
        return web.Response(status=304, headers={"ETag": etag})
    wanted = request.headers.get("Range")
    if request.headers.get("If-Range", etag) != etag:
        wanted = None  # the client has a part of other bytes
    span = span_of(file["bytes"], wanted)
    pieces = request.app[BYTES].read_ranges(file["ranges"], span.offset, span.length)
    async with aclosing(pieces):
        # before the head: a file whose bytes cannot be read deserves an honest status
        first = await anext(pieces, b"")
        return await _send(request, _head(file, etag, span), first, pieces)


def _head(file: Document, etag: str, span: Span) -> web.StreamResponse:
    headers = {
        "Content-Type": "application/octet-stream",
        "Content-Disposition": disposition(file["filename"]),
        "Accept-Ranges": "bytes",
        "ETag": etag,
    }
    if span.partial:
        headers["Content-Range"] = span.content_range
    response = web.StreamResponse(status=206 if span.partial else 200, headers=headers)
    response.content_length = span.length
    return response


async def _send(
    request: web.Request, response: web.StreamResponse, first: bytes, pieces: AsyncGenerator[bytes, None]
) -> web.StreamResponse:
    sent = SENT_BYTES.labels(route_of(request))
    await response.prepare(request)
    try:
        await response.write(first)
        sent.inc(len(first))
        async for piece in pieces:
            await response.write(piece)
            sent.inc(len(piece))
        await response.write_eof()
    except (FloopyError, DatabaseError) as error:
        # the head is out: cutting the connection is the only way left to say that bytes are missing
        _log.exception(
            "download broken off",
            extra={"event": "download_failed", "request_id": request[PASSAGE].request_id},
        )
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("download broken off") from error
    return response


def disposition(filename: str) -> str:
    """Always an attachment, its name for old and new clients (RFC 6266, RFC 5987)."""
    plain = _NOT_PLAIN.sub("_", filename) or "file"
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"
