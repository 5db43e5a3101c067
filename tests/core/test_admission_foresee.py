"""Before a batch is submitted: whether it would be let in, and what it would wait for."""

from __future__ import annotations

import pytest

from admission_builders import a_bulkhead, with_gpus
from builders import NOON, BatchBuilder, a_batch
from headrace.api.batchstatus import Admission as Held
from headrace.api.reasons import Reason
from headrace.core.admission.foresee import HOPELESS, Picture, foresee

WANTED = a_batch("new").with_spec(bulkheadName="prod", resources={"gpus": 1}, parallelism=4)
BLUE = a_bulkhead(namespaceSelector={"matchLabels": {"team": "blue"}})


def running(name: str, pods: int) -> BatchBuilder:
    builder = BatchBuilder(name, WANTED.spec).validated(100).admitted()
    return builder.with_status(admission=Held(pods=pods, time=NOON))


def waiting(name: str) -> BatchBuilder:
    return BatchBuilder(name, WANTED.spec).validated(100)


def test_foresee_lets_in_where_there_is_room() -> None:
    verdict = foresee(WANTED.build(), 4, Picture((), (with_gpus(8),)), NOON)
    assert (verdict.admitted, verdict.pods) == (True, 4)


def test_foresee_starts_small_where_there_is_room_for_some() -> None:
    verdict = foresee(WANTED.build(), 4, Picture((running("a", 6).build(),), (with_gpus(8),)), NOON)
    assert (verdict.admitted, verdict.pods) == (True, 2)


def test_foresee_puts_the_batch_at_the_end_of_the_line() -> None:
    picture = Picture((running("a", 8).build(), waiting("b").build()), (with_gpus(8),))
    verdict = foresee(WANTED.build(), 4, picture, NOON)
    assert (verdict.admitted, verdict.reason, verdict.position) == (False, Reason.QUOTA_EXCEEDED, 2)
    assert verdict.message == "needs 1 GPU, 8 of 8 used"


def test_foresee_takes_the_batch_in_place_of_the_one_that_is_there() -> None:
    picture = Picture((running("new", 8).build(),), (with_gpus(8),))
    assert foresee(WANTED.build(), 4, picture, NOON).admitted


@pytest.mark.parametrize(
    ("spec", "picture", "reason"),
    [
        pytest.param({}, Picture((), ()), Reason.UNKNOWN_BULKHEAD, id="no such Bulkhead"),
        pytest.param({}, Picture((), (BLUE,)), Reason.NAMESPACE_NOT_SELECTED, id="a namespace that is not selected"),
        pytest.param({"minParallelism": 4}, Picture((), (with_gpus(3),)), Reason.EXCEEDS_CAPACITY, id="too large"),
        pytest.param({"parallelism": 0}, Picture((), (with_gpus(3),)), Reason.NO_PODS_ALLOWED, id="no pods at all"),
    ],
)
def test_foresee_tells_what_can_never_start(spec: dict[str, int], picture: Picture, reason: Reason) -> None:
    verdict = foresee(WANTED.with_spec(**spec).build(), 4, picture, NOON)
    assert (verdict.admitted, verdict.reason) == (False, reason)
    assert verdict.reason in HOPELESS


def test_foresee_knows_the_labels_of_namespaces() -> None:
    picture = Picture((), (BLUE,), {"default": {"team": "blue"}})
    assert foresee(WANTED.build(), 4, picture, NOON).admitted
