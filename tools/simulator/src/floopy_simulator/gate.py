"""Every provider call passes here: it is put in the ledger, and meets the fault scripted for it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, assert_never

import msgspec
from aiohttp import web

from floopy_simulator import faults
from floopy_simulator.clock import Clock
from floopy_simulator.faults import Fault, FaultBook
from floopy_simulator.journal import Journal

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
FileOrigin = Callable[[web.Request], str | None]
NOT_SENT = 499
"""Stands in aiohttp for an answer whose connection is gone; it never reaches anyone."""


class ContentFile(web.FileResponse):
    """A file answer that knows its path, so that a fault can cut it."""

    def __init__(self, path: Any, headers: dict[str, str]) -> None:  # what FileResponse takes
        super().__init__(path, headers=headers)
        self.path = path


class Gate:
    def __init__(self, *, journal: Journal, clock: Clock, book: FaultBook) -> None:
        self._journal = journal
        self._clock = clock
        self._book = book

    async def pass_through(
        self,
        request: web.Request,
        *,
        provider: str,
        op: str,
        key: str | None,
        file: str | None,
        handler: Handler,
        error_body: Callable[[int], bytes],
    ) -> web.StreamResponse:
        """`handler` must turn its own refusals into responses; `error_body` words a scripted status."""
        seq = self._journal.begin_call(
            at=self._clock.now(),
            provider=provider,
            op=op,
            method=request.method,
            path=request.path_qs,
            key=key,
        )
        fault = self._book.take(provider=provider, op=op, key=key, path=request.path_qs, file=file)
        visit = _Visit(request, fault, error_body)
        try:
            response = await visit.before()
            if response is None:
                response = await handler(request)
                visit.accepted = response.status < 400
                # Written before anything is sent: a lost answer leaves the effect on record.
                self._journal.end_call(seq, status=None, accepted=visit.accepted, fault=visit.label)
                response = await visit.after(response)
            visit.status = None if response.status == NOT_SENT else response.status
            return response
        finally:
            self._journal.end_call(seq, status=visit.status, accepted=visit.accepted, fault=visit.label)


class _Visit:
    def __init__(self, request: web.Request, fault: Fault | None, error_body: Callable[[int], bytes]) -> None:
        self._request = request
        self._fault = fault
        self._error_body = error_body
        self.status: int | None = None
        self.accepted = False

    @property
    def label(self) -> str | None:
        return None if self._fault is None else self._fault.label

    async def before(self) -> web.StreamResponse | None:
        """What answers in the handler's place, if anything does."""
        if self._fault is None or getattr(self._fault.script.action, "when", "after") != "before":
            return None
        return await self._interrupt(self._fault)

    async def after(self, response: web.StreamResponse) -> web.StreamResponse:
        if self._fault is None or getattr(self._fault.script.action, "when", "after") != "after":
            return response
        action = self._fault.script.action
        match action:
            case faults.Truncate():
                return await self._truncate(action, response)
            case faults.Garbage():
                return web.Response(status=action.status, text=action.body, content_type="application/json")
            case faults.Patch():
                return _patched(response, action.body)
            case faults.Status() | faults.Delay() | faults.Drop() | faults.Hold():
                return await self._interrupt(self._fault) or response
        assert_never(action)

    async def _interrupt(self, fault: Fault) -> web.StreamResponse | None:
        match fault.script.action:
            case faults.Status() as action:
                return self._scripted(action)
            case faults.Delay() as action:
                await asyncio.sleep(action.seconds)
            case faults.Drop():
                return self._hang_up()
            case faults.Hold():
                await fault.wait()
            case faults.Truncate() | faults.Garbage() | faults.Patch():
                raise TypeError("these change an answer, they interrupt nothing")
        return None

    def _scripted(self, action: faults.Status) -> web.Response:
        if isinstance(action.body, str):
            body = action.body.encode()
        elif action.body is None:
            body = self._error_body(action.status)
        else:
            body = msgspec.json.encode(action.body)
        headers = {"Content-Type": "application/json", **action.headers}
        return web.Response(status=action.status, body=body, headers=headers)

    def _hang_up(self) -> web.Response:
        if self._request.transport is not None:
            self._request.transport.abort()
        return web.Response(status=NOT_SENT)

    async def _truncate(self, action: faults.Truncate, response: web.StreamResponse) -> web.StreamResponse:
        whole, body = _beginning(response, action.bytes)
        short = web.StreamResponse(status=response.status, headers={"Content-Type": response.content_type})
        if action.mode == "chunked":
            short.enable_chunked_encoding()
        else:
            short.content_length = whole
        await short.prepare(self._request)
        await short.write(body)
        if action.mode == "length" and self._request.transport is not None:
            self._request.transport.close()
        return short


def _beginning(response: web.StreamResponse, size: int) -> tuple[int, bytes]:
    """The full length of a body and its first `size` bytes."""
    if isinstance(response, ContentFile):
        with response.path.open("rb") as content:
            return response.path.stat().st_size, content.read(size)
    body = (
        bytes(response.body)
        if isinstance(response, web.Response) and isinstance(response.body, bytes)
        else b""
    )
    return len(body), body[:size]


def _patched(response: web.StreamResponse, patch: dict[str, Any]) -> web.StreamResponse:
    if not isinstance(response, web.Response) or not isinstance(response.body, bytes):
        return response
    body = msgspec.json.encode({**msgspec.json.decode(response.body), **patch})
    return web.Response(status=response.status, body=body, content_type="application/json")
