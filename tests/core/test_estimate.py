"""What `headrace plan` tells before anything is submitted."""

from __future__ import annotations

from builders import PLACE, a_batch
from headrace.api.worker import PlanReport
from headrace.core.estimate import estimate
from headrace.core.observed import Installation


def test_estimate_of_an_input_that_was_not_read_knows_no_counts() -> None:
    found = estimate(a_batch().sharded(8, parallelism=4).with_spec(resources={"gpus": 2}).build(), PLACE)
    assert (found.shards, found.pods, found.gpus, found.records, found.seconds) == (8, 4, 8, None, None)
    assert found.blocked_by == ()


def test_estimate_of_an_input_that_was_read() -> None:
    report = PlanReport(records=1000, shards=3, estimated_prompt_tokens=50_000)
    batch = a_batch().sharded(8).with_spec(parameters={"max_tokens": 50}).build()
    found = estimate(batch, PLACE, report, tokens_per_second=1000)
    assert (found.shards, found.pods, found.prompt_tokens, found.max_completion_tokens, found.seconds) == (
        3,
        3,
        50_000,
        50_000,
        100,
    )


def test_estimate_of_inline_input_reads_it_here() -> None:
    batch = a_batch().inline({"custom_id": "a", "text": "one two three"}, {"custom_id": "b", "text": "four"}).build()
    found = estimate(batch, PLACE)
    assert found.records == 2
    assert found.prompt_tokens is not None
    assert found.prompt_tokens > 0


def test_estimate_names_what_would_block() -> None:
    assert estimate(a_batch().build(), Installation()).blocked_by[0].startswith("spec.output.uri: must be set")
    batch = a_batch().inline({"custom_id": "a", "text": "x"}, {"custom_id": "a", "text": "y"}, {"text": "z"}).build()
    blocked = estimate(batch, PLACE).blocked_by
    assert [line.split(":")[0] for line in blocked] == ["line 2", "line 3"]


def test_estimate_of_embeddings_generates_nothing() -> None:
    batch = a_batch().with_spec(model={"name": "m", "task": "embedding"}).build()
    assert (
        estimate(batch, PLACE, PlanReport(records=10, shards=1, estimated_prompt_tokens=70)).max_completion_tokens == 0
    )
