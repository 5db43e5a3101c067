"""Cutting shards, and planning inline records."""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson
import pytest

from headrace.api.base import InvalidSpec
from headrace.api.input import Input
from headrace.api.manifest import MAX_INLINE_BYTES, lay_out_inline
from headrace.api.model import Model
from headrace.api.records import MEDIA_TOKENS, estimate_prompt_tokens
from headrace.api.sharding import ShardCutter
from headrace.api.worker import BatchIdentity, PlanReport, Shard

BATCH = BatchIdentity(namespace="default", name="reviews", uid="uid-1")


def cut(sizes: list[int], shards: int, *, size: int | None = None, limit: int | None = None) -> list[int]:
    """Records in each shard, of records of some sizes in one object of `size` bytes."""
    cutter = ShardCutter(shards, sum(sizes) if size is None else size, limit)
    cutter.begin("file:///in", sum(sizes))
    start = 0
    for line, length in enumerate(sizes, 1):
        cutter.add(start, start + length, line, b"x" * length)
        start += length
    _, manifest = cutter.manifest(BATCH, 0, 0)
    return [Shard.model_validate_json(row).records for row in manifest.splitlines()[1:]]


@pytest.mark.parametrize(
    ("sizes", "shards", "records"),
    [
        pytest.param([10] * 9, 3, [3, 3, 3], id="equal records, equal shards"),
        pytest.param([10] * 10, 4, [2, 3, 2, 3], id="records that do not divide evenly"),
        pytest.param([90, 110, 100], 3, [1, 1, 1], id="as many shards as records of about one size"),
        pytest.param([10, 280, 10], 3, [1, 1, 1], id="a large record between small ones"),
        pytest.param([270, 10, 10, 10], 3, [1, 3], id="a record larger than a shard's share makes fewer shards"),
        pytest.param([10, 10], 5, [1, 1], id="more shards than records"),
        pytest.param([10] * 5, 1, [5], id="one shard"),
        pytest.param([0, 0, 0], 2, [3], id="records without bytes"),
    ],
)
def test_shard_cutter_divides_the_bytes(sizes: list[int], shards: int, records: list[int]) -> None:
    assert cut(sizes, shards) == records


def test_shard_cutter_with_a_limit_divides_the_records() -> None:
    assert cut([10] * 6, 3, size=1_000_000, limit=6) == [2, 2, 2]


def test_shard_cutter_with_a_limit_that_is_not_reached_divides_the_bytes() -> None:
    assert cut([10] * 6, 3, limit=1_000_000) == [2, 2, 2]


def test_shard_cutter_never_makes_more_shards_although_the_input_has_grown() -> None:
    assert cut([10] * 9, 3, size=30) == [1, 1, 7]


def test_shard_cutter_keeps_one_segment_for_a_run_of_an_object() -> None:
    cutter = ShardCutter(1, 60)
    for uri in ("file:///a", "file:///b"):
        cutter.begin(uri, 30)
        cutter.add(0, 10, 1, b"")
        cutter.add(20, 30, 3, b"")
    header, manifest = cutter.manifest(BATCH, 0, 0)
    shard = Shard.model_validate_json(manifest.splitlines()[1])
    assert [(one.uri, one.start, one.end, one.line) for one in shard.segments] == [
        ("file:///a", 0, 30, 1),
        ("file:///b", 0, 30, 1),
    ]
    assert (header.records, header.shards, header.input_bytes) == (4, 1, 60)


def a_record(custom_id: str, content: str = "Hi", **fields: Any) -> dict[str, Any]:
    return {"custom_id": custom_id, "body": {"messages": [{"role": "user", "content": content}]}, **fields}


class Laid(NamedTuple):
    """Inline records that could be read without a pod."""

    lines: bytes
    manifest: bytes
    read: PlanReport


def lay_out(*records: dict[str, Any], shards: int = 1, **spec: Any) -> Laid:
    wanted = Input.parse({"inline": [{}], **spec})
    uri = "file:///in/records.jsonl"
    plan = lay_out_inline(records, wanted, Model(name="tiny"), shards=shards, batch=BATCH, created=7, uri=uri)
    assert plan.report is not None
    return Laid(plan.lines, plan.manifest, plan.report)


