"""The worker's front door: what it is told, how it ends, what it says last, and what it shows while it runs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from cluster.processes import free_ports
from headrace.api.worker import (
    Env,
    ExitCode,
    FinalizeReport,
    PlanReport,
    Report,
    Role,
    ShardReport,
    WorkerConfig,
    parse_report,
)
from headrace_worker import main as front_door
from headrace_worker.config import load_config, load_surface, shard_index
from headrace_worker.drain import Drain
from headrace_worker.errors import CRASHED, Drained, JobFailed
from headrace_worker.metrics import Metrics, MetricsServer
from headrace_worker.stores.base import NoSpace, NotWritable
from laptop import eventually
from worker_rig import PYTHONPATH, Folder, Worker, WorkerProcess, Zygote, chat_line, worker_environment


def a_folder(path: Path, records: int = 10, **fields: object) -> Folder:
    folder = Folder(path, dict(fields))
    folder.write_input(*(chat_line(number) for number in range(records)))
    return folder


def slow_mock(milliseconds: int) -> dict[str, object]:
    return {"name": "mock", "mock": {"latencyMilliseconds": milliseconds}}


# the whole way


def test_main_plays_the_three_roles_one_after_the_other(tmp_path: Path, zygote: Zygote) -> None:
    folder = a_folder(tmp_path, 10, shards=2)
    planned, *runs, finalized = (
        zygote.run(folder, role, shard)
        for role, shard in [(Role.PLAN, 0), (Role.RUN, 0), (Role.RUN, 1), (Role.FINALIZE, 0)]
    )
    assert [worker.wait() for worker in (planned, *runs, finalized)] == [ExitCode.DONE] * 4
    assert isinstance(planned.report, PlanReport)
    assert (planned.report.records, planned.report.shards) == (10, 2)
    assert isinstance(runs[1].report, ShardReport)
    assert (runs[1].report.shard, runs[1].report.committed) == (1, True)
    assert isinstance(finalized.report, FinalizeReport)
    assert finalized.report.records.succeeded == 10
    assert sorted(line["custom_id"] for line in folder.lines("results")) == [f"r{i}" for i in range(10)]


def test_main_writes_the_batchs_manifest_with_the_last_shard(tmp_path: Path, zygote: Zygote) -> None:
    folder = a_folder(tmp_path, 10, shards=2)
    zygote.run(folder, Role.PLAN)
    zygote.run(folder, Role.RUN, 1)
    assert not (folder.output / "manifest.json").exists()
    zygote.run(folder, Role.RUN, 0)
    assert orjson.loads((folder.output / "manifest.json").read_bytes())["records"]["succeeded"] == 10


def test_main_run_twice_says_the_same_twice(tmp_path: Path, zygote: Zygote) -> None:
    folder = a_folder(tmp_path)
    zygote.run(folder, Role.PLAN)
    first, second = zygote.run(folder, Role.RUN).report, zygote.run(folder, Role.RUN).report
    assert isinstance(first, ShardReport)
    of_nobody = {"seconds": 0, "first_record_time": None}
    assert second == first.model_copy(update=of_nobody), "but for the times: the second found it done"
    assert first.committed


def test_main_plan_reports_bad_lines_and_ends_well(tmp_path: Path, zygote: Zygote) -> None:
    folder = Folder(tmp_path, {"model": {"name": "mock", "contextTokens": 8}})
    folder.write_input(chat_line(0), b"{}\n", chat_line(2, "too long " * 40))
    worker = zygote.run(folder, Role.PLAN)
    assert worker.wait() == ExitCode.DONE
    assert isinstance(worker.report, PlanReport)
    found = [(problem.line, problem.code) for problem in worker.report.errors]
    assert found == [(2, "missing_custom_id"), (3, "context_length_exceeded")]


def test_main_needs_no_torch_for_the_mock_engine() -> None:
    code = "import sys, headrace_worker.main, headrace_worker.engines.mock; print('torch' in sys.modules)"
    said = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": PYTHONPATH}, capture_output=True, check=True
    )
    assert said.stdout == b"False\n"


# bad configuration


@pytest.mark.parametrize(
    ("told", "message"),
    [
        pytest.param(None, "HEADRACE_CONFIG must be set", id="nothing"),
        pytest.param("{", "HEADRACE_CONFIG must be JSON; line 1 column", id="half an object"),
        pytest.param("[" * 100_000, "HEADRACE_CONFIG must be JSON", id="a hundred thousand brackets"),
        pytest.param("[]", "HEADRACE_CONFIG must be a JSON object", id="a list"),
        pytest.param('{"shards": "3"}', 'shards: must be an integer, not "3"', id="a wrong type"),
        pytest.param('{"colour": 3}', "colour: unknown field", id="a field that there is not"),
        pytest.param("{}", "batch: required", id="a field that is missing"),
        pytest.param('{"engine": {"name": "abacus"}}', "engine.name: must be 'transformers'", id="an unknown engine"),
    ],
)
def test_load_config_names_what_is_wrong(told: str | None, message: str) -> None:
    with pytest.raises(JobFailed) as refused:
        load_config({} if told is None else {Env.CONFIG: told})
    assert refused.value.failure.reason == "BadConfig"
    assert message in refused.value.failure.message


def test_load_config_refuses_an_output_that_is_a_pattern(tmp_path: Path) -> None:
    folder = a_folder(tmp_path, outputUri="file:///out/*/")
    with pytest.raises(JobFailed, match="BadConfig: HEADRACE_CONFIG: outputUri must name one folder"):
        load_config({Env.CONFIG: folder.config_json().decode()})


@pytest.mark.parametrize("wrong", ["", "-1", "one", "1.5", "10000", "٣"])
def test_shard_index_that_is_no_number_is_refused(wrong: str) -> None:
    with pytest.raises(JobFailed, match="JOB_COMPLETION_INDEX must be a whole number from 0 to 9999"):
        shard_index({Env.SHARD: wrong})


def test_shard_index_of_a_retry_stands_for_one_of_its_shards() -> None:
    assert [shard_index({Env.SHARD: str(index)}, "1,4-5") for index in range(3)] == [1, 4, 5]
    with pytest.raises(JobFailed, match="JOB_COMPLETION_INDEX is 3: there are not so many shards in 1,4-5"):
        shard_index({Env.SHARD: "3"}, "1,4-5")


def test_load_surface_with_a_port_that_is_none_is_refused() -> None:
    with pytest.raises(JobFailed, match="HEADRACE_METRICS_PORT must be a whole number from 0 to 65535, not '65536'"):
        load_surface({Env.METRICS_PORT: "65536"})


def failure_of(worker: Worker) -> tuple[int, str, str]:
    report: Report | None = worker.report
    assert report is not None
    assert report.failure is not None
    assert "Traceback" not in worker.log
    return worker.wait(), report.failure.reason, report.failure.message


def test_main_with_a_bad_configuration_says_so(tmp_path: Path, zygote: Zygote) -> None:
    worker = zygote.run(a_folder(tmp_path, shards=0), Role.RUN)
    code, reason, message = failure_of(worker)
    assert (code, reason) == (ExitCode.JOB_FAILED, "BadConfig")
    assert "shards: must be greater than or equal to 1, not 0" in message
    assert isinstance(worker.report, ShardReport)


def test_main_without_a_plan_says_so(tmp_path: Path, zygote: Zygote) -> None:
    code, reason, message = failure_of(zygote.run(a_folder(tmp_path), Role.RUN))
    assert (code, reason) == (ExitCode.JOB_FAILED, "PlanMissing")
    assert "plan.jsonl" in message


def test_main_with_an_output_that_cannot_be_written_says_so(tmp_path: Path, zygote: Zygote) -> None:
    folder = a_folder(tmp_path)
    (tmp_path / "out").write_text("a file where a folder must be")
    code, reason, message = failure_of(zygote.run(folder, Role.PLAN))
    assert (code, reason) == (ExitCode.JOB_FAILED, "OutputNotWritable")
    assert "output.uri" in message


def test_main_that_cannot_write_its_report_says_so_and_does_its_work(tmp_path: Path, zygote: Zygote) -> None:
    folder = a_folder(tmp_path)
    worker = zygote.run(folder, Role.PLAN, env={Env.TERMINATION_LOG.value: "/nowhere/at/all"})
    assert worker.wait() == ExitCode.DONE
    assert "the report cannot be written to /nowhere/at/all (No such file or directory)" in worker.log


# in this process


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A valid environment for `main` in this process; the termination log. Signals are as before in the end."""
    for name, value in worker_environment(a_folder(tmp_path)).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(Env.TERMINATION_LOG, str(tmp_path / "said"))
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield tmp_path / "said"
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    "argv", [[], ["dance"], ["run", "faster"]], ids=["no role", "an unknown role", "too many words"]
)
def test_main_with_a_wrong_command_line_says_so(told: Path, argv: list[str]) -> None:
    assert front_door.main(argv) == ExitCode.JOB_FAILED
    report = parse_report(told.read_bytes())
    assert report is not None
    assert report.failure is not None
    assert report.failure.message.startswith("command line:")


