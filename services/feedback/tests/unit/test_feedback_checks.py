"""The simple heuristics: how an answer ended, whether it is one, refuses, or goes round in circles."""

import string
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from floopy_feedback.core.answer import check_answer
from floopy_feedback.core.checks import OK, WEIGHTS, Check, quality
from floopy_feedback.core.exchange import FunctionCall, Message, Part, ToolCall
from floopy_feedback.core.finish import check_finish
from floopy_feedback.core.refusal import check_refusal
from floopy_feedback.core.repetition import check_repetition


@pytest.mark.parametrize("reason", ["stop", "tool_calls", "function_call"])
def test_an_answer_that_ended_by_itself_is_ok(reason: str) -> None:
    assert check_finish(reason).ok


@pytest.mark.parametrize(
    ("reason", "detail"),
    [
        ("length", "length"),
        ("content_filter", "content_filter"),
        (None, "no finish reason"),
        ("<script>", "unknown finish reason"),
    ],
)
def test_an_answer_that_was_cut_off_is_not_ok(reason: str | None, detail: str) -> None:
    assert check_finish(reason) == Check(False, detail)


@pytest.mark.parametrize("content", [None, "", " \n\t", []])
def test_nothing_and_blanks_are_no_answer(content: str | list[Part] | None) -> None:
    message = Message(content=content)

    assert not check_answer(message, message.text()).ok


@pytest.mark.parametrize(
    "message",
    [
        Message(content="0"),
        Message(content=[Part(text="a")]),
        Message(tool_calls=[ToolCall()]),
        Message(function_call=FunctionCall("f", "{}")),
        Message(refusal="no"),
    ],
)
def test_text_calls_and_marked_refusals_are_answers(message: Message) -> None:
    assert check_answer(message, message.text()).ok


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't assist with that request.",
        "I\u2019m sorry, but I can\u2019t help with that.",
        "I cannot comply with this request.",
        "Sorry, I am unable to help you with that.",
        "  I apologize, but I cannot provide that information.",
        "As an AI language model, I cannot assist with this.",
        "I must decline to answer.",
        "I'm sorry, but I can't generate that kind of content.",
    ],
)
def test_short_answers_that_open_like_a_refusal_are_refusals(text: str) -> None:
    assert check_refusal(Message(content=text), text) == Check(False, "opens like a refusal")


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry for your loss. Here is a draft of the letter.",
        "I can't believe it works! The fix was one line.",
        "I cannot recommend this book enough.",
        "Sorry, I can't make it on Friday. (a polite way to decline an invitation)",
        "The customer wrote: I'm sorry, but I can't help with that.",
        "We can't assist" + " and so on" * 200,
        "As an AI researcher, you will want to read these papers.",
        "",
    ],
)
def test_answers_that_merely_sound_like_it_are_not(text: str) -> None:
    assert check_refusal(Message(content=text), text).ok


def test_what_the_provider_marks_is_a_refusal() -> None:
    assert not check_refusal(Message(refusal="no"), "").ok
    assert not check_refusal(Message(content=[Part(refusal="no")]), "").ok


def test_a_loop_of_phrases_is_seen() -> None:
    assert check_repetition("the answer is that " * 60) == Check(False, "phrases repeat")
    assert check_repetition("Well. " + "これは同じ文です。" * 80) == Check(False, "phrases repeat")


def test_a_loop_of_lines_is_seen() -> None:
    text = "\n".join(["1. This is the very same line again"] * 13 + ["another line that is said once"])

    assert check_repetition(text) == Check(False, "lines repeat")


def test_ordinary_text_code_and_tables_do_not_repeat() -> None:
    prose = " ".join(f"word{n} and then word{n + 1}" for n in range(400))
    code = "\n".join(f"    if x == {n}:\n        return handle_{n}(x)\n    }}" for n in range(60))
    table = "\n".join(f"| {n} | value {n} |\n|---|" for n in range(60))

    assert check_repetition(prose).ok
    assert check_repetition(code).ok
    assert check_repetition(table).ok
    assert check_repetition("short short short short").ok


@pytest.mark.parametrize("unit", ["a", "a ", "ab\n", "the same words again ", "\u3042", " ", "\n"])
def test_a_megabyte_costs_no_more_than_its_window(unit: str) -> None:
    small, large = unit * (64 * 1024 // len(unit)), unit * (1024 * 1024 // len(unit))

    started = time.process_time()
    check_repetition(small)
    base = time.process_time() - started
    started = time.process_time()
    check_repetition(large)

    assert time.process_time() - started < 5 * base + 0.05


def test_a_loop_that_begins_late_in_a_megabyte_is_seen() -> None:
    text = "".join(f"word{n} " for n in range(100_000)) + "over and over again " * 3_000

    assert not check_repetition(text).ok


@settings(deadline=None)
@given(st.text(alphabet=st.characters(), max_size=3_000))
def test_no_text_breaks_a_check(text: str) -> None:
    message = Message(content=text)

    assert isinstance(check_repetition(text), Check)
    assert isinstance(check_refusal(message, text), Check)
    assert isinstance(check_answer(message, text), Check)


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([letter * 3 for letter in string.ascii_lowercase]), min_size=104, max_size=400)
)
def test_the_short_cuts_change_no_verdict_that_is_not_close(words: list[str]) -> None:
    grams = list(zip(words, words[1:], words[2:], words[3:], strict=False))
    repeated = 1 - len(set(grams)) / len(grams)
    ok = check_repetition(" ".join(words)).ok

    assert ok or repeated > 0.5
    assert not ok or repeated < 0.8


@pytest.mark.parametrize("period", [2, 3, 5, 8, 13, 40])
def test_a_text_that_ends_in_a_loop_is_seen_whatever_the_loops_length(period: int) -> None:
    begins = " ".join(f"start{n}" for n in range(40))
    loop = " ".join(f"word{n % period}" for n in range(6 * period + 100))

    assert not check_repetition(f"{begins} {loop}").ok


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(WEIGHTS)), st.booleans()))
def test_quality_is_a_share(verdicts: dict[str, bool]) -> None:
    value = quality({name: Check(ok) for name, ok in verdicts.items()})

    assert 0 <= value <= 1
    weighed = {name: ok for name, ok in verdicts.items() if WEIGHTS[name]}
    assert (value == 1) is all(weighed.values())


def test_quality_is_the_weighted_mean() -> None:
    assert quality({"finish": OK, "answer": OK, "refusal": OK, "repetition": Check(False)}) == round(
        10 / 12, 4
    )
    assert quality({"finish": OK, "schema_unusable": Check(False)}) == 1
