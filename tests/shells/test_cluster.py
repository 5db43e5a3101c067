"""What a cluster would do for one batch: children follow the Plan, pods follow the Jobs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from headrace.api.base import JsonObject
from headrace.api.batchstatus import ShardCounts
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.worker import Role
from headrace.core.children import plan_job, run_job
from headrace.core.inline import inline_config_map, lay_out
from headrace.shells.local.cluster import LocalCluster
from headrace.shells.local.converge import utc_now
from headrace.shells.local.state import StateError
from laptop import Laptop, die, eventually, local_batch


class Desk:
    """A cluster, the batch that is worked on, and its children as the core would have them."""

    def __init__(self, laptop: Laptop, batch: InferenceBatch | None = None) -> None:
        self.laptop = laptop
        self.batch = (batch or laptop.folder.load_batch()).model_copy(update={"status": self._planned(laptop)})
        self.config_maps: dict[str, JsonObject] = {}
        self.cluster = self.take_over()

    @staticmethod
    def _planned(laptop: Laptop) -> Any:
        return laptop.folder.load().status.model_copy(update={"shards": ShardCounts(total=2)})

    def take_over(self) -> LocalCluster:
        """A process that takes over what the last one has left."""
        return LocalCluster(self.laptop.folder, self.config_maps.get, utc_now(), self.laptop.worker.programs)

    def run_job(self, *, suspend: bool = False, parallelism: int = 2) -> JsonObject:
        """The Job of the work."""
        job = run_job(self.batch, self.laptop.place, suspend=suspend)
        return {**job, "spec": {**job["spec"], "parallelism": parallelism}}

    def apply(self, *children: JsonObject) -> bool:
        """Make the children so."""
        return self.cluster.apply(children, utc_now())

    def advance_until(self, holds: Any) -> None:
        """Let the cluster work until something holds."""

        def step() -> Any:
            self.cluster.advance(utc_now())
            return holds()

        eventually(step)


@pytest.fixture
def desk(laptop: Laptop) -> Desk:
    """The batch `reviews`, found to have two shards."""
    return Desk(laptop)


def names(children: Sequence[JsonObject]) -> list[str]:
    """Names of objects."""
    return [child["metadata"]["name"] for child in children]


def test_apply_creates_what_is_missing_and_twice_changes_nothing(desk: Desk) -> None:
    assert desk.apply(desk.run_job())
    before = desk.laptop.folder.children("jobs")
    assert names(before) == ["reviews-run"]
    assert before[0]["metadata"]["uid"]
    assert not desk.apply(desk.run_job())
    assert desk.laptop.folder.children("jobs") == before


def test_apply_none_leaves_everything_alone(desk: Desk) -> None:
    desk.apply(desk.run_job())
    assert not desk.cluster.apply(None, utc_now())
    assert names(desk.laptop.folder.children("jobs")) == ["reviews-run"]


def test_apply_patches_suspend_and_parallelism_and_nothing_else(desk: Desk) -> None:
    desk.apply(desk.run_job())
    (before,) = desk.laptop.folder.children("jobs")
    changed = desk.run_job(suspend=True, parallelism=1)
    changed["spec"] = {**changed["spec"], "completions": 99, "template": {}}
    assert desk.apply(changed)
    (after,) = desk.laptop.folder.children("jobs")
    assert after == {**before, "spec": {**before["spec"], "suspend": True, "parallelism": 1}}


def test_apply_deletes_a_job_once_its_pods_are_gone(desk: Desk) -> None:
    desk.laptop.worker.orders(hold=[0, 1])
    desk.apply(desk.run_job())
    desk.advance_until(lambda: len(list(desk.laptop.worker.log.glob("waits-*"))) == 2)
    assert desk.apply()
    (snapshot,) = desk.cluster.jobs()
    assert snapshot.deleting
    assert not desk.apply(), "a Job that is being deleted is not deleted again"
    desk.advance_until(lambda: not desk.cluster.jobs())
    assert list(desk.laptop.folder.pods.iterdir()) == []
    assert desk.laptop.folder.children("jobs") == []


def test_apply_makes_a_deleted_job_anew_once_it_is_gone(desk: Desk) -> None:
    desk.apply(desk.run_job(suspend=True))
    (old,) = desk.cluster.jobs()
    desk.apply()
    assert not desk.apply(desk.run_job(suspend=True)), "the old one is still there"
    desk.advance_until(lambda: not desk.cluster.jobs())
    assert desk.apply(desk.run_job(suspend=True))
    (new,) = desk.cluster.jobs()
    assert new.uid != old.uid


def test_apply_keeps_a_config_map_and_deletes_it(desk: Desk) -> None:
    batch = local_batch().inline({"custom_id": "a", "text": "x"}).build()
    inline = lay_out(batch, desk.laptop.place)
    assert inline is not None
    config_map = inline_config_map(batch, inline)
    assert desk.apply(config_map)
    assert not desk.apply(config_map)
    assert names(desk.laptop.folder.children("configmaps")) == ["reviews-input"]
    assert desk.apply()
    assert desk.laptop.folder.children("configmaps") == []


def test_advance_runs_every_index_to_its_end(desk: Desk) -> None:
    desk.apply(desk.run_job(parallelism=1))
    desk.advance_until(lambda: desk.cluster.jobs()[0].complete)
    (job,) = desk.cluster.jobs()
    assert job.succeeded_indexes == {0, 1}
    assert desk.laptop.worker.turns("run") == ["0-1", "1-1"]


def test_advance_with_hold_starts_nothing(desk: Desk) -> None:
    desk.apply(desk.run_job())
    desk.cluster.advance(utc_now(), hold=True)
    assert desk.cluster.pods.running == ()


def test_advance_starts_a_crashed_index_again_after_a_rest(desk: Desk) -> None:
    desk.laptop.worker.orders(exits={"0": [1]})
    desk.apply(desk.run_job())
    desk.advance_until(lambda: desk.cluster.advance(utc_now()) is not None)
    assert "0-2" not in desk.laptop.worker.turns("run"), "it rests"
    desk.advance_until(lambda: desk.cluster.jobs()[0].complete)
    assert desk.laptop.worker.turns("run") == ["0-1", "0-2", "1-1"]


def test_advance_drains_the_pods_of_a_suspended_job(desk: Desk) -> None:
    desk.laptop.worker.orders(hold=[0, 1])
    desk.apply(desk.run_job())
    desk.advance_until(lambda: len(list(desk.laptop.worker.log.glob("waits-*"))) == 2)
    desk.apply(desk.run_job(suspend=True))
    desk.advance_until(lambda: desk.cluster.jobs()[0].active == 0)
    assert desk.laptop.worker.turns("run") == ["0-1", "1-1"]
    desk.apply(desk.run_job())
    desk.advance_until(lambda: desk.cluster.jobs()[0].complete)
    assert desk.laptop.worker.turns("run") == ["0-1", "0-2", "1-1", "1-2"]


def test_take_over_goes_on_with_jobs_and_counts_lost_pods_for_nothing(desk: Desk) -> None:
    desk.laptop.worker.orders(hold=[0, 1])
    job = desk.run_job()
    job["spec"]["backoffLimitPerIndex"] = 0
    desk.apply(job)
    desk.advance_until(lambda: len(list(desk.laptop.worker.log.glob("waits-*"))) == 2)
    die(desk.cluster.pods)
    desk.cluster = desk.take_over()
    desk.advance_until(lambda: desk.cluster.jobs()[0].complete)
    (snapshot,) = desk.cluster.jobs()
    assert snapshot.succeeded_indexes == {0, 1}
    assert not snapshot.failed_indexes


def test_pods_find_the_config_maps_that_their_job_mounts(desk: Desk) -> None:
    batch = local_batch().inline({"custom_id": "a", "text": "x"}, {"custom_id": "b", "text": "y"}).build()
    inline = lay_out(batch, desk.laptop.place)
    assert inline is not None
    desk.batch = batch.model_copy(update={"status": desk.batch.status})
    desk.apply(inline_config_map(batch, inline), desk.run_job())
    desk.advance_until(lambda: desk.cluster.jobs()[0].complete)
    files = {path.name: path.read_bytes() for path in (desk.laptop.folder.files / "reviews-input").iterdir()}
    assert files == {"records.jsonl": inline.lines, "plan.jsonl": inline.manifest}


def test_pods_find_the_config_map_of_the_user_as_it_is_now(desk: Desk) -> None:
    folder = desk.laptop.folder.files / "records"
    folder.mkdir(parents=True)
    (folder / "of-old.jsonl").write_text("gone")
    desk.batch = local_batch().with_spec(input={"configMapRef": {"name": "records"}}).build()
    desk.config_maps["records"] = {"data": {"a.jsonl": "ä"}, "binaryData": {"b.jsonl": "aGk="}}
    desk.apply(plan_job(desk.batch, desk.laptop.place))
    desk.advance_until(lambda: desk.cluster.jobs()[0].complete)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"a.jsonl": "ä".encode(), "b.jsonl": b"hi"}
    assert desk.cluster.jobs()[0].role == Role.PLAN


def test_advance_names_a_config_map_that_is_gone(desk: Desk) -> None:
    desk.batch = local_batch().with_spec(input={"configMapRef": {"name": "records"}}).build()
    desk.apply(plan_job(desk.batch, desk.laptop.place))
    with pytest.raises(StateError, match="there is no ConfigMap records in the namespace default any more"):
        desk.cluster.advance(utc_now())
    assert not Path(desk.laptop.worker.log / "plan-0-1").exists()
