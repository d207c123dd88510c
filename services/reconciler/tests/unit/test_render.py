"""Rendering a segment: every line once, its bytes intact, the same on every run."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion

from floopy_common.domain.ids import batch_request_id, line_id
from floopy_common.domain.index import FLAG_OK, ResultEntry
from floopy_common.domain.money import Rates
from floopy_common.events.lines import LineCompleted, decode_line
from floopy_reconciler.core import event_template
from floopy_reconciler.core.line_events import LineEvents, facts_of
from floopy_reconciler.core.render import Material
from floopy_reconciler.core.sources import Choice

GOLDEN = Path(__file__).parent / "golden"

TRICKY = [
    "100 % %b %(x)d \x00",
    'say "hi"',
    "emoji 😀",
    "separator \u2028\u2029",
    "back\\slash/",
    "tab\tnew\nline",
    "é",
    "x" * 512,
]
custom_ids = st.one_of(
    st.sampled_from(TRICKY),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=40),
)
SAID = ("success", "rejected", "unlucky", "never ran", "silent", "oversized")


def said_by(make: Any, line: int, kind: str) -> bytes | None:
    match kind:
        case "success" | "oversized":
            return bytes(make.success(line, f"Answer to {line}"))
        case "rejected":
            return bytes(make.failure(line, 400))
        case "unlucky":
            return bytes(make.failure(line, 500))
        case "never ran":
            return bytes(make.never_ran(line))
        case _:
            return None


@st.composite
def segments(draw: st.DrawFn) -> tuple[list[tuple[str, bool]], list[list[str]], int, str]:
    """custom_ids and their spelling; of each line what primary and retries said; blank lines; policy."""
    names = draw(st.lists(st.tuples(custom_ids, st.booleans()), min_size=1, max_size=8))
    said = [draw(st.lists(st.sampled_from(SAID), min_size=1, max_size=3)) for _ in names]
    return names, said, draw(st.integers(0, 3)), draw(st.sampled_from(["reference", "inline", "none"]))


def build(make: Any, names: Any, said: Any, gap: int, policy: str, ended: str) -> Any:
    numbers = [gap + 1 + 2 * n for n in range(len(names))]
    inputs = {
        number: make.input(name, f"Question {number}", ascii_only=plain)
        for number, (name, plain) in zip(numbers, names, strict=True)
    }
    shards = []
    for depth in range(3):
        of_depth = {n: kinds[depth] for n, kinds in zip(numbers, said, strict=True) if len(kinds) > depth}
        if of_depth:
            shards.append(
                make.shard(
                    lines=list(of_depth),
                    results={n: said_by(make, n, kind) for n, kind in of_depth.items()},
                    depth=depth,
                    ended=ended if depth == 0 else "expired",
                    oversized=frozenset(n for n, kind in of_depth.items() if kind == "oversized"),
                )
            )
    return make.case(inputs, shards, policy=policy)


@given(segments(), st.sampled_from(["finished", "expired", "cancelled", "lost"]))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_each_line_is_in_exactly_one_part_and_in_one_event(make: Any, segment: Any, ended: str) -> None:
    names, said, gap, policy = segment
    case = build(make, names, said, gap, policy, ended)

    first, again = case.render(), case.render()

    assert (first.output, first.error, first.events) == (again.output, again.error, again.events)
    numbers = sorted(case.inputs)
    by_id = {batch_request_id(line_id("batch_1", n)): n for n in numbers}
    assert sorted(by_id[line["id"]] for line in first.lines()) == numbers
    for part, succeeded in ((first.output, True), (first.error, False)):
        check_part(part, succeeded=succeeded, by_id=by_id, case=case)
    answered = [n for n, kinds in zip(numbers, said, strict=True) if "success" in kinds]
    assert first.tally.completed == len(answered) == first.output.count(b"\n")
    assert first.tally.failed == len(numbers) - len(answered)
    assert first.tally.usage["total_tokens"] == 14 * len(answered)
    check_events(case, first)


@given(segments(), st.sampled_from(["finished", "expired"]))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_an_event_out_of_a_template_is_the_one_encoded_as_a_whole(
    make: Any, segment: Any, ended: str
) -> None:
    case = build(make, *segment, ended)
    case.session = "5 % off, %d"
    filled = case.render().events
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(LineEvents, "_filled", lambda _self, _line: None)
        assert case.render().events == filled


def test_most_events_come_out_of_a_template(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LineEvents, "_encoded", None)
    for policy in ("reference", "none"):
        assert only_event(one_line(make, make.success(1), policy=policy)).status == "succeeded"


def test_a_template_with_other_holes_than_expected_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_template, "HOLES", event_template.HOLES[::-1])
    with pytest.raises(RuntimeError, match="another order"):
        event_template._format(b"\0flag\0\0nano_usd\0")


class CountedReads(bytes):
    """A stored archive that says how it was read."""

    def read(self, offset: int, length: int) -> bytes:
        reads.append((offset, length))
        return self[offset : offset + length]


reads: list[tuple[int, int]] = []


@pytest.mark.parametrize(
    ("offsets", "wanted"),
    [([0, 10, 20, 30], [(0, 40)]), ([30, 0, 20, 10], [(0, 40)]), ([0, 5_000], [(0, 10), (5_000, 10)])],
)
def test_neighbours_are_read_at_once_and_what_is_scattered_is_not(
    make: Any, offsets: list[int], wanted: list[tuple[int, int]]
) -> None:
    reads.clear()
    archive = CountedReads(range(256)) * 40
    entries = [ResultEntry(n, offset, 10, 0, FLAG_OK) for n, offset in enumerate(offsets)]
    material = Material([], b"", [], [(CountedReads(archive), make.stored())], [])

    found = material.results([Choice(0, None), *(Choice(0, entry) for entry in entries)])

    assert found == [b"", *(archive[offset : offset + 10] for offset in offsets)]
    assert reads == wanted


def check_part(part: bytes, *, succeeded: bool, by_id: dict[str, int], case: Any) -> None:
    numbers = []
    for raw in part.split(b"\n")[:-1]:
        line = json.loads(raw)
        number = by_id[line["id"]]
        numbers.append(number)
        # the user's spelling, byte for byte
        spelled = case.inputs[number].split(b', "method"')[0].removeprefix(b'{"custom_id": ')
        assert b'"custom_id":' + spelled + b',"response"' in raw
        if succeeded:
            assert line["response"]["status_code"] == 200
            ChatCompletion.model_validate(line["response"]["body"])
        assert (line["response"] is None) != (line["error"] is None)
        assert line["response"] is None or line["response"]["status_code"] != 0
    assert numbers == sorted(numbers)


def check_events(case: Any, rendered: Any) -> None:
    parts = {"blob_out": rendered.output, "blob_err": rendered.error}
    file = b"\0" * 7 + case.file()
    for (key, value), number in zip(rendered.events, sorted(case.inputs), strict=True):
        event = decode_line(value)
        line = event.data
        assert key.decode() == event.subject == line.line_id == line_id("batch_1", number)
        asked = json.loads(case.inputs[number])
        assert line.custom_id == asked["custom_id"]
        assert json.loads(file[line.request.offset :][: line.request.length]) == asked["body"]
        if line.response is not None:
            body = json.loads(parts[line.response.blob][line.response.offset :][: line.response.length])
            assert body.get("error") or body["choices"][0]["message"]["content"] == f"Answer to {number}"
        check_content(case.policy, line, asked)


def check_content(policy: str, line: LineCompleted, asked: dict[str, Any]) -> None:
    question = asked["body"]["messages"][0]["content"]
    assert line.request.preview == (None if policy == "none" else question)
    inlined = [content for content in (line.request, line.response) if content is not None and content.body]
    assert bool(inlined) == (policy == "inline")


def one_line(make: Any, result: bytes | None, **changes: Any) -> Any:
    options = {"ended": changes.pop("ended", "finished"), "refused": changes.pop("refused", None)}
    results = {} if options["refused"] else {1: result}
    return make.case({1: make.input("mine")}, [make.shard([1], results, **options)], **changes)


def only_event(case: Any) -> LineCompleted:
    ((_, value),) = case.render().events
    return decode_line(value).data


def test_the_cost_follows_from_the_pinned_rates(make: Any) -> None:
    line = only_event(one_line(make, make.success(1)))

    assert (line.cost.nano_usd, line.cost.flag, line.cost.price_version) == (3_900, None, "prices==1")
    assert line.usage is not None
    assert (line.usage.input_tokens, line.usage.output_tokens) == (10, 4)


def test_every_pinned_rate_reaches_the_price(make: Any) -> None:
    case = one_line(make, make.success(1))
    rates = {"input_nano": 1, "cached_nano": 2, "output_nano": 3, "flag": "f", "cache_write_nano": 4}
    facts = facts_of(
        {**case.batch(), "plan": {"segments": 1}},
        {"no": 0, "first_line": 1, "last_line": 1, "lines": 1},
        {"sources": [], "price_version": "v", "rates": [{"model": "m", "rates": rates}]},
        1_000_000,
    )
    assert facts.models == [("m", Rates(1, 2, 3, "f", 4))]


@pytest.mark.parametrize(("model", "flag"), [("gpt-4o-2024-08-06", "model_differs"), ("gpt-4o-mini", None)])
def test_an_answer_of_another_model_has_no_price(make: Any, model: str, flag: str | None) -> None:
    line = only_event(one_line(make, make.success(1, model=model)))

    assert line.cost.flag == flag
    assert (line.cost.nano_usd is None) == (flag is not None)


def test_an_answer_without_usage_has_no_price(make: Any) -> None:
    body = {**make.completion(), "usage": None}
    line = only_event(one_line(make, make.result(1, 200, body)))
    assert (line.usage, line.cost.nano_usd, line.cost.flag) == (None, None, "usage_missing")


@pytest.mark.parametrize(
    ("ended", "code", "status"),
    [
        ("finished", "missing_from_provider", "failed"),
        ("expired", "batch_expired", "expired"),
        ("cancelled", "batch_cancelled", "cancelled"),
        ("lost", "results_expired", "failed"),
    ],
)
def test_a_line_without_an_answer_says_why(make: Any, ended: str, code: str, status: str) -> None:
    case = one_line(make, None, ended=ended)

    (line,) = case.render().lines()
    event = only_event(case)

    assert (line["response"], line["error"]["code"]) == (None, code)
    assert (event.status.value, event.status_code, event.response) == (status, None, None)
    assert event.cost.nano_usd == 0
    assert event.error is not None
    assert event.error.code == code


def test_a_refused_line_has_the_providers_words_in_a_response(make: Any) -> None:
    error = {"code": "bad_model", "line": 1, "message": "No such model.", "param": "body.model"}
    refused = {"code": "other", "message": "Input refused.", "errors": [error]}

    (line,) = one_line(make, None, refused=refused).render().lines()

    assert line["error"] is None
    assert line["response"]["status_code"] == 400
    said = line["response"]["body"]["error"]
    assert (said["message"], said["code"], said["param"]) == ("No such model.", "bad_model", "body.model")


def test_a_refused_line_the_provider_did_not_name_has_the_shards_message(make: Any) -> None:
    refused = {"code": "bad_input", "message": "Input refused.", "errors": []}
    (line,) = one_line(make, None, refused=refused).render().lines()
    assert line["response"]["body"]["error"]["message"] == "Input refused."


def test_a_status_of_zero_is_no_response(make: Any) -> None:
    (line,) = one_line(make, make.result(1, 0, {})).render().lines()
    assert (line["response"], line["error"]["code"]) == (None, "missing_from_provider")


def test_an_answer_without_a_request_id_gets_one_that_stays(make: Any) -> None:
    case = one_line(make, make.result(1, 200, make.completion(), request_id=None))
    (line,), (again,) = case.render().lines(), case.render().lines()
    assert len(line["response"]["request_id"]) == 32
    assert line == again


def test_broken_characters_of_a_provider_do_not_break_the_file(make: Any) -> None:
    raw = make.success(1, "caf?").replace(b"caf?", b"caf\xff")
    rendered = one_line(make, raw).render()
    assert rendered.lines()[0]["response"]["body"]["choices"][0]["message"]["content"] == "caf\ufffd"


def test_a_body_that_spans_blobs_is_referred_to_in_pieces(make: Any) -> None:
    whole = make.case({1: make.input("mine")}, [make.shard([1], {1: make.success(1)})])
    size = len(whole.file())
    case = make.case(whole.inputs, whole.shards, blob_sizes=(size - 30, 10, 0, 20))

    request = only_event(case).request

    pieces = [(request.blob, request.offset, request.length)]
    pieces += [(part.blob, part.offset, part.length) for part in request.continued]
    starts = {"in-0": 0, "in-1": size - 30, "in-3": size - 20}
    assert [blob for blob, _, _ in pieces] == ["in-0", "in-1", "in-3"]
    body = b"".join(case.file()[starts[b] + o - 7 :][:n] for b, o, n in pieces)
    assert json.loads(body) == json.loads(case.inputs[1])["body"]


def test_large_bodies_are_left_out_of_the_event(make: Any) -> None:
    small = one_line(make, make.success(1, "a"), policy="inline")
    large = one_line(make, make.success(1, "a" * 300_000), policy="inline")

    assert only_event(small).response.body  # type: ignore[union-attr]
    ((_, value),) = large.render().events
    assert len(value) < 4_000
    line = decode_line(value).data
    assert not line.request.body
    assert line.response is not None
    assert line.response.preview == "a" * 200


def test_the_largest_event_is_shrunk_until_it_fits(make: Any) -> None:
    raw = make.input("\x00" * 512, "q" * 500)
    shard = make.shard([1], {1: make.success(1, "\x00" * 500, "m" * 50_000)})
    size = len(raw) + 1
    case = make.case({1: raw}, [shard], models=("m" * 50_000,), max_event_bytes=8_000, blob_sizes=(1,) * size)

    ((_, value),) = case.render().events

    assert len(value) <= 8_000
    line = decode_line(value).data
    assert (line.custom_id, line.request.preview, line.request.continued) == ("\x00" * 512, None, ())


def test_a_byte_order_mark_and_a_carriage_return_are_not_part_of_the_line(make: Any) -> None:
    raw = b"\xef\xbb\xbf" + make.input("mine") + b"\r"
    case = make.case({1: raw}, [make.shard([1], {1: make.success(1)})])
    line = only_event(case)
    assert line.custom_id == "mine"
    file = b"\0" * 7 + case.file()
    assert json.loads(file[line.request.offset :][: line.request.length])["model"] == "gpt-4o-mini"


def golden_case(make: Any) -> Any:
    """One line of each kind."""
    inputs = {
        1: make.input('first "quoted" 😀', ascii_only=False),
        2: make.input("second \u2028", ascii_only=True),
        4: make.input("fourth"),
        5: make.input("fifth"),
        6: make.input("sixth"),
    }
    primary = make.shard(
        [1, 2, 4, 5],
        {1: make.success(1), 2: make.failure(2, 400), 4: make.failure(4, 500), 5: None},
        ended="expired",
    )
    retry = make.shard([4], {4: make.success(4, "At last.")}, depth=1)
    refused = make.shard(
        [6], {}, refused={"code": "model_not_found", "message": "No such model.", "errors": []}
    )
    return make.case(inputs, [primary, retry, refused])


@pytest.mark.parametrize("name", ["output.jsonl", "error.jsonl", "events.jsonl"])
def test_a_segment_has_the_bytes_it_always_had(make: Any, name: str) -> None:
    """Other bytes mean that segments written before cannot be emitted again: raise RENDERER_VERSION."""
    rendered = golden_case(make).render()
    parts = {
        "output.jsonl": rendered.output,
        "error.jsonl": rendered.error,
        "events.jsonl": b"".join(value + b"\n" for _, value in rendered.events),
    }
    path = GOLDEN / name
    if not path.exists():
        path.write_bytes(parts[name])
        pytest.fail(f"{path} was not there; look at what was written and keep it")

    assert parts[name] == path.read_bytes()
