"""A row of the log says everything but the bodies."""

import msgspec
from floopy_sinks.lines import failed, make_segment

from floopy_common.events.lines import BlobRange, Content
from floopy_logging.core.rows import request_row


def test_a_row_refers_to_bodies_and_never_holds_one() -> None:
    (line,) = make_segment("batch_1", 1)
    inline = Content("blob_out", 7, 9, "Hel", msgspec.Raw(b'{"secret":1}'), (BlobRange("blob_2", 0, 2),))

    row = request_row(msgspec.structs.replace(line, response=inline))

    assert "secret" not in repr(row)
    assert row["request"] == {"blob": "blob_in", "offset": 200, "length": 180, "preview": "Say hello"}
    assert row["response"]["continued"] == [{"blob": "blob_2", "offset": 0, "length": 2}]
    assert row["usage"]["total_tokens"] == 121
    assert (row["status"], row["status_code"], row["error"]) == ("succeeded", 200, None)


def test_a_failed_line_has_its_error_and_no_usage() -> None:
    (line,) = make_segment("batch_1", 1)

    row = request_row(failed(line))

    assert (row["status"], row["error"]) == ("failed", {"code": None, "message": None})
    assert (row["usage"], row["finish_reason"], row["cost_nano_usd"]) == (None, None, 0)
