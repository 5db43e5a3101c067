"""Objects as files: what is written is read again, and what is damaged is named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from builders import a_batch
from headrace.api.batchstatus import RecordCounts
from headrace.shells.local.state import StateDir, StateError
from headrace.shells.manifests import ConfigMap


def test_batch_is_read_as_it_was_written(state: StateDir) -> None:
    folder, batch = state.batch("default", "reviews"), a_batch().build()
    folder.write_object(batch)
    assert folder.load() == batch


def test_status_is_written_on_its_own(state: StateDir) -> None:
    folder, batch = state.batch("default", "reviews"), a_batch().build()
    folder.write_object(batch)
    status = batch.status.model_copy(update={"records": RecordCounts(total=5, pending=5)})
    folder.write_status(status)
    folder.write_object(batch)
    assert folder.load().status == status, "whoever writes the spec does not touch the status"


def test_load_says_what_there_is_not(state: StateDir) -> None:
    with pytest.raises(StateError, match=r"^there is no InferenceBatch or FanOutJob nope in the namespace a$"):
        state.batch("a", "nope").load()


@pytest.mark.parametrize("text", ["{", "[]", '{"spec": {}}'])
def test_load_names_a_damaged_file_and_a_way_out(state: StateDir, text: str) -> None:
    folder = state.batch("default", "reviews")
    folder.write_object(a_batch().build())
    (folder.path / "object.json").write_text(text)
    with pytest.raises(StateError, match=r"object\.json cannot be read: .*`headrace delete reviews` removes the batch"):
        folder.load()


def test_batches_of_one_namespace_and_of_all(state: StateDir) -> None:
    for namespace, name in (("b", "y"), ("a", "x"), ("a", "w")):
        state.batch(namespace, name).write_object(a_batch(name).with_meta(namespace=namespace).build())
    assert [(it.namespace, it.name) for it in state.batches()] == [("a", "w"), ("a", "x"), ("b", "y")]
    assert [it.name for it in state.batches("a")] == ["w", "x"]
    assert state.batches("c") == []


def test_children_by_name(state: StateDir) -> None:
    folder = state.batch("default", "reviews")
    for name in ("b", "a"):
        folder.write_child("jobs", {"metadata": {"name": name}})
    folder.delete_child("jobs", "nope")
    assert [job["metadata"]["name"] for job in folder.children("jobs")] == ["a", "b"]
    folder.delete_child("jobs", "a")
    assert [job["metadata"]["name"] for job in folder.children("jobs")] == ["b"]


def test_config_map_is_read_as_it_was_written(state: StateDir) -> None:
    config_map = ConfigMap.parse({"metadata": {"name": "x"}, "data": {"a": "ä"}, "binaryData": {"b": "aGk="}})
    state.write_config_map(config_map)
    assert state.config_map("default", "x") == config_map
    assert state.config_map("default", "y") is None


def test_running_keeps_a_second_run_out(state: StateDir) -> None:
    folder = state.batch("default", "reviews")
    with state.running(folder):
        runner = state.runner(folder)
        assert runner is not None
        assert runner.pid == os.getpid()
        with pytest.raises(StateError, match=f"reviews is already held by process {os.getpid()}: wait for it, or stop"):
            state.running(folder).__enter__()
    assert state.runner(folder) is None


def test_discard_removes_a_folder_and_what_a_crash_has_left(state: StateDir, tmp_path: Path) -> None:
    left = state.root / "trash" / "left"
    left.mkdir(parents=True)
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    state.discard(tmp_path / "folder")
    state.discard(tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
    assert not left.exists()


def test_default_output_is_a_uri(tmp_path: Path) -> None:
    assert StateDir(tmp_path / "my state").default_output == f"file://{tmp_path}/my%20state/output/"


@pytest.mark.parametrize("char", ["%", "*", "?"])
def test_state_dir_refuses_a_name_that_means_something_in_a_uri(tmp_path: Path, char: str) -> None:
    with pytest.raises(StateError, match=r"must not have %, \* or \? in its path"):
        StateDir(tmp_path / f"a{char}b")
