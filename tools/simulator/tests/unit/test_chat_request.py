"""The typed arguments keep up with the SDK."""

from typing import get_type_hints

import msgspec
from openai.types.chat.completion_create_params import CompletionCreateParamsBase

from floopy_simulator.openai.chat_request import ChatRequest


def test_every_argument_of_the_sdk_is_known():
    known = {field.name for field in msgspec.structs.fields(ChatRequest)}

    assert set(get_type_hints(CompletionCreateParamsBase)) - known == set()
    assert known - set(get_type_hints(CompletionCreateParamsBase)) == {"stream"}
