"""Official SDKs cannot tell this system from OpenAI, nor from one another's view of it."""

import os
from pathlib import Path
from typing import Any

import pytest
from floopy_clients.table import page
from openai.types import Batch, FileObject, Upload
from openai.types.uploads import UploadPart

pytestmark = pytest.mark.asyncio(loop_scope="module")

_PAGE = Path(__file__).parents[2] / "docs/clients.md"
_NODE_LACKS = {"uploads.upload_file_chunked"}

Reports = dict[str, dict[str, Any]]

OTHERS = ["locked-async", "python2-sync", "python2-async", "python1-sync", "python1-async"]


def _same_as_locked(reports: Reports, name: str) -> None:
    expected = reports["locked-sync"]["operations"]
    found = reports[name]["operations"]
    assert set(expected) - set(found) == (_NODE_LACKS if name.startswith("node") else set())
    differing = {
        key: (value, expected.get(key)) for key, value in found.items() if value != expected.get(key)
    }
    assert not differing


@pytest.mark.surface("9.1 by every SDK; 1.2; 3.3")
@pytest.mark.parametrize("name", OTHERS)
async def test_every_python_client_sees_the_same(reports: Reports, name: str) -> None:
    _same_as_locked(reports, name)


@pytest.mark.usefixtures("with_node")
@pytest.mark.parametrize("name", ["node-openai", "node-openai6"])
async def test_every_node_client_sees_the_same(reports: Reports, name: str) -> None:
    _same_as_locked(reports, name)


async def test_errors_are_the_sdks_typed_exceptions(reports: Reports) -> None:
    classes = {
        "400": "BadRequestError",
        "401": "AuthenticationError",
        "404": "NotFoundError",
        "409": "ConflictError",
    }
    errors = {
        name: result for name, result in reports["locked-sync"]["operations"].items() if name[:3] in classes
    }

    found = {name: (result["class"], result["request_id"]) for name, result in errors.items()}

    assert found == {name: (classes[name[:3]], True) for name in errors}
    codes = {name: (result["code"], result["param"]) for name, result in errors.items()}
    assert codes["401 files.list"] == ("invalid_api_key", None)
    assert codes["404 files.retrieve"] == (None, "id")
    assert codes["400 batches.create endpoint"] == ("invalid_value", "endpoint")
    assert codes["400 batches.create window"] == ("invalid_value", "completion_window")
    assert codes["400 batches.create metadata"] == ("invalid_type", "metadata.tags")


MODELS = {
    "files.retrieve": (FileObject, set()),
    "batches.create with metadata": (Batch, {"floopy"}),
    "batches.retrieve until completed": (Batch, {"floopy"}),
    "batches.retrieve until failed": (Batch, {"floopy"}),
    "uploads.create": (Upload, set()),
    "uploads.parts.create": (UploadPart, set()),
    "uploads.complete": (Upload, set()),
}


@pytest.mark.surface(
    "1.2 every field; 2 Upload object, UploadPart; 3.3 every field: those of the SDK's models"
)
@pytest.mark.parametrize("name", MODELS)
async def test_an_answer_has_every_field_of_the_sdks_model(reports: Reports, name: str) -> None:
    model, ours = MODELS[name]

    assert set(reports["locked-sync"]["operations"][name]) == set(model.model_fields) | ours


async def test_the_journey_ends_as_at_openai(reports: Reports) -> None:
    found = reports["locked-sync"]["operations"]

    assert found["batches.retrieve until completed"]["request_counts"] == {
        "total": 5,
        "completed": 4,
        "failed": 1,
    }
    assert found["batches.retrieve until failed"]["errors"]["data"]
    assert found["files.content"] == "same bytes"
    assert found["files.content of the output file"][-1] == 4
    assert found["files.content of the error file"][-1] == 1
    for name in ("files.list every page", "batches.list every page"):
        assert found[name] == {"each_once": True, "newest_first": True}


@pytest.mark.usefixtures("with_node")
async def test_the_page_of_clients_is_written_from_the_reports(reports: Reports) -> None:
    written = page(list(reports.values()))
    if os.environ.get("FLOOPY_WRITE_CLIENTS"):
        _PAGE.write_text(written)

    assert _PAGE.read_text() == written, "docs/clients.md is out of date: make clients"
