"""The trace of a worker's steps: one that was killed has left a readable one, too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from headrace.api.worker import Env, ExitCode, Role
from headrace_worker.errors import JobFailed
from headrace_worker.profile import open_profile
from worker_rig import Folder, Zygote, chat_line


def events(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = orjson.loads(path.read_bytes())
    return [event for event in found if event]


def test_a_worker_writes_a_trace_of_its_steps(tmp_path: Path, zygote: Zygote) -> None:
    folder = Folder(tmp_path, {"batching": {"maxBatchSize": 4}})
    folder.write_input(*map(chat_line, range(20)))
    assert zygote.run(folder, Role.PLAN).wait() == ExitCode.DONE
    worker = zygote.run(folder, Role.RUN, env={Env.PROFILE.value: str(tmp_path / "traces" / "here")})
    assert worker.wait() == ExitCode.DONE, worker.log
    (trace,) = (tmp_path / "traces" / "here").iterdir()
    assert trace.name.startswith("shard-00000.")
    found = events(trace)
    assert {event["name"] for event in found if event["ph"] == "X"} == {"work", "load", "other"}
    assert all(event["dur"] >= 0 for event in found if event["ph"] == "X")
    assert max(event["args"]["running"] for event in found if event["name"] == "running") == 4


def test_a_trace_that_was_never_closed_lacks_its_last_bracket_alone(tmp_path: Path) -> None:
    profile = open_profile({Env.PROFILE.value: str(tmp_path)}, 3)
    assert profile is not None
    profile.span("work", 1.0, 1.5)
    (trace,) = tmp_path.iterdir()
    name, span = orjson.loads(trace.read_bytes().rstrip(b",\n") + b"]")
    assert (name["args"]["name"], span["name"], span["ts"], span["dur"]) == ("shard 3", "work", 1e6, 5e5)
    profile.close()


def test_a_folder_that_cannot_be_written_fails_the_job(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JobFailed, match="HEADRACE_PROFILE must name a folder"):
        open_profile({Env.PROFILE.value: str(tmp_path / "file")}, 0)
    assert open_profile({}, 0) is None
