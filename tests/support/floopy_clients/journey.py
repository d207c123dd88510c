"""The journey of a program written against OpenAI, in Python; runs by itself under any major of the SDK.

`python journey.py sync|async BASE_URL API_KEY WORK_DIR` prints a JSON report: for every operation what came
back, as shapes. What cannot be the same twice (ids, times, texts) is reduced to its type, the rest is kept.
"""

import asyncio
import inspect
import io
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import openai

ENDED = {"completed", "failed", "expired", "cancelled"}
VERBATIM = {"object", "status", "purpose", "endpoint", "completion_window", "role", "finish_reason"}
VERBATIM |= {"deleted", "code", "param", "line", "status_code", "mime_type"}
WHOLE = {"request_counts", "metadata"}
OURS = "floopy"  # our extension moves while a batch runs: that it is there is all a journey compares


class Journey:
    """Every operation, by name, and what came back."""

    def __init__(self, client: Any, stranger: Any, work: Path) -> None:
        self.client, self.stranger, self.work = client, stranger, work
        self.operations: dict[str, Any] = {}

    async def run(self) -> dict[str, Any]:
        files = await self._create_files()
        finished, failed = await self._batches(files["bytes"], files["broken"])
        await self._list(files, [finished, failed])
        await self._results(finished)
        await self._cancel(files["bytes"], finished)
        await self._errors(files["bytes"])
        await self._uploads()
        await self._delete(files["path"])
        self.operations["models.list"] = shape([model async for model in walk(self.client.models.list())])
        return self.operations

    async def _create_files(self) -> dict[str, Any]:
        content = lines()
        path = self.work / "requests.jsonl"
        path.write_bytes(content)
        ways: dict[str, Any] = {
            "path": path,
            "bytes": ("requests.jsonl", content),
            "stream": ("requests.jsonl", io.BytesIO(content)),
        }
        created = {}
        for way, file in ways.items():
            created[way] = await done(self.client.files.create(file=file, purpose="batch"))
            self.operations[f"files.create from {way}"] = shape(created[way])
        self.operations["answers carry a request id"] = bool(created["path"]._request_id)
        broken = ("broken.jsonl", b'{"custom_id": "a"}\n{not json\n')
        expires = {"anchor": "created_at", "seconds": 3600}
        created["broken"] = await done(
            self.client.files.create(file=broken, purpose="batch", extra_body={"expires_after": expires})
        )
        lasts = created["broken"].expires_at - created["broken"].created_at
        self.operations["files.create expires_after"] = lasts
        waited = await done(self.client.files.wait_for_processing(created["path"].id))
        self.operations["files.wait_for_processing"] = shape(waited)
        self.operations["files.retrieve"] = shape(await done(self.client.files.retrieve(created["path"].id)))
        read = (await done(self.client.files.content(created["path"].id))).read()
        self.operations["files.content"] = "same bytes" if await done(read) == content else "other bytes"
        return created

    async def _batches(self, good: Any, broken: Any) -> tuple[Any, Any]:
        started = await self._start(good, metadata={"team": "journey", "price": "$5"})
        self.operations["batches.create with metadata"] = shape(started)
        bad = await self._start(broken)
        finished, failed = await self._ended(started), await self._ended(bad)
        self.operations["batches.retrieve until completed"] = shape(finished)
        self.operations["batches.retrieve until failed"] = shape(failed)
        return finished, failed

    async def _start(self, file: Any, **options: Any) -> Any:
        return await done(
            self.client.batches.create(
                input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", **options
            )
        )

    async def _ended(self, batch: Any) -> Any:
        for _ in range(600):
            batch = await done(self.client.batches.retrieve(batch.id))
            if batch.status in ENDED:
                return batch
            await asyncio.sleep(0.25)
        raise TimeoutError(f"{batch.id} is still {batch.status}")

    async def _list(self, files: dict[str, Any], batches: list[Any]) -> None:
        own = [file.id for file in files.values()]
        page = await done(self.client.files.list(purpose="batch", limit=2))
        self.operations["files.list one page"] = one_page(page)
        seen = [file.id async for file in walk(self.client.files.list(purpose="batch", limit=2))]
        self.operations["files.list every page"] = paging(seen, own)
        page = await done(self.client.batches.list(limit=1))
        self.operations["batches.list one page"] = one_page(page)
        seen = [batch.id async for batch in walk(self.client.batches.list(limit=1))]
        self.operations["batches.list every page"] = paging(seen, [batch.id for batch in batches])

    async def _results(self, batch: Any) -> None:
        for name, file_id in (("output", batch.output_file_id), ("error", batch.error_file_id)):
            file = await done(self.client.files.retrieve(file_id))
            self.operations[f"files.retrieve the {name} file"] = shape(file)
            content = await done((await done(self.client.files.content(file_id))).read())
            parsed = [json.loads(line) for line in content.splitlines()]
            self.operations[f"files.content of the {name} file"] = [*shape(parsed), len(parsed)]

    async def _cancel(self, file: Any, finished: Any) -> None:
        cancelling = await done(self.client.batches.cancel((await self._start(file)).id))
        self.operations["batches.cancel"] = {"status": cancelling.status, "keys": sorted(shape(cancelling))}
        ended = await self._ended(cancelling)
        self.operations["batches.retrieve until cancelled"] = ended.status
        again = await done(self.client.batches.cancel(ended.id))
        self.operations["batches.cancel when cancelled"] = again.status
        await self._fails(
            "409 batches.cancel when completed", lambda: self.client.batches.cancel(finished.id)
        )

    async def _errors(self, file: Any) -> None:
        client, ask = self.client, {"input_file_id": file.id}
        good = {**ask, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        unknown = "batch_" + "0" * 32
        png = ("a.png", b"\x89PNG\x00\n")
        cases: dict[str, Callable[[], Any]] = {
            "401 files.list": self.stranger.files.list,
            "401 batches.create": lambda: self.stranger.batches.create(**good),
            "404 files.retrieve": lambda: client.files.retrieve("file-unknown"),
            "404 files.content": lambda: client.files.content("file-unknown"),
            "404 files.delete": lambda: client.files.delete("file-unknown"),
            "404 batches.retrieve": lambda: client.batches.retrieve(unknown),
            "404 batches.cancel": lambda: client.batches.cancel(unknown),
            "400 files.create no jsonl": lambda: client.files.create(file=png, purpose="batch"),
            "400 files.create purpose": lambda: client.files.create(file=png, purpose="nonsense"),
            "400 files.list limit": lambda: client.files.list(limit=0),
            "400 batches.list limit": lambda: client.batches.list(limit=101),
            "400 batches.list after": lambda: client.batches.list(after=unknown),
            "400 batches.create endpoint": lambda: client.batches.create(
                **{**good, "endpoint": "/v1/nothing"}
            ),
            "400 batches.create window": lambda: client.batches.create(
                **{**good, "completion_window": "48h"}
            ),
            "400 batches.create metadata": lambda: client.batches.create(**good, metadata={"tags": ["a"]}),
            "400 batches.create no input": lambda: client.batches.create(**{**good, "input_file_id": None}),
        }
        for name, call in cases.items():
            await self._fails(name, call)

    async def _uploads(self) -> None:
        uploads, content = self.client.uploads, lines()
        about = {"filename": "requests.jsonl", "purpose": "batch", "mime_type": "application/jsonl"}
        upload = await done(uploads.create(bytes=len(content), **about))
        self.operations["uploads.create"] = shape(upload)
        parts = []
        for piece in (content[:100], content[100:]):
            parts.append(await done(uploads.parts.create(upload.id, data=("part", piece))))
        self.operations["uploads.parts.create"] = shape(parts[0])
        ids = [part.id for part in parts]
        await self._fails("400 uploads.complete", lambda: uploads.complete(upload.id, part_ids=ids[:1]))
        completed = await done(uploads.complete(upload.id, part_ids=ids))
        self.operations["uploads.complete"] = shape(completed)
        other = await done(uploads.create(bytes=1, **about))
        self.operations["uploads.cancel"] = shape(await done(uploads.cancel(other.id)))
        late = lambda: uploads.parts.create(other.id, data=("part", b"x"))  # noqa: E731
        await self._fails("400 uploads.parts.create when cancelled", late)
        await self._fails("404 uploads.complete", lambda: uploads.complete("upload_unknown", part_ids=ids))
        chunked = uploads.upload_file_chunked(
            file=self.work / "requests.jsonl", mime_type="application/jsonl", purpose="batch"
        )
        self.operations["uploads.upload_file_chunked"] = shape(await done(chunked))
        batch = await self._ended(await self._start(completed.file))
        self.operations["batches of an upload"] = shape(batch)

    async def _delete(self, file: Any) -> None:
        self.operations["files.delete"] = shape(await done(self.client.files.delete(file.id)))
        await self._fails("404 files.retrieve when deleted", lambda: self.client.files.retrieve(file.id))

    async def _fails(self, name: str, call: Callable[[], Any]) -> None:
        try:
            await done(call())
        except openai.APIStatusError as error:
            fields = {field: getattr(error, field) for field in ("code", "param", "type")}
            kind = {"class": type(error).__name__, "status": error.status_code, **fields}
            self.operations[name] = {**kind, "request_id": bool(error.request_id)}
        else:
            self.operations[name] = "no error"


def lines() -> bytes:
    """Five chat requests; the simulator refuses the fourth, as its metadata asks."""
    return b"".join(_line(number) for number in range(1, 6))


def _line(number: int) -> bytes:
    body: dict[str, Any] = {
        "model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": f"Say something about number {number}"}],
    }
    if number == 4:
        body["metadata"] = {"sim": "status=400"}
    request = {"custom_id": f"line {number} é", "method": "POST", "url": "/v1/chat/completions", "body": body}
    return json.dumps(request, ensure_ascii=False).encode() + b"\n"