def test_lay_out_inline_of_good_records() -> None:
    records = [a_record("1"), a_record("2")]
    plan = lay_out(*records, shards=2)
    assert [orjson.loads(line) for line in plan.lines.splitlines()] == records
    header, *shards = [orjson.loads(line) for line in plan.manifest.splitlines()]
    assert (header["batch"]["uid"], header["created"], header["records"], header["shards"]) == ("uid-1", 7, 2, 2)
    assert [shard["segments"][0]["line"] for shard in shards] == [1, 2]
    assert (plan.read.records, plan.read.shards, plan.read.input_bytes) == (2, 2, len(plan.lines))


def test_lay_out_inline_twice_gives_the_same_bytes() -> None:
    assert lay_out(a_record("1"), a_record("2")) == lay_out(a_record("1"), a_record("2"))


def test_lay_out_inline_stops_at_the_limit() -> None:
    plan = lay_out(a_record("1"), a_record("2"), {"broken": True}, limit=2)
    assert (plan.read.records, plan.read.error_count) == (2, 0)


def test_lay_out_inline_names_the_place_in_the_list() -> None:
    plan = lay_out(a_record("1"), {"custom_id": "2"}, a_record("3"), a_record("1"))
    assert plan.manifest == b""
    assert [(problem.line, problem.code) for problem in plan.read.errors] == [
        (2, "invalid_body"),
        (4, "duplicate_custom_id"),
    ]
    assert "custom_id 1 is used by record 1 already" in plan.read.errors[1].message


@pytest.mark.parametrize(
    "value",
    [pytest.param("\ud800", id="half a character"), pytest.param(2**70, id="a number that JSON readers cannot hold")],
)
def test_lay_out_inline_of_what_is_not_json(value: object) -> None:
    (problem,) = lay_out(a_record("1", extra=value)).read.errors
    assert (problem.line, problem.code) == (1, "invalid_json")


def test_lay_out_inline_fills_the_template() -> None:
    spec: dict[str, Any] = {"format": "jsonl", "prompt": {"template": "{{ text }}!"}}
    good, bad = lay_out({"custom_id": "1", "text": "Hi"}, **spec), lay_out({"custom_id": "1"}, **spec)
    assert (good.read.records, good.read.estimated_prompt_tokens) == (1, 1)
    assert bad.read.errors[0].code == "template_error"


def test_lay_out_inline_of_a_wrong_template() -> None:
    with pytest.raises(InvalidSpec, match=r"spec\.input\.prompt\.template"):
        lay_out({"custom_id": "1"}, format="jsonl", prompt={"template": "{{"})


def test_lay_out_inline_of_too_much() -> None:
    plan = lay_out(*[a_record(str(number), "x" * 1024) for number in range(300)])
    assert len(plan.lines) > MAX_INLINE_BYTES
    (problem,) = plan.read.errors
    assert (problem.line, problem.code, problem.param) == (1, "input_too_large", "input.inline")
    assert "must have at most 256 KiB together, not 321 KiB: put them into a ConfigMap" in problem.message


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        pytest.param({"messages": [{"role": "user", "content": "x" * 40}]}, 10, id="a message"),
        pytest.param({"messages": [{"role": "system", "content": "x"}, {"role": "user"}]}, 1, id="one without content"),
        pytest.param(
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "x" * 8}, {"type": "image_url"}]}]},
            2 + MEDIA_TOKENS,
            id="the text parts of a message, and an image",
        ),
        pytest.param({"prompt": "x" * 9}, 3, id="a prompt"),
        pytest.param({"prompt": [1, 2, 3]}, 3, id="tokens"),
        pytest.param({"input": ["x" * 8, [1, 2]]}, 4, id="several inputs"),
        pytest.param({}, 0, id="nothing"),
    ],
)
def test_estimate_prompt_tokens(body: dict[str, Any], tokens: int) -> None:
    assert estimate_prompt_tokens(body) == tokens
