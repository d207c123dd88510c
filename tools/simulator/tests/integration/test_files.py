"""The Files API as OpenAI answers it."""

import openai
import pytest


def test_upload_is_processed_at_once_and_keeps_its_name_and_size(account, requests):
    content = requests.many(3)

    file = account.client.files.create(file=("requests.jsonl", content), purpose="batch")

    assert (file.object, file.status, file.filename, file.bytes) == (
        "file",
        "processed",
        "requests.jsonl",
        len(content),
    )
    assert file.id.startswith("file-")
    assert file.expires_at - file.created_at == 30 * 86400


def test_content_comes_back_byte_for_byte_with_its_length(account, requests):
    content = requests.many(3)
    file_id = account.upload(content)

    response = account.client.files.with_raw_response.content(file_id)

    assert response.content == content
    assert int(response.headers["content-length"]) == len(content)


def test_a_range_is_answered_with_that_range(account, requests):
    content = requests.many(3)
    file_id = account.upload(content)

    response = account.client.files.with_raw_response.content(file_id, extra_headers={"Range": "bytes=10-19"})

    assert response.http_response.status_code == 206
    assert response.content == content[10:20]


def test_list_is_newest_first_and_pages(account, requests):
    ids = [account.upload(requests.many(1)) for _ in range(5)]

    page = account.client.files.list(limit=2)

    assert [file.id for file in page.data] == ids[:2:-1]
    assert [file.id for file in account.client.files.list(limit=2)] == ids[::-1]
    assert [file.id for file in account.client.files.list(order="asc")] == ids
    assert account.client.files.list(purpose="vision").data == []


def test_a_deleted_file_is_unknown(account, requests):
    file_id = account.upload(requests.many(1))

    assert account.client.files.delete(file_id).deleted

    for call in (account.client.files.retrieve, account.client.files.content, account.client.files.delete):
        with pytest.raises(openai.NotFoundError) as refused:
            call(file_id)
        assert refused.value.param == "id"
        assert refused.value.message.endswith(f"No such File object: {file_id}") or file_id in str(
            refused.value
        )


def test_a_foreign_file_is_as_unknown_as_no_file(account, sim, make_account, requests):
    file_id = account.upload(requests.many(1))
    stranger = make_account(sim)

    with pytest.raises(openai.NotFoundError) as foreign:
        stranger.client.files.retrieve(file_id)
    with pytest.raises(openai.NotFoundError) as missing:
        stranger.client.files.retrieve("file-none")

    assert foreign.value.body == {
        **missing.value.body,
        "message": missing.value.body["message"].replace("file-none", file_id),
    }
    assert stranger.client.files.list().data == []


@pytest.mark.parametrize(
    "content",
    [b"", b"\n\n", b"not json\n", b"[1]\n", b"{broken\n"],
    ids=["empty", "blank", "text", "array", "cut"],
)
def test_a_batch_file_whose_first_line_is_no_object_is_refused(account, content):
    with pytest.raises(openai.BadRequestError) as refused:
        account.upload(content)

    assert "Must be .jsonl" in refused.value.body["message"]
    assert refused.value.type == "invalid_request_error"


def test_a_file_above_the_limit_is_refused_and_leaves_nothing(account, sim, requests):
    sim.configure(max_file_bytes=1000)

    with pytest.raises(openai.APIStatusError) as refused:
        account.upload(requests.many(50))

    assert refused.value.status_code == 413
    assert account.client.files.list().data == []


@pytest.mark.parametrize("purpose", ["batch_output", "nonsense"])
def test_an_unknown_purpose_is_refused(account, purpose):
    with pytest.raises(openai.BadRequestError) as refused:
        account.client.files.create(file=("a.jsonl", b"{}\n"), purpose=purpose)

    assert refused.value.param == "purpose"


def test_expires_after_is_honoured(account, sim):
    file = account.client.files.create(
        file=("a.jsonl", b"{}\n"), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
    )

    assert file.expires_at - file.created_at == 3600
    sim.call("POST", "/clock", {"advance": 3601})
    with pytest.raises(openai.NotFoundError):
        account.client.files.retrieve(file.id)


@pytest.mark.parametrize("key", ["wrong", "sk-revoked"])
def test_a_bad_key_is_401_with_the_envelope(sim, make_account, key):
    sim.configure(revoked_keys=["sk-revoked"])

    with pytest.raises(openai.AuthenticationError) as refused:
        make_account(sim, key).client.files.list()

    assert refused.value.code == "invalid_api_key"


def test_an_unknown_url_and_a_wrong_method_have_the_envelope(account):
    with pytest.raises(openai.NotFoundError) as unknown:
        account.client.get("/nonsense", cast_to=object)
    with pytest.raises(openai.APIStatusError) as wrong:
        account.client.delete("/batches/batch_1", cast_to=object)

    assert unknown.value.body["message"] == "Invalid URL (GET /v1/nonsense)"
    assert wrong.value.status_code == 405
