"""What an upload's form may say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from floopy_api.core.files import Wish, check_upload, clean_filename
from floopy_api.core.first_line import FirstLine
from floopy_api.errors import BadRequest
from floopy_api.handlers.content import disposition


def wish(content: bytes = b"{}", filename: str | None = "in.jsonl", **fields: str) -> Wish:
    line = FirstLine()
    line.feed(content)
    return check_upload(filename, {"purpose": "batch", **fields}, line)


def refused(**fields: str) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        wish(**fields)
    return caught.value


@pytest.mark.surface("1.1 default expiry")
def test_a_batch_input_lives_thirty_days_by_default() -> None:
    assert wish() == Wish("in.jsonl", "batch", 2_592_000)


@pytest.mark.surface("1.1 default expiry")
def test_other_purposes_live_for_ever_and_hold_anything() -> None:
    assert wish(b"\x00 anything", purpose="user_data").lifetime is None


@pytest.mark.surface("1.1 expires_after in bracket keys and as JSON")
@pytest.mark.parametrize(
    "fields",
    [
        {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"},
        {"expires_after": '{"anchor": "created_at", "seconds": 3600}'},
    ],
)
def test_a_lifetime_may_be_asked_for_in_two_forms(fields: dict[str, str]) -> None:
    assert wish(**fields).lifetime == 3_600


@pytest.mark.surface("1.1 purpose; expires_after: both fields, 3600..2592000; 5 bad purpose")
@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"purpose": "batch_output"}, "purpose", "invalid_value"),
        (
            {"expires_after[anchor]": "created_at"},
            "expires_after.seconds",
            "missing_required_parameter",
        ),
        ({"expires_after[seconds]": "3600"}, "expires_after.anchor", "missing_required_parameter"),
        (
            {"expires_after[anchor]": "now", "expires_after[seconds]": "3600"},
            "expires_after.anchor",
            "invalid_value",
        ),
        (
            {"expires_after[anchor]": "created_at", "expires_after[seconds]": "soon"},
            "expires_after.seconds",
            "invalid_type",
        ),
        (
            {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3599"},
            "expires_after.seconds",
            "integer_below_min_value",
        ),
        (
            {"expires_after[anchor]": "created_at", "expires_after[seconds]": "2592001"},
            "expires_after.seconds",
            "integer_above_max_value",
        ),
        ({"expires_after": "[1]"}, "expires_after", "invalid_type"),
        ({"expires_after": "{broken"}, "expires_after", "invalid_type"),
    ],
)
def test_wrong_fields_are_named(fields: dict[str, str], param: str, code: str) -> None:
    refusal = refused(**fields)

    assert (refusal.param, refusal.code) == (param, code)


@pytest.mark.surface("1.1 file and purpose are required")
def test_a_missing_file_or_purpose_is_named() -> None:
    with pytest.raises(BadRequest) as no_file:
        wish(filename=None)
    with pytest.raises(BadRequest) as no_purpose:
        check_upload("x", {}, FirstLine())

    assert (no_file.value.param, no_purpose.value.param) == ("file", "purpose")


@pytest.mark.surface("1.1 filename")
@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("in.jsonl", "in.jsonl"),
        ("../../etc/passwd", "../../etc/passwd"),
        ("a\r\nSet-Cookie: x\x00", "aSet-Cookie: x"),
        ("\u202egnp.exe", "gnp.exe"),
        ("é😀.jsonl", "é😀.jsonl"),
        ("\udcff.jsonl", "?.jsonl"),
        ("\n", "upload"),
    ],
)
def test_a_filename_is_kept_without_what_no_name_has(sent: str, kept: str) -> None:
    assert clean_filename(sent) == kept


@given(st.text(st.characters(), max_size=600))
def test_every_filename_can_be_stored_and_sent(name: str) -> None:
    cleaned = clean_filename(name)

    assert 0 < len(cleaned.encode()) <= 255
    assert disposition(cleaned).isascii()
    assert disposition(cleaned).isprintable()


def test_a_filename_cannot_leave_its_header() -> None:
    assert disposition('a"; x=é') == "attachment; filename=\"a__ x__\"; filename*=UTF-8''a%22%3B%20x%3D%C3%A9"
