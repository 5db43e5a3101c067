"""The whole path on one machine: the command line, the core, real worker processes, and kills at any moment.

What must hold, whatever happens on the way: every `custom_id` of the input is in results or errors exactly once, and no worker
process outlives the command.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import uuid
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from endpoint_server import Gate, endpoint_server, engine_settings
from laptop import eventually, processes_with

REPOSITORY = Path(__file__).parents[2]
MARK = "HEADRACE_E2E_MARK"


@dataclass(frozen=True)
class Desk:
    """A working directory, and commands that are run in it."""

    folder: Path
    mark: str
    """In the environment of every process that is started from here."""

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command."""
        roots = [str(REPOSITORY / "operator"), str(REPOSITORY / "worker-image")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(roots), MARK: self.mark, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "headrace", *arguments]
        return subprocess.Popen(
            command, cwd=self.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def do(self, *arguments: str) -> tuple[int, str, str]:
        """Run a command to its end; exit code, answer, remarks."""
        process = self.start(*arguments)
        out, err = process.communicate()
        assert "Traceback" not in err
        return process.returncode, out, err

    def write(self, records: int, **spec: Any) -> list[str]:
        """An input of so many records, a manifest `reviews.yaml`, and the ids of the records in their order."""
        ids = [f"r{number}" for number in range(records)]
        lines = (json.dumps({"custom_id": name, "text": f"say {name}"}) for name in ids)
        (self.folder / "in.jsonl").write_text("\n".join(lines))
        batch = {
            "apiVersion": "headrace.dev/v1alpha1",
            "kind": "InferenceBatch",
            "metadata": {"name": "reviews"},
            "spec": {
                "model": {"name": "mock"},
                "engine": {"name": "mock"},
                "input": {"uri": "in.jsonl", "format": "jsonl"},
                "retries": {"limit": 0},
                **spec,
            },
        }
        (self.folder / "reviews.yaml").write_text(yaml.safe_dump(batch))
        return ids

    def ids(self, *which: str) -> list[str]:
        """The ids in the results of the batch, in the order in which they are told."""
        code, out, _ = self.do("results", "reviews", *which, "-o", "json")
        assert code == 0
        return [json.loads(line)["custom_id"] for line in out.splitlines()]

    def status(self) -> dict[str, Any]:
        """The status of the batch."""
        code, out, _ = self.do("get", "reviews", "-o", "json")
        assert code == 0
        found: dict[str, Any] = json.loads(out)["status"]
        return found

    def journalled(self) -> int:
        """Records that are in the journals of all shards, and so are safe."""
        journals = self.folder.glob(".headrace/output/default/reviews/_headrace/shards/*/*.journal")
        lines = (line for journal in journals for line in read(journal).splitlines())
        return sum(line[9:10] in (b"R", b"E") for line in lines)

    def is_under_way(self, running: subprocess.Popen[str], journalled: int) -> bool:
        """Whether a run has done more than so many records, or has ended."""
        return self.journalled() > journalled or running.poll() is not None

    def workers(self) -> list[int]:
        """Processes of this desk that are still there."""
        return list(processes_with(MARK, self.mark))


def read(file: Path) -> bytes:
    """What is in a file; nothing when it has just gone."""
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return b""


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """An empty working directory."""
    return Desk(tmp_path, uuid.uuid4().hex)


def mock(**settings: int) -> dict[str, Any]:
    """The mock engine with these settings."""
    return {"name": "mock", "mock": settings}


def test_run_answers_every_record_once_and_in_order(desk: Desk) -> None:
    ids = desk.write(300, shards=3, parallelism=2, engine=mock(errorPercent=5))
    code, out, _ = desk.do("run", "-f", "reviews.yaml")
    assert code == 0
    assert out.startswith("reviews is complete: ")
    succeeded, failed = desk.ids(), desk.ids("--errors")
    assert failed
    assert desk.ids("--all") == ids
    assert sorted(succeeded + failed) == sorted(ids)
    records = desk.status()["records"]
    assert (records["succeeded"], records["failed"]) == (len(succeeded), len(failed))
    assert (desk.folder / ".headrace/output/default/reviews/manifest.json").exists()


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(
            {"inline": [{"custom_id": f"r{n}", "text": "x"} for n in range(20)], "format": "jsonl"}, id="inline"
        ),
        pytest.param({"configMapRef": {"name": "records"}, "format": "jsonl"}, id="in a ConfigMap"),
        pytest.param({"uri": "folder/*.jsonl", "format": "jsonl"}, id="in the files of a glob"),
    ],
)
def test_run_takes_its_input_from_wherever_it_is(desk: Desk, given: dict[str, Any]) -> None:
    desk.write(20, input=given, shards=2)
    lines = (desk.folder / "in.jsonl").read_text()
    data = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "records"}, "data": {"a.jsonl": lines}}
    (desk.folder / "map.json").write_text(json.dumps(data))
    (desk.folder / "folder").mkdir()
    (desk.folder / "folder" / "a.jsonl").write_text(lines)
    assert desk.do("run", "-f", "reviews.yaml", "-f", "map.json")[0] == 0
    assert desk.ids() == [f"r{number}" for number in range(20)]


