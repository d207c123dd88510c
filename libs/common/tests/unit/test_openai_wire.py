"""The wire types are what the official SDK reads, key for key."""

from typing import Any

import msgspec
import pytest
from openai.types import Batch, BatchUsage, FileDeleted, FileObject

from floopy_common.openai import batches, files
from floopy_common.openai.endpoints import SUPPORTED_ENDPOINTS, all_endpoints
from floopy_common.openai.errors import ErrorEnvelope, ErrorObject
from floopy_common.openai.pages import page_of
from floopy_common.stores.accounts import PROVIDERS

FILE = files.FileObject(
    id="file-1",
    bytes=1,
    created_at=2,
    expires_at=None,
    filename="in.jsonl",
    purpose="batch",
    status="processed",
)


def wire(value: msgspec.Struct) -> dict[str, Any]:
    decoded: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(value))
    return decoded


def test_a_file_has_every_key_of_the_sdk() -> None:
    assert set(wire(FILE)) == set(FileObject.model_fields)
    assert FileObject.model_validate(wire(FILE)).status == "processed"


def test_a_deletion_has_every_key_of_the_sdk() -> None:
    assert FileDeleted.model_validate(wire(files.FileDeleted(id="file-1"))).deleted


def test_a_batch_has_no_key_the_sdk_lacks_but_ours() -> None:
    assert set(batches.BatchObject.__struct_fields__) - set(Batch.model_fields) == {"floopy"}
    assert set(Batch.model_fields) <= set(batches.BatchObject.__struct_fields__)


def test_usage_has_every_key_of_the_sdk() -> None:
    assert set(batches.BatchUsage.__struct_fields__) == set(BatchUsage.model_fields)


def test_a_page_names_its_ends() -> None:
    assert wire(page_of([FILE], has_more=True)) == {
        "object": "list",
        "data": [wire(FILE)],
        "first_id": "file-1",
        "last_id": "file-1",
        "has_more": True,
    }


def test_an_empty_page_has_no_ends() -> None:
    page = wire(page_of([], has_more=False))

    assert (page["data"], page["first_id"], page["last_id"]) == ([], None, None)


def test_an_error_has_all_four_keys() -> None:
    envelope = ErrorEnvelope(ErrorObject(message="No.", type="invalid_request_error"))

    assert wire(envelope) == {
        "error": {"message": "No.", "type": "invalid_request_error", "param": None, "code": None}
    }


def test_every_provider_says_what_it_takes() -> None:
    assert set(SUPPORTED_ENDPOINTS) == set(PROVIDERS)


@pytest.mark.parametrize("endpoint", all_endpoints())
def test_every_endpoint_is_one_of_openais(endpoint: str) -> None:
    assert endpoint.startswith("/v1/")