def test_main_that_meets_a_bug_tells_of_it(
    told: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_: WorkerConfig) -> None:
        raise ZeroDivisionError("by nought")

    monkeypatch.setattr(front_door, "finalize", broken)
    assert front_door.main(["finalize"]) == CRASHED
    report = parse_report(told.read_bytes())
    assert report is not None
    assert report.failure is not None
    assert (report.failure.reason, report.failure.message) == ("WorkerCrashed", "ZeroDivisionError: by nought")
    assert "Traceback" in capsys.readouterr().err


def test_main_that_is_told_to_stop_while_it_plans_ends_at_once(told: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("planning went on after the signal")

    monkeypatch.setattr(front_door, "plan", endless)
    assert front_door.main(["plan"]) == ExitCode.DRAINED
    report = parse_report(told.read_bytes())
    assert isinstance(report, PlanReport)
    assert report.failure is None


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        pytest.param(NoSpace("file:///out is full: make room"), "OutputFull", id="a full disk"),
        pytest.param(NotWritable("file:///out cannot be written"), "OutputNotWritable", id="a read-only disk"),
    ],
)
def test_main_run_that_cannot_write_says_why(
    told: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    def refused(*_: object) -> None:
        raise error

    assert front_door.main(["plan"]) == ExitCode.DONE
    monkeypatch.setattr(front_door, "run_shard", refused)
    assert front_door.main(["run"]) == ExitCode.JOB_FAILED
    report = parse_report(told.read_bytes())
    assert report is not None
    assert report.failure is not None
    assert (report.failure.reason, report.failure.message) == (reason, str(error))


# told to stop


def test_interrupting_raises_a_request_that_came_before() -> None:
    drain = Drain()
    drain.request()
    with pytest.raises(Drained), drain.interrupting():
        pytest.fail("the block was entered")


def test_request_outside_interrupting_is_only_noted() -> None:
    drain = Drain()
    with drain.interrupting():
        assert not drain.requested
    drain.request()
    drain.request()
    assert drain.requested


def test_wait_ends_with_a_request() -> None:
    drain = Drain()
    assert not drain.wait(0.0)
    drain.request()
    assert drain.wait(3600.0)
    assert drain.wait(3600.0)


# what it shows


def fetch(port: int, path: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=180) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_main_shows_its_progress_until_its_standard_input_ends(tmp_path: Path, zygote: Zygote) -> None:
    folder = a_folder(tmp_path, 2000, engine=slow_mock(300), batching={"maxBatchSize": 1})
    zygote.run(folder, Role.PLAN)
    port_file = tmp_path / "port"
    env = {Env.METRICS_PORT: "0", Env.METRICS_PORT_FILE: str(port_file), Env.DRAIN_ON_EOF: "1"}
    worker = WorkerProcess(folder, Role.RUN, env={name.value: value for name, value in env.items()})
    eventually(lambda: port_file.exists() or worker.ended())
    assert port_file.exists(), worker.log
    port = int(port_file.read_text())
    seen = ShardReport(shard=0)
    while seen.records.succeeded == 0:
        status, body = fetch(port, "/progress")
        report = parse_report(body)
        assert status == 200
        assert isinstance(report, ShardReport)
        seen = report
    status, metrics = fetch(port, "/metrics")
    assert status == 200
    assert b'headrace_worker_records_total{outcome="succeeded"}' in metrics
    assert fetch(port, "/secret")[0] == 404
    assert worker.wait() == ExitCode.DRAINED  # waiting closes its standard input
    assert isinstance(worker.report, ShardReport)
    assert worker.report.records.succeeded >= seen.records.succeeded
    assert (seen.attempt, seen.committed, seen.records.total) == (1, False, 2000)


def test_metrics_server_on_a_port_that_is_taken_says_so() -> None:
    with socket.socket() as other:
        other.bind(("0.0.0.0", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(JobFailed, match=f"HEADRACE_METRICS_PORT: cannot listen on port {port}"):
            MetricsServer(port, Metrics(), PlanReport)


def test_metrics_server_on_a_given_port_is_reached() -> None:
    (port,) = free_ports(1)
    server = MetricsServer(port, Metrics(), lambda: PlanReport(records=7))
    try:
        assert orjson.loads(fetch(port, "/progress")[1])["records"] == 7
    finally:
        server.close()