def shape(value: Any, key: str = "") -> Any:
    """`value` with what differs every time reduced to its type."""
    if hasattr(value, "model_dump"):
        value = value.model_dump(mode="json", exclude_unset=True)
    if key == OURS:
        return "object"
    if key in VERBATIM | WHOLE or value is None:
        return value
    if isinstance(value, dict):
        return {name: shape(member, name) for name, member in value.items() if name[0] != "_"}
    if isinstance(value, list):
        shapes = [shape(member) for member in value]
        return [one for at, one in enumerate(shapes) if one not in shapes[:at]]
    return kind(value)


def kind(value: Any) -> str:
    """JSON's name for the type; whole numbers are not told from others, as JavaScript does not."""
    names = {bool: "boolean", int: "number", float: "number", str: "string"}
    return names[type(value)]


def one_page(page: Any) -> dict[str, Any]:
    return {"items": len(page.data), "has_more": page.has_more, "keys": sorted(shape(page.data[0]))}


def paging(seen: list[str], own: list[str]) -> dict[str, bool]:
    found = [name for name in seen if name in own]
    return {"each_once": sorted(found) == sorted(own), "newest_first": found == own[::-1]}


async def done(value: Any) -> Any:
    """The result of a call of either client."""
    return await value if inspect.isawaitable(value) else value


async def walk(pages: Any) -> Any:
    """Every item of every page, by the SDK's own paging."""
    if hasattr(pages, "__aiter__"):
        async for item in pages:
            yield item
    else:
        for item in pages:
            yield item


async def _journey(way: str, base_url: str, api_key: str, work: Path) -> dict[str, Any]:
    make = openai.OpenAI if way == "sync" else openai.AsyncOpenAI
    client: Any = make(base_url=base_url, api_key=api_key)
    stranger: Any = make(base_url=base_url, api_key="sk-nobody")
    try:
        operations = await Journey(client, stranger, work).run()
    finally:
        for one in (client, stranger):
            closing: Awaitable[None] | None = one.close()
            await done(closing)
    return {"client": f"Python {openai.__version__.split('.')[0]}.x, {way}", "operations": operations}


def travel(way: str, base_url: str, api_key: str, work: Path) -> dict[str, Any]:
    """The whole journey, `sync` or `async`; its report."""
    return asyncio.run(_journey(way, base_url, api_key, work))


if __name__ == "__main__":
    report = travel(sys.argv[1], sys.argv[2], sys.argv[3], Path(sys.argv[4]))
    sys.stdout.write(json.dumps(report) + "\n")
