"""Counting: final words once, live words on top, never backwards."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from builders import committed, live
from headrace.api.batchstatus import Batched, CountedShards, InferenceBatchStatus, RecordCounts, Usage
from headrace.api.worker import ShardReport
from headrace.core.counts import take_in, tally
from headrace.core.observed import WorkerReport


def reports(*words: WorkerReport) -> tuple[ShardReport, ...]:
    return tuple(w.report for w in words if isinstance(w.report, ShardReport))


def test_take_in_counts_a_shard_once() -> None:
    once = take_in(CountedShards(), reports(committed(0, 90, 10)))
    assert take_in(once, reports(committed(0, 90, 10))) == once
    assert (once.succeeded, once.failed, once.indexes) == (90, 10, "0")
    assert once.usage == Usage(prompt_tokens=900, completion_tokens=450, gpu_seconds=3)


def test_take_in_leaves_out_what_is_not_committed() -> None:
    assert take_in(CountedShards(), reports(live(0, 50))) == CountedShards()


def test_tally_counts_the_shards_with_errors_apart_and_each_once() -> None:
    words = reports(committed(0, 100), committed(1, 90, 10), committed(2, 0, 7))
    found = tally(InferenceBatchStatus(), words, 207)
    assert (found.counted.indexes, found.failing.indexes) == ("0", "1-2")
    assert (found.records.succeeded, found.records.failed) == (190, 17)
    known = InferenceBatchStatus(counted_shards=found.counted, failing_shards=found.failing, batched=found.batched)
    again = tally(known, words, 207)
    assert (again.counted, again.failing, again.batched) == (found.counted, found.failing, found.batched)


def test_tally_of_a_retry_takes_back_nothing_that_was_batched_and_adds_what_is_new() -> None:
    """A shard that is worked on once more says what all its rounds together have cost."""
    first = tally(InferenceBatchStatus(), reports(committed(0, 100), committed(1, 90, 10)), 200)
    assert first.batched == Batched(batches=4, records=200)
    retried = InferenceBatchStatus(counted_shards=first.counted, batched=first.batched)
    assert tally(retried, (), 200).batched == first.batched
    (word,) = reports(committed(1, 100))
    word = word.model_copy(update={"batches": 5, "batched_records": 110, "reprocessed": 3})
    assert tally(retried, (word,), 200).batched == Batched(batches=7, records=210, reprocessed=3)


def test_tally_adds_live_words_to_final_ones() -> None:
    found = tally(InferenceBatchStatus(), reports(committed(0, 100), live(1, 30, 5)), 200)
    assert found.records == RecordCounts(total=200, succeeded=130, failed=5, pending=65)
    assert found.records_per_second == 10.0
    assert not found.all_counted(2)


def test_tally_between_two_lives_of_a_pod_keeps_what_was_known() -> None:
    before = InferenceBatchStatus(records=RecordCounts(total=200, succeeded=130, failed=5, pending=65))
    found = tally(before, reports(committed(0, 100)), 200)
    assert found.records == before.records


def test_all_counted_needs_every_shard() -> None:
    found = tally(InferenceBatchStatus(), reports(committed(0, 1), committed(1, 1)), 2)
    assert found.all_counted(2)
    assert not found.all_counted(3)
    assert not tally(InferenceBatchStatus(), (), 0).all_counted(0), "a batch that is not planned is not done"


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)), min_size=1, max_size=8), st.data())
def test_take_in_comes_to_the_same_in_any_order(shards: list[tuple[int, int]], data: st.DataObject) -> None:
    words = [committed(i, ok, bad) for i, (ok, bad) in enumerate(shards)]
    shuffled = data.draw(st.permutations(words))
    stepwise = CountedShards()
    for word in shuffled:
        stepwise = take_in(stepwise, reports(word))
    assert stepwise == take_in(CountedShards(), reports(*words))
    assert (stepwise.succeeded, stepwise.failed) == (sum(ok for ok, _ in shards), sum(bad for _, bad in shards))
