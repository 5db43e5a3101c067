"""The role `list`: what is new of an input."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from headrace.api.window import DataWindow
from headrace.api.worker import ExitCode, ListReport, Role
from headrace_worker.errors import JobFailed
from headrace_worker.listing import list_objects
from worker_builders import a_config
from worker_rig import Folder, Zygote

NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)
WINDOW = DataWindow(start_time=NOON, end_time=NOON + timedelta(hours=1))


def an_object(folder: Path, name: str, seconds: float) -> None:
    """One that was modified so many seconds after noon."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(name)
    at = (NOON + timedelta(seconds=seconds)).timestamp()
    os.utime(path, (at, at))


def listed(uri: str, window: DataWindow | None = WINDOW) -> ListReport:
    told = {"uri": uri, "objects": "ModifiedInWindow", **({"window": window.to_object()} if window else {})}
    config = a_config(Path("/nowhere"))
    return list_objects(config.model_copy(update={"input": type(config.input).parse(told)}))


def test_list_objects_counts_from_the_first_moment_of_the_window_and_before_its_end(tmp_path: Path) -> None:
    for name, seconds in {"early": -1, "first": 0, "deep/one": 1.5, "last": 3599, "border": 3600}.items():
        an_object(tmp_path, f"{name}.txt", seconds)
    assert listed(f"{tmp_path.as_uri()}/**/*.txt") == ListReport(window=WINDOW, objects=3, oldest_time=NOON)


def test_list_objects_finds_nothing_where_nothing_is_yet(tmp_path: Path) -> None:
    assert listed(f"{tmp_path.as_uri()}/later/*.txt") == ListReport(window=WINDOW)


def test_list_objects_sees_an_object_that_was_overwritten_only_as_it_is_now(tmp_path: Path) -> None:
    an_object(tmp_path, "a.txt", 10)
    an_object(tmp_path, "a.txt", 4000)
    assert listed(tmp_path.as_uri()).objects == 0


def test_list_objects_refuses_what_has_no_time() -> None:
    config = a_config(Path("/nowhere"))
    spec = config.input.model_copy(update={"uri": "package://pydoc_data.topics:topics", "window": WINDOW})
    with pytest.raises(JobFailed, match="nothing tells when it was modified"):
        list_objects(config.model_copy(update={"input": spec}))


def test_list_objects_needs_a_window(tmp_path: Path) -> None:
    config = a_config(tmp_path)
    with pytest.raises(JobFailed, match=r"BadConfig: input\.uri and input\.window must be set"):
        list_objects(config)


def test_main_reports_what_was_listed(tmp_path: Path, zygote: Zygote) -> None:
    folder = Folder(tmp_path)
    folder.write_input(b"{}\n")
    window = {"startTime": "2000-01-01T00:00:00Z", "endTime": "2100-01-01T00:00:00Z"}
    folder.fields = {"input": {"uri": (tmp_path / "input.jsonl").as_uri(), "window": window}}
    worker = zygote.run(folder, Role.LIST)
    assert worker.wait() == ExitCode.DONE
    assert isinstance(worker.report, ListReport)
    assert worker.report.objects == 1
    assert not folder.output.exists()
