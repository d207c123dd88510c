"""Uploads that change while a request about them is under way: whoever writes first has won."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from floopy_api.core import uploads as rules
from floopy_api.handlers.keys import UPLOADS
from floopy_common.domain.errors import Transient
from floopy_common.stores.sweeping import BlobSweeper

LINE = b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{}}\n'
Meanwhile = Callable[[str], Awaitable[None]]


async def begun(client: AsyncOpenAI) -> tuple[str, list[str]]:
    """An upload with its one part."""
    upload = await client.uploads.create(
        bytes=len(LINE), filename="in.jsonl", purpose="batch", mime_type="text/jsonl"
    )
    return upload.id, [(await client.uploads.parts.create(upload.id, data=LINE)).id]


@pytest.fixture
def expire(service: Any) -> Meanwhile:
    async def run(upload_id: str) -> None:
        uploads = service.mongo.collection("uploads")
        row = await uploads.find_one({"_id": upload_id})
        past = row["created_at"] - timedelta(seconds=1)
        await uploads.update_one({"_id": upload_id}, {"$set": {"expires_at": past}})

    return run


@pytest.fixture
def cancel(client: AsyncOpenAI) -> Meanwhile:
    async def run(upload_id: str) -> None:
        await client.uploads.cancel(upload_id)

    return run


@pytest.fixture
def during_complete(service: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], None]:
    """Has something happen once, after a complete has looked at its parts and before it writes."""
    uploads = service.app[UPLOADS]
    original = uploads._check_content

    def plan(step: Callable[[], Any]) -> None:
        async def check(file: Any, md5: Any) -> None:
            monkeypatch.setattr(uploads, "_check_content", original)
            await original(file, md5)
            await step()

        monkeypatch.setattr(uploads, "_check_content", check)

    return plan


@pytest.fixture
def before_push(service: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], None]:
    """Has something happen after a part's bytes are stored and before the upload names it."""
    uploads = service.app[UPLOADS]
    original = uploads._ports.uploads.add_part

    def plan(step: Callable[[], Any]) -> None:
        async def add_part(*args: Any) -> bool:
            await step()
            return bool(await original(*args))

        monkeypatch.setattr(uploads._ports.uploads, "add_part", add_part)

    return plan


async def ended(service: Any, upload_id: str) -> tuple[str, int, int]:
    """Status, parts kept, files there are."""
    row = await service.mongo.collection("uploads").find_one({"_id": upload_id})
    return row["status"], len(row["parts"]), await service.count("files")


@pytest.mark.parametrize(("meanwhile", "status"), [("cancel", "cancelled"), ("expire", "expired")])
async def test_a_complete_that_comes_second_makes_no_file(
    service: Any,
    client: AsyncOpenAI,
    during_complete: Any,
    request: pytest.FixtureRequest,
    meanwhile: str,
    status: str,
) -> None:
    upload, ids = await begun(client)
    during_complete(lambda: request.getfixturevalue(meanwhile)(upload))

    with pytest.raises(openai.BadRequestError, match=f"status '{status}'"):
        await client.uploads.complete(upload, part_ids=ids)

    assert await ended(service, upload) == (status, 0, 0)


async def test_the_same_complete_meanwhile_gives_both_the_same_file(
    service: Any, client: AsyncOpenAI, during_complete: Any
) -> None:
    upload, ids = await begun(client)
    made = []

    async def complete() -> None:
        made.append(await client.uploads.complete(upload, part_ids=ids))

    during_complete(complete)
    made.append(await client.uploads.complete(upload, part_ids=ids))

    assert made[0] == made[1]
    assert await ended(service, upload) == ("completed", 0, 1)


async def test_a_part_that_comes_during_a_complete_changes_nothing_and_is_swept(
    service: Any, client: AsyncOpenAI, during_complete: Any
) -> None:
    upload, ids = await begun(client)
    during_complete(lambda: client.uploads.parts.create(upload, data=b"late"))

    done = await client.uploads.complete(upload, part_ids=ids)

    assert (await client.files.content(done.file.id)).content == LINE
    assert await BlobSweeper(service.mongo).condemn_unreferenced(0) == 1


@pytest.mark.parametrize(("meanwhile", "status"), [("cancel", "cancelled"), ("expire", "expired")])
async def test_a_part_whose_upload_ended_meanwhile_is_refused_and_swept(
    service: Any,
    client: AsyncOpenAI,
    before_push: Any,
    request: pytest.FixtureRequest,
    meanwhile: str,
    status: str,
) -> None:
    upload, _ = await begun(client)
    before_push(lambda: request.getfixturevalue(meanwhile)(upload))

    with pytest.raises(openai.BadRequestError, match=f"status '{status}'"):
        await client.uploads.parts.create(upload, data=LINE)

    assert await ended(service, upload) == (status, 0, 0)
    assert await BlobSweeper(service.mongo).condemn_unreferenced(0) == 2


async def test_parts_that_arrive_at_once_have_no_more_room_than_one_after_the_other(
    service: Any, client: AsyncOpenAI, before_push: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload, _ = await begun(client)
    full = {"$set": {"received": 3 * len(LINE)}}
    before_push(lambda: service.mongo.collection("uploads").update_one({"_id": upload}, full))
    with pytest.raises(openai.BadRequestError, match="far more"):
        await client.uploads.parts.create(upload, data=LINE)
    monkeypatch.setattr(rules, "MAX_PARTS", 2)
    other, _ = await begun(client)

    async def another() -> None:
        monkeypatch.undo()
        monkeypatch.setattr(rules, "MAX_PARTS", 2)
        await client.uploads.parts.create(other, data=b"x")

    before_push(another)
    with pytest.raises(openai.BadRequestError, match="at most 2 parts"):
        await client.uploads.parts.create(other, data=b"y")

    assert [(await ended(service, one))[1] for one in (upload, other)] == [1, 2]


async def test_a_file_whose_bytes_somebody_else_removed_does_not_hold_up_the_rest(
    service: Any, client: AsyncOpenAI, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lost, found = await begun(client), await begun(client)
    uploads = service.app[UPLOADS]
    with monkeypatch.context() as patched:

        async def dies(_: Any) -> None:
            raise Transient

        patched.setattr(uploads, "_settle", dies)
        for upload, ids in (lost, found):
            with pytest.raises(openai.InternalServerError):
                await client.uploads.complete(upload, part_ids=ids)
    row = await service.mongo.collection("uploads").find_one({"_id": lost[0]})
    await service.mongo.collection("blobs").delete_one({"_id": row["parts"][0]["blob"]})

    await uploads.tidy()

    assert await ended(service, lost[0]) == ("completed", 0, 1)
    assert await ended(service, found[0]) == ("completed", 0, 1)
    assert "upload_lost" in {getattr(record, "event", None) for record in caplog.records}
