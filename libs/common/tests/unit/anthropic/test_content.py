"""Images, documents and audio in messages, and cache breakpoints; nothing is ever fetched."""

import base64
import socket
from collections.abc import Callable
from typing import Any

import pytest

from floopy_common.providers.anthropic.content import MAX_IMAGE_BYTES
from floopy_common.providers.anthropic.policy import Context, StoredFile
from floopy_common.providers.anthropic.request import file_ids_of

Params = Callable[..., dict[str, Any]]
Refusal = Callable[..., tuple[str | None, str | None]]

DATA = base64.b64encode(b"%PDF-1.7 not really").decode()


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def file(**members: Any) -> dict[str, Any]:
    return {"type": "file", "file": members}


def user(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts)}]


def blocks(params: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = params["messages"][0]["content"]
    return found


@pytest.mark.edge(35)
@pytest.mark.parametrize(
    ("said", "sent"),
    [
        ("image/jpg", "image/jpeg"),
        ("IMAGE/PNG", "image/png"),
        ("image/gif", "image/gif"),
        ("image/webp;charset=x", "image/webp"),
    ],
)
def test_an_inline_image_is_sent_as_it_is(params_of: Params, said: str, sent: str) -> None:
    params = params_of(messages=user(image(f"data:{said};base64,{DATA}")))

    source = {"type": "base64", "media_type": sent, "data": DATA}
    assert blocks(params) == [{"type": "image", "source": source}]


@pytest.mark.edge(35)
@pytest.mark.parametrize(
    "url",
    [
        f"data:image/svg+xml;base64,{DATA}",
        f"data:;base64,{DATA}",
        "data:image/png;base64,@@@@",
        "data:image/png;base64,YWFh\nYQ==",
        "data:image/png;base64,YQ==YQ==",
        "data:image/png;base64,YQ",
        "data:image/png;base64,",
        "data:image/png,abc",
        "data:image/png",
        "http://example.com/a.png",
        "ftp://example.com/a.png",
        "file:///etc/passwd",
        "/etc/passwd",
        "",
        "data:image/png;base64," + "A" * (MAX_IMAGE_BYTES + 4),
    ],
    ids=lambda url: url[:24],
)
def test_an_image_of_another_kind_is_refused(refusal_of: Refusal, url: str) -> None:
    found = refusal_of(messages=user({"type": "text", "text": "a"}, image(url)))

    assert found == ("messages[0].content[1].image_url.url", "invalid_value")


@pytest.mark.edge(35)
def test_a_pdf_given_as_an_image_is_a_document(params_of: Params) -> None:
    params = params_of(messages=user(image(f"data:application/pdf;base64,{DATA}")))

    source = {"type": "base64", "media_type": "application/pdf", "data": DATA}
    assert blocks(params) == [{"type": "document", "source": source}]


@pytest.mark.edge(35)
@pytest.mark.parametrize("url", ["https://example.com/a.png", "http://example.com/a.png"])
def test_no_image_is_ever_fetched(
    make_body: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    from floopy_common.providers.anthropic.request import translate

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a connection was opened")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)

    translate(make_body(messages=user(image(url))), Context())


@pytest.mark.parametrize(("model", "most"), [("claude-haiku-4-5", 100), ("claude-opus-5", 600)])
def test_more_images_than_the_model_takes_are_refused(
    params_of: Params, refusal_of: Refusal, model: str, most: int
) -> None:
    images = [image("https://example.com/a.png")] * most

    assert len(blocks(params_of(model=model, messages=user(*images)))) == most
    assert refusal_of(model=model, messages=user(*images, images[0]))[1] == "invalid_value"


@pytest.mark.edge(36)
def test_a_file_of_ours_is_sent_inline(params_of: Params) -> None:
    files = {
        "file-a": StoredFile(b"%PDF-", "a.pdf", "application/pdf"),
        "file-b": StoredFile("é,1".encode(), "b.csv", None),
        "file-c": StoredFile(b"%PDF-", "c", "application/octet-stream"),
    }

    params = params_of(Context(files=files), messages=user(*(file(file_id=name) for name in files)))

    first, second, third = blocks(params)
    assert first["source"] == third["source"]
    assert first["source"]["data"] == base64.b64encode(b"%PDF-").decode()
    assert (first["title"], second["title"]) == ("a.pdf", "b.csv")
    assert second["source"] == {"type": "text", "media_type": "text/plain", "data": "é,1"}


@pytest.mark.edge(36)
@pytest.mark.parametrize("file_id", ["file-unknown", "file-of-another-organization", ""])
def test_a_file_that_is_not_ours_is_refused(refusal_of: Refusal, file_id: str) -> None:
    """Whose files may be read is decided when they are collected: others are simply not there."""
    context = Context(files={"file-a": StoredFile(b"%PDF-", "a.pdf", None)})

    found = refusal_of(context, messages=user(file(file_id=file_id)))

    assert found == ("messages[0].content[0].file.file_id", "invalid_value")


@pytest.mark.edge(36)
@pytest.mark.parametrize(
    "members",
    [
        {},
        {"file_id": "file-a", "file_data": DATA},
        {"file_data": DATA[:-1], "filename": "a.pdf"},
        {"file_data": base64.b64encode(b"PK").decode(), "filename": "a.docx"},
        {"file_data": "data:application/zip;base64," + DATA},
        {"file_data": base64.b64encode(b"\xff\xfe").decode(), "filename": "a.txt"},
        {"file_data": base64.b64encode(b" ").decode(), "filename": "a.txt"},
        {"file_data": ""},
    ],
)
def test_a_file_that_is_neither_pdf_nor_text_is_refused(refusal_of: Refusal, members: dict[str, Any]) -> None:
    param, code = refusal_of(messages=user(file(**members)))

    assert code == "invalid_value"
    assert param is not None
    assert param.startswith("messages[0].content[0].file")


@pytest.mark.parametrize(
    ("members", "kind", "title"),
    [
        ({"file_data": f"data:application/pdf;base64,{DATA}"}, "application/pdf", None),
        ({"file_data": DATA, "filename": "A.PDF"}, "application/pdf", "A.PDF"),
        ({"file_data": DATA}, "application/pdf", None),
        ({"file_data": base64.b64encode(b"# a").decode(), "filename": "a.md"}, "text/plain", "a.md"),
        ({"file_data": "data:text/markdown;base64,YQ=="}, "text/plain", None),
    ],
)
def test_inline_files_are_documents(
    params_of: Params, members: dict[str, Any], kind: str, title: str | None
) -> None:
    [block] = blocks(params_of(messages=user(file(**members))))

    assert (block["type"], block["source"]["media_type"], block.get("title")) == ("document", kind, title)


@pytest.mark.edge(37)
def test_audio_is_refused(refusal_of: Refusal) -> None:
    audio = {"type": "input_audio", "input_audio": {"data": "YQ==", "format": "wav"}}

    assert refusal_of(messages=user(audio)) == ("messages[0].content[0].type", "unsupported_value")


@pytest.mark.edge(36)
def test_file_ids_are_found_once_each_in_order_however_they_are_spelled(
    make_body: Callable[..., bytes],
) -> None:
    body = make_body(
        messages=user(file(file_id="b"), file(file_id="a"), file(file_id="b"), file(file_data="x"))
    )

    assert file_ids_of(body) == ["b", "a"]
    assert file_ids_of(body.replace(b"file_id", b"file\\u005fid")) == ["b", "a"]
    assert file_ids_of(make_body()) == []


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"messages":"file_id"}', b'{"messages":["file_id",{}]}']
)
def test_looking_for_files_never_fails(body: bytes) -> None:
    assert file_ids_of(body) == []


def test_the_last_four_cache_breakpoints_are_kept_for_an_hour(params_of: Params) -> None:
    mark = {"prompt_cache_breakpoint": {"mode": "explicit"}}
    parts = [{"type": "text", "text": str(number), **mark} for number in range(6)]

    params = params_of(messages=[{"role": "system", "content": parts[:2]}, *user(*parts[2:])])

    assert [block.get("cache_control") for block in (*params["system"], *blocks(params))] == [None, None] + [
        {"type": "ephemeral", "ttl": "1h"}
    ] * 4


def test_a_breakpoint_in_a_tool_result_is_the_results(params_of: Params) -> None:
    part = {"type": "text", "text": "a", "prompt_cache_breakpoint": {"mode": "explicit", "ttl": "30m"}}
    call = {"id": "1", "type": "function", "function": {"name": "look", "arguments": ""}}
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": [part]},
    ]

    [result] = params_of(messages=messages)["messages"][2]["content"]

    assert result["cache_control"] == {"type": "ephemeral", "ttl": "1h"}
    assert result["content"] == [{"type": "text", "text": "a"}]
