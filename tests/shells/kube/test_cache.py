"""The cache: the newest version wins, the dead stay dead, and of children only what decisions need is kept."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from builders import PLACE, a_batch
from headrace.api import labels
from headrace.api.base import JsonObject
from headrace.core.children import run_job
from headrace.core.observed import JobSnapshot
from headrace.shells.kube.cache import LAST_APPLIED, Cache, Parent, about, controller_uid, owner_of
from headrace.shells.kube.resources import BATCHES, CONFIG_MAPS, FAN_OUTS, JOBS, PODS

KEY = ("default", "reviews")
REVIEWS = Parent(BATCHES, *KEY)


def an_object(name: str = "reviews", uid: str = "u1", version: int = 5, **more: Any) -> JsonObject:
    return {"metadata": {"namespace": "default", "name": name, "uid": uid, "resourceVersion": str(version), **more}}


def a_child(name: str = "reviews-run", uid: str = "j1", version: int = 5) -> JsonObject:
    return an_object(name, uid, version, labels={labels.INFERENCE_BATCH: "reviews"})


def test_put_keeps_the_newest_version() -> None:
    cache = Cache()
    assert cache.put(BATCHES, an_object(version=5))
    assert not cache.put(BATCHES, an_object(version=5))
    assert not cache.put(BATCHES, an_object(version=4))
    assert cache.put(BATCHES, an_object(version=10))
    found = cache.get(BATCHES, KEY)
    assert found is not None
    assert found["metadata"]["resourceVersion"] == "10"


def test_put_of_something_deleted_does_not_bring_it_back() -> None:
    cache = Cache()
    cache.put(BATCHES, an_object(version=5))
    cache.remove(BATCHES, an_object(version=6))
    assert not cache.put(BATCHES, an_object(version=7))
    assert cache.get(BATCHES, KEY) is None


def test_remove_of_an_older_namesake_leaves_the_younger_one() -> None:
    cache = Cache()
    cache.put(BATCHES, an_object(uid="old", version=5))
    cache.put(BATCHES, an_object(uid="new", version=8))
    cache.remove(BATCHES, an_object(uid="old", version=6))
    found = cache.get(BATCHES, KEY)
    assert found is not None
    assert found["metadata"]["uid"] == "new"


def test_children_are_found_by_the_batch_that_their_label_names() -> None:
    cache = Cache()
    cache.put(JOBS, a_child("reviews-plan", "j0"))
    cache.put(JOBS, a_child("reviews-run", "j1"))
    assert [job["metadata"]["name"] for job in cache.children(JOBS, REVIEWS)] == ["reviews-plan", "reviews-run"]
    assert cache.children(JOBS, Parent(BATCHES, "elsewhere", "reviews")) == []
    cache.remove(JOBS, a_child("reviews-plan", "j0"))
    cache.remove(JOBS, a_child("reviews-run", "j1"))
    assert cache.children(JOBS, REVIEWS) == []


def test_put_of_a_child_keeps_what_decisions_need() -> None:
    cache = Cache()
    job = a_child() | {
        "spec": {"suspend": True, "parallelism": 2, "template": {"large": True}},
        "status": {"active": 1, "ready": 1, "conditions": []},
    }
    job["metadata"] |= {"managedFields": [1], "annotations": {"x": "y"}}
    cache.put(JOBS, job)
    kept = cache.get(JOBS, ("default", "reviews-run"))
    assert kept is not None
    assert kept["spec"] == {"suspend": True, "parallelism": 2}
    assert kept["status"] == {"active": 1, "conditions": []}
    assert kept["metadata"].keys() == {"namespace", "name", "uid", "resourceVersion", "labels"}
    cache.put(CONFIG_MAPS, a_child("reviews-input", "c1") | {"data": {"records.jsonl": "large"}})
    assert cache.get(CONFIG_MAPS, ("default", "reviews-input")) == a_child("reviews-input", "c1")
    cache.put(PODS, a_child("reviews-run-0", "p1") | {"spec": {"large": True}, "status": {"phase": "Running"}})
    assert cache.get(PODS, ("default", "reviews-run-0")) == a_child("reviews-run-0", "p1") | {
        "status": {"phase": "Running"}
    }


def test_a_job_from_the_cache_gives_the_snapshot_of_the_whole_job() -> None:
    """What the core reads must not be among what the cache drops."""
    job = run_job(a_batch().sharded(4).validated().build(), PLACE, suspend=True)
    job["metadata"] |= {"uid": "j1", "resourceVersion": "5", "annotations": {"x": "y"}}
    job["metadata"]["labels"] |= {labels.STOP_REASON: "Cancelled", labels.ROUND: "2"}
    conditions = [{"type": "Failed", "status": "True", "message": "BackoffLimitExceeded"}]
    counts = {"active": 1, "terminating": 2, "ready": 1, "succeeded": 2, "failed": 1}
    job["status"] = {**counts, "completedIndexes": "0,2", "failedIndexes": "3", "conditions": conditions}
    whole = JobSnapshot.from_object(job)
    cache = Cache()
    cache.put(JOBS, deepcopy(job))
    kept = cache.get(JOBS, ("default", "reviews-run"))
    assert kept is not None
    assert JobSnapshot.from_object(kept) == whole
    assert whole.active == 3


def test_put_of_a_batch_keeps_all_but_the_copies_that_others_made_of_it() -> None:
    cache = Cache()
    batch = an_object(managedFields=[1], annotations={LAST_APPLIED: "large", labels.RETRY: "1"}) | {
        "spec": {"shards": 2}
    }
    cache.put(BATCHES, batch)
    assert cache.get(BATCHES, KEY) == an_object(annotations={labels.RETRY: "1"}) | {"spec": {"shards": 2}}


def test_bulkhead_is_the_one_that_a_batch_names() -> None:
    cache = Cache()
    cache.put(BATCHES, {**an_object(), "spec": {"bulkheadName": "research"}})
    cache.put(JOBS, a_child())
    named = [
        Parent(BATCHES, "default", "reviews"),
        Parent(BATCHES, "default", "other"),
        Parent(JOBS, "default", "reviews-run"),
    ]
    assert [cache.bulkhead(parent) for parent in named] == ["research", "", ""]


def test_news_of_a_batch_is_for_itself_and_of_a_child_for_its_parent() -> None:
    assert about(BATCHES, an_object()) == (REVIEWS,)
    assert about(JOBS, a_child()) == (REVIEWS,)
    assert about(JOBS, an_object("somebody-elses")) == ()


def test_news_of_a_branch_is_for_itself_and_for_its_fan_out() -> None:
    branch = an_object("answers-one", labels={labels.FAN_OUT_JOB: "answers", labels.BRANCH: "one"})
    answers = Parent(FAN_OUTS, "default", "answers")
    assert about(BATCHES, branch) == (Parent(BATCHES, "default", "answers-one"), answers)
    assert owner_of(branch) == answers
    cache = Cache()
    cache.put(BATCHES, branch)
    assert [child["metadata"]["name"] for child in cache.children(BATCHES, answers)] == ["answers-one"]
    cache.remove(BATCHES, branch)
    assert cache.children(BATCHES, answers) == []


def test_controller_uid_is_that_of_the_one_owner_that_controls() -> None:
    owners = [{"uid": "a"}, {"uid": "b", "controller": True}]
    assert controller_uid(an_object(ownerReferences=owners)) == "b"
    assert controller_uid(an_object(ownerReferences=owners[:1])) is None
    assert controller_uid(an_object()) is None
