"""How many workers a warm pool has, and what becomes of requests whose workers end."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.api.asking import ClosedWindow, QueuedRequest
from headrace.api.gateway import ServedModel
from headrace.api.targets import WarmPool
from headrace.api.worker import ExitCode, Failure
from headrace.core.asking.pool import (
    PoolWorker,
    Scaling,
    Trouble,
    after_failed_start,
    after_loss,
    chunks,
    given_up,
    pool_batch,
    pool_object,
    scaling,
)
from pool_rig import route

POOL = WarmPool(min=1, max=4, idle_seconds=10, target_queued_per_worker=8)
BUSY, IDLE = PoolWorker("busy", ready=True), PoolWorker("idle", 5_000, ready=True)
LATER = PoolWorker("later", 9_000, ready=True)
TROUBLE = Trouble("ModelNotFound", "no", 1, 20_000, final=True)


@pytest.mark.parametrize(
    ("workers", "waiting", "now", "expected"),
    [
        pytest.param([], 0, 0, Scaling(start=1), id="as many as there must be, with nothing to do"),
        pytest.param([BUSY], 8, 0, Scaling(), id="each has as many waiting as it may"),
        pytest.param([BUSY], 9, 0, Scaling(start=1), id="one more than may wait"),
        pytest.param([], 1000, 0, Scaling(start=4), id="never more than at most"),
        pytest.param([IDLE, LATER], 0, 14_999, Scaling(), id="idle, but not for long enough"),
        pytest.param([IDLE, LATER], 0, 15_000, Scaling(stop=("idle",)), id="idle for long enough"),
        pytest.param(
            [LATER, IDLE], 0, 60_000, Scaling(stop=("idle",)), id="the one that was idle longest, and one stays"
        ),
        pytest.param([IDLE, LATER, BUSY], 16, 60_000, Scaling(stop=("idle",)), id="no more than are spared"),
        pytest.param([BUSY, BUSY], 0, 60_000, Scaling(), id="none that works"),
    ],
)
def test_scaling(workers: list[PoolWorker], waiting: int, now: int, expected: Scaling) -> None:
    assert scaling(POOL, workers, waiting, now) == expected


@pytest.mark.parametrize(
    ("workers", "now", "started"),
    [
        pytest.param([], 19_999, 0, id="not before its time"),
        pytest.param([], 20_000, 1, id="one alone, however many wait"),
        pytest.param([PoolWorker("starts")], 20_000, 0, id="no other before it is known what becomes of it"),
    ],
)
def test_scaling_after_trouble(workers: list[PoolWorker], now: int, started: int) -> None:
    assert scaling(POOL, workers, 1000, now, TROUBLE).start == started


def test_failed_starts_are_further_and_further_apart_and_the_third_is_said() -> None:
    found: Trouble | None = None
    pauses, finals = [], []
    for _ in range(9):
        found = after_failed_start(found, 137, None, 0)
        pauses.append(found.not_before)
        finals.append(found.final)
    assert pauses == [1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000, 60_000]
    assert finals == [False, False, *[True] * 7]
    assert found is not None
    assert "137" in found.message


def test_what_no_retry_mends_is_said_at_once() -> None:
    found = after_failed_start(None, ExitCode.JOB_FAILED, Failure(reason="ModelNotFound", message="no"), 0)
    assert (found.final, found.reason, found.message) == (True, "ModelNotFound", "no")


def window(*names: str, **lost: int) -> ClosedWindow:
    members = tuple(QueuedRequest(id=f"req_chat_{name * 24}", accepted=0, tokens=1, body={"n": name}) for name in names)
    return ClosedWindow(
        batch="b",
        route="chat",
        closed=1,
        members=members,
        lost={f"req_chat_{name * 24}": n for name, n in lost.items()},
    )


def names(found: Any) -> list[list[str]]:
    return [[member.body["n"] for member in chunk.members] for chunk in found]


def test_chunks_have_those_alone_over_which_workers_have_died() -> None:
    one = window("a", "b", "c", "d", b=1, d=2)
    assert names(chunks(one, one.members, route())) == [["a", "c"], ["b"], ["d"]]
    assert names(chunks(one, one.members[1:2], route())) == [["b"]]
    assert [chunk.deadline for chunk in chunks(one, one.members, route())] == [1_000_001] * 3


def test_loss_counts_for_what_was_not_answered_and_is_given_up_in_the_end() -> None:
    one = after_loss(after_loss(window("a", "b"), window("a", "b").members), window("b").members)
    pool = WarmPool(max_deliveries=2)
    assert [given_up(one, member, pool) is None for member in one.members] == [True, False]


def test_batch_of_a_pool_has_the_model_and_nothing_to_read() -> None:
    served = ServedModel.parse({"model": {"name": "small"}, "parameters": {"max_tokens": 5}, "shards": 3})
    spec = pool_batch(route(), served, "default").spec
    assert (spec.model.name, spec.parameters, spec.shards) == ("small", {"max_tokens": 5}, 1)
    assert spec.input.uri is not None
    assert spec.input.uri.startswith("file:///dev/null/"), "where no URL of a caller leads to a file"


def test_pool_object_says_what_its_workers_do() -> None:
    shown = pool_object(3, [BUSY, IDLE, PoolWorker("starts")], TROUBLE)
    assert shown == {
        "waiting": 3,
        "workers": {"starting": 1, "busy": 1, "idle": 1},
        "error": {"code": "ModelNotFound", "message": "no"},
    }
