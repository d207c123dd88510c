"""Requests and results by the dozen: what a test does not name is the plainest there is."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from floopy_common.providers.anthropic.policy import Context
from floopy_common.providers.anthropic.refusal import Refused
from floopy_common.providers.anthropic.request import Translated, translate

HAIKU = "claude-haiku-4-5"


def _body(*, without: tuple[str, ...] = (), **members: Any) -> bytes:
    body = {"model": HAIKU, "messages": [{"role": "user", "content": "Hi"}], **members}
    for name in without:
        del body[name]
    return json.dumps(body, ensure_ascii=False).encode()


@pytest.fixture
def make_body() -> Callable[..., bytes]:
    return _body


@pytest.fixture
def params_of() -> Callable[..., dict[str, Any]]:
    """The translated params of a request of these members; the line must not be refused."""

    def params_of(context: Context | None = None, /, **members: Any) -> dict[str, Any]:
        outcome = translate(_body(**members), context or Context())
        assert isinstance(outcome, Translated), outcome
        params: dict[str, Any] = json.loads(outcome.params)
        return params

    return params_of


@pytest.fixture
def refusal_of() -> Callable[..., tuple[str | None, str | None]]:
    """Param and code of the refusal of a request of these members."""

    def refusal_of(context: Context | None = None, /, **members: Any) -> tuple[str | None, str | None]:
        outcome = translate(_body(**members), context or Context())
        assert isinstance(outcome, Refused), outcome
        error = json.loads(outcome.body)["error"]
        assert error == {
            "message": outcome.message,
            "type": "invalid_request_error",
            "param": outcome.param,
            "code": outcome.code,
        }
        assert outcome.status == 400
        return outcome.param, outcome.code

    return refusal_of
