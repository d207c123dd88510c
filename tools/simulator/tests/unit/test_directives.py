"""The grammar of line directives."""

import json

import pytest

from floopy_simulator.directives import Directive, DirectiveError, find_directive


def body(**fields):
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}).encode()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("status=429", Directive(status=429)),
        ("status=500 times=2 code=x", Directive(status=500, times=2, code="x")),
        ("missing", Directive(missing=True)),
        ("duplicate", Directive(duplicate="same")),
        ("duplicate=other", Directive(duplicate="other")),
        ("huge=100  no_usage", Directive(huge=100, no_usage=True)),
        ("", Directive()),
    ],
)
def test_words_become_a_directive(text, wanted):
    assert find_directive(body(metadata={"sim": text})) == wanted
    assert find_directive(body(user=f"before [sim: {text}] after")) == wanted


def test_a_plain_body_has_none():
    assert find_directive(body()) is None
    assert find_directive(body(metadata={"simple": "sim"}, user='"sim"')) is None
    assert find_directive(b'{"sim" broken') is None


@pytest.mark.parametrize("text", ["statsu=1", "status=x", "times", "status"])
def test_a_word_that_is_not_understood_is_an_error(text):
    with pytest.raises(DirectiveError, match=text):
        find_directive(body(metadata={"sim": text}))
