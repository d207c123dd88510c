"""Every refusal has its answer."""

from floopy_api.errors import Refusal
from floopy_api.handlers.middleware import ANSWERS


def test_every_refusal_is_in_the_table() -> None:
    assert set(ANSWERS) == set(Refusal.__subclasses__())


def test_what_cannot_change_is_not_to_be_repeated() -> None:
    final = {answer.status for answer in ANSWERS.values() if answer.headers.get("x-should-retry") == "false"}

    assert final == {409, 429}