def test_run_refuses_bad_records_by_their_lines_and_takes_the_mended_file(desk: Desk) -> None:
    ids = desk.write(50, shards=2)
    good = (desk.folder / "in.jsonl").read_text()
    (desk.folder / "in.jsonl").write_text(good.replace('{"custom_id": "r7",', "{r7,").replace('"r9"', '"r8"'))
    code, out, err = desk.do("run", "-f", "reviews.yaml", "-q", "-o", "json")
    assert (code, err) == (2, "")
    assert [error["line"] for error in json.loads(out)["error"]["errors"]] == [8, 10]
    (desk.folder / "in.jsonl").write_text(good)
    assert desk.do("run", "-f", "reviews.yaml")[0] == 0
    assert desk.ids() == ids


def test_run_survives_records_that_kill_their_worker(desk: Desk) -> None:
    ids = desk.write(
        60, shards=2, parallelism=2, engine=mock(crashPercent=5), failurePolicy={"backoffLimitPerIndex": 50}
    )
    assert desk.do("run", "-f", "reviews.yaml")[0] == 0
    assert desk.ids("--all") == ids


def test_cancel_gives_every_record_a_line(desk: Desk) -> None:
    ids = desk.write(4000, shards=4, parallelism=2, engine=mock(latencyMilliseconds=100), batching={"maxBatchSize": 2})
    running = desk.start("run", "-f", "reviews.yaml")
    eventually(partial(desk.is_under_way, running, 0))
    assert desk.do("cancel", "reviews")[0] == 0
    running.communicate()
    assert running.returncode == 1
    assert desk.status()["conditions"][-1]["reason"] == "Cancelled"
    assert desk.ids("--all") == ids
    assert desk.ids("--errors")
    assert desk.workers() == []


def test_interrupted_runs_go_on_where_they_stopped(desk: Desk) -> None:
    """An endpoint answers some records more in each run, fewer than a shard has, and holds the others back until the last."""
    gate = Gate()
    with endpoint_server(gate.answer) as server:
        ids = desk.write(400, shards=4, parallelism=2, engine=engine_settings(server))
        for _ in range(3):
            before = desk.journalled()
            running = desk.start("run", "-f", "reviews.yaml")
            gate.let(10)
            eventually(partial(desk.is_under_way, running, before))
            running.send_signal(signal.SIGINT)
            _, err = running.communicate()
            assert running.returncode == 130, err
            assert err.endswith("headrace: stopped; run the same command again to go on\n")
            assert desk.workers() == []
        done = desk.journalled()
        gate.open()
        assert desk.do("run", "-f", "reviews.yaml")[0] == 0
    assert 3 <= done <= 30
    assert desk.ids() == ids


KILLS, KILLS_OF_ONE_BATCH, RECORDS = 50, 17, 2000
LONGEST_LIFE_SECONDS = 1.0


@pytest.mark.slow
def test_run_that_is_killed_at_any_moment_answers_every_record_once(desk: Desk) -> None:
    """Fifty times kill -9 at a random moment, some three batches long; each new run goes on with what the killed one has left."""
    chance, kills = random.Random(20260115), 0
    work = {"engine": mock(latencyMilliseconds=30, errorPercent=2), "batching": {"maxBatchSize": 8}}
    ids = desk.write(RECORDS, shards=4, parallelism=2, **work)
    while kills < KILLS:
        kills += kill_again_and_again(desk, chance)
        assert desk.do("run", "-f", "reviews.yaml", "-q")[0] == 0
        assert desk.ids("--all") == ids
        records = desk.status()["records"]
        assert records["succeeded"] + records["failed"] == records["total"] == RECORDS
        eventually(lambda: not desk.workers())
        assert desk.do("delete", "reviews")[0] == 0


def kill_again_and_again(desk: Desk, chance: random.Random) -> int:
    """Run a batch and kill the command, some times; says how often it was still alive when it was killed.

    Every other time the clock starts with the first record that is done, so that kills land in the middle of the work too.
    """
    kills = 0
    for turn in range(KILLS_OF_ONE_BATCH):
        before = desk.journalled()
        running = desk.start("run", "-f", "reviews.yaml", "-q")
        if turn % 2:
            eventually(partial(desk.is_under_way, running, before))
        with suppress(subprocess.TimeoutExpired):
            running.wait(timeout=chance.uniform(0, LONGEST_LIFE_SECONDS))
        running.kill()
        _, err = running.communicate()
        assert "Traceback" not in err
        kills += running.returncode == -signal.SIGKILL
    return kills
