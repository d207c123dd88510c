"""The OpenAPI document: it names every route, and whatever it allows or forbids is answered as it says."""

import asyncio
import re
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from floopy_api.handlers.middleware import PUBLIC_PATHS
from floopy_api.handlers.openapi import OPERATIONS, document, rendered_document

KEPT = Path(__file__).parents[4] / "contracts/openapi.json"
DOCUMENT = document()
NAMES = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=20)
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=5,
)


def test_the_kept_document_is_up_to_date() -> None:
    assert KEPT.read_bytes() == rendered_document(), "run `make events` and commit the result"


async def test_every_route_is_in_the_document(service: Any) -> None:
    served = {
        (route.method, re.sub(r":[^}]+", "", route.resource.canonical))
        for route in service.app.router.routes()
        if route.method != "HEAD"
    }

    assert {(method, path) for method, path in served if path not in PUBLIC_PATHS} == OPERATIONS.keys()


async def test_the_document_is_served_to_anybody_and_its_references_lead_somewhere(service: Any) -> None:
    async with service.http() as http, http.get("/openapi.json") as answer:
        served = await answer.json()

    assert served == DOCUMENT
    assert served["openapi"].startswith("3.1.")
    for name in set(re.findall(r'"#/components/schemas/(\w+)"', rendered_document().decode())):
        jsonschema.Draft202012Validator.check_schema(served["components"]["schemas"][name])


def of_schema(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Mostly what the schema allows, sometimes anything else."""
    return st.one_of(_allowed(schema), _allowed(schema), _allowed(schema), ANYTHING)


def _allowed(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    if "$ref" in schema:
        return _allowed(DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    if "anyOf" in schema:
        return st.one_of(*map(_allowed, schema["anyOf"]))
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kinds = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    return st.one_of(*(_of_kind(kind, schema) for kind in kinds))


def _of_kind(kind: str, schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    match kind:
        case "object" if "properties" in schema:
            fields = {name: of_schema(inner) for name, inner in schema["properties"].items()}
            required = {name: fields.pop(name) for name in schema["required"]}
            return st.fixed_dictionaries(required, optional=fields)
        case "object":
            return st.dictionaries(NAMES, of_schema(schema["additionalProperties"]), max_size=18)
        case "array":
            return st.lists(of_schema(schema["items"]), max_size=4)
        case "integer":
            return st.integers(schema.get("minimum"), schema.get("maximum"))
        case "string":
            return NAMES
        case _:
            return st.none()


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    """A request to some operation: the arguments of a client's call."""
    (method, path), operation = draw(st.sampled_from(sorted(OPERATIONS.items(), key=lambda item: item[0])))
    url = re.sub(r"\{\w+\}", lambda _: draw(st.from_regex(r"[A-Za-z0-9_%~.\-]{1,30}", fullmatch=True)), path)
    query = {
        name: str(draw(of_schema(schema))) for name, schema in operation.query.items() if draw(st.booleans())
    }
    call: dict[str, Any] = {"method": method, "url": url, "params": query, "path": path}
    schema = {"$ref": f"#/components/schemas/{operation.body}"}
    if operation.media == "multipart/form-data":
        call["form"] = draw(st.one_of(_allowed(schema), st.dictionaries(NAMES, NAMES, max_size=3)))
    elif operation.body is not None:
        call["json"] = draw(of_schema(schema))
    call["headers"] = {
        name: draw(st.text("abcXYZ019 -_.$", max_size=12))
        for name in operation.headers
        if draw(st.booleans())
    }
    return call


def part(name: str, value: object) -> bytes:
    """By hand: a client library would not let most of these names out."""
    filename = '; filename="f"' if name in {"file", "data"} else ""
    head = f'--cut\r\nContent-Disposition: form-data; name="{name}"{filename}\r\n\r\n'
    return f"{head}{value}\r\n".encode()


async def answered_as_described(http: aiohttp.ClientSession, call: dict[str, Any]) -> None:
    method, path = call["method"], call.pop("path")
    fields = call.pop("form", None)
    if fields is not None:
        call["headers"]["Content-Type"] = "multipart/form-data; boundary=cut"
        call["data"] = b"".join(part(name, value) for name, value in fields.items()) + b"--cut--\r\n"
    async with http.request(**call) as answer:
        described = DOCUMENT["paths"][path][method.lower()]["responses"]
        assert answer.status < 500
        assert str(answer.status) in described, (answer.status, await answer.text())
        media = answer.headers["Content-Type"].partition(";")[0]
        schema = described[str(answer.status)]["content"][media]["schema"]
        if media == "application/json":
            whole = {**schema, "components": DOCUMENT["components"]}
            jsonschema.Draft202012Validator(whole).validate(await answer.json())


@pytest.mark.surface("5 the envelope on every route, whatever is sent; metadata, limit and after of any kind")
async def test_whatever_is_sent_is_answered_as_the_document_says(http: aiohttp.ClientSession) -> None:
    loop = asyncio.get_running_loop()

    @settings(
        max_examples=150,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(call=requests())
    def ask(call: dict[str, Any]) -> None:
        asyncio.run_coroutine_threadsafe(answered_as_described(http, dict(call)), loop).result(30)

    await loop.run_in_executor(None, partial(ask))
