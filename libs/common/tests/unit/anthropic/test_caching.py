"""Caching what lines share: only where the operator wants it, only where there is enough of it."""

import json
from collections.abc import Callable
from typing import Any

from floopy_common.providers.anthropic.caching import MIN_PREFIX, prefix_key
from floopy_common.providers.anthropic.policy import Context, Policy
from floopy_common.providers.anthropic.request import Translated, translate

LONG = "word " * MIN_PREFIX
AN_HOUR = {"type": "ephemeral", "ttl": "1h"}
Make = Callable[..., bytes]


def system(text: str = LONG, user: str = "Hi") -> list[dict[str, Any]]:
    return [{"role": "system", "content": text}, {"role": "user", "content": user}]


def params_of(body: bytes, *, auto_cache: bool, keys: set[bytes]) -> dict[str, Any]:
    outcome = translate(body, Context(policy=Policy(auto_cache=auto_cache), shared_prefixes=keys))
    assert isinstance(outcome, Translated)
    params: dict[str, Any] = json.loads(outcome.params)
    return params


def key_of(body: bytes) -> bytes:
    key = prefix_key(body)
    assert key is not None
    return key


def test_lines_that_begin_alike_have_one_key(make_body: Make) -> None:
    first, second = make_body(messages=system(user="a")), make_body(messages=system(user="b"))

    assert key_of(first) == key_of(second)
    assert key_of(make_body(messages=system(LONG + "c"))) != key_of(first)
    assert key_of(make_body(model="claude-opus-5", messages=system())) != key_of(first)


def test_a_short_beginning_has_no_key(make_body: Make) -> None:
    for body in (make_body(), make_body(messages=[{"role": "user", "content": LONG}]), b"{", b"[]"):
        assert prefix_key(body) is None


def test_a_shared_system_prompt_is_cached_behind_its_last_block(make_body: Make) -> None:
    body = make_body(messages=system())

    params = params_of(body, auto_cache=True, keys={key_of(body)})

    assert params["system"][-1]["cache_control"] == AN_HOUR
    assert b"cache_control" not in json.dumps(params["messages"]).encode()


def test_shared_tools_are_cached_where_there_is_no_system_prompt(make_body: Make) -> None:
    tool = {"type": "function", "function": {"name": "look", "description": LONG}}
    body = make_body(tools=[tool])

    params = params_of(body, auto_cache=True, keys={key_of(body)})

    assert params["tools"][-1]["cache_control"] == AN_HOUR


def test_nothing_is_cached_that_nobody_shares_or_wants_or_marked_otherwise(make_body: Make) -> None:
    body = make_body(messages=system())
    part = {"type": "text", "text": "a", "prompt_cache_breakpoint": {"mode": "explicit"}}
    marked = make_body(messages=[*system()[:1], {"role": "user", "content": [part]}])
    keys = {key_of(body)}

    assert "cache_control" not in params_of(body, auto_cache=True, keys=set())["system"][-1]
    assert "cache_control" not in params_of(body, auto_cache=False, keys=keys)["system"][-1]
    assert "cache_control" not in params_of(marked, auto_cache=True, keys=keys)["system"][-1]
