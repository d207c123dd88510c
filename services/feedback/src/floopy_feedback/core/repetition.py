"""Whether the answer goes round in circles: linear time over a bounded part of it."""

from typing import Final

from floopy_feedback.core.checks import OK, Check

_WINDOW: Final = 32 * 1024
"""Characters looked at from the beginning and from the end: loops begin somewhere and never stop."""
_GRAM: Final = 4
_MIN_WORDS: Final = 100
_CHARACTER_GRAM: Final = 12
_LONG_WORD: Final = 24
"""Text whose words are longer on average is not written in words: its characters are looked at instead."""
_MIN_LINES: Final = 12
_MIN_LINE: Final = 16
"""Shorter lines (brackets, rules, blanks) repeat in any table or program."""
_SHARE: Final = 0.5
_SAMPLES: Final = 8
_SAMPLE: Final = 12
"""Characters of a sample: less than four words have, so that where a phrase repeats a sample in it does."""

_LINES: Final = Check(False, "lines repeat")
_WORDS: Final = Check(False, "phrases repeat")


def check_repetition(text: str) -> Check:
    """Not ok when more than half of the longer lines or of the phrases have been said before."""
    if len(text) > 2 * _WINDOW:
        text = f"{text[:_WINDOW]}\n{text[-_WINDOW:]}"
    if _lines_repeat(text):
        return _LINES
    return _WORDS if _samples_repeat(text) and _phrases_repeat(text) else OK


def _samples_repeat(text: str) -> bool:
    """Whether any of a few pieces comes once more: most answers are seen at once to repeat nothing.

    As many phrases come once more as have been said before. Where that is half of them, one text in 256 has
    only samples that do not. Cutting every answer into words was four fifths of what scoring costs.
    """
    step = max(1, len(text) // _SAMPLES)
    find = text.find
    for at in range(step // 2, len(text) - _SAMPLE + 1, step):
        if find(text[at : at + _SAMPLE], at + 1) >= 0:
            return True
    return False


def _lines_repeat(text: str) -> bool:
    if text.count("\n") < _MIN_LINES - 1:
        return False
    lines = [line for line in text.split("\n") if len(line) >= _MIN_LINE]
    return len(lines) >= _MIN_LINES and _repeated(len(set(lines)), len(lines))


def _phrases_repeat(text: str) -> bool:
    words = text.split()
    if len(words) * _LONG_WORD < len(text):
        return _characters_repeat(text)
    total = len(words) - _GRAM + 1
    # every word but the last three begins a phrase of its own, so many words mean many phrases
    if len(words) < _MIN_WORDS or not _repeated(len(set(words)) - _GRAM + 1, total):
        return False
    return _repeated(len(set(zip(words, words[1:], words[2:], words[3:], strict=False))), total)


def _characters_repeat(text: str) -> bool:
    total = len(text) - _CHARACTER_GRAM + 1
    if total < _MIN_WORDS * _GRAM:
        return False
    return _repeated(len({text[at : at + _CHARACTER_GRAM] for at in range(total)}), total)


def _repeated(distinct: int, total: int) -> bool:
    return total - distinct > _SHARE * total
