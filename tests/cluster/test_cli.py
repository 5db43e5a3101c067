"""The command line against a real control plane: the words, the lines and the exit codes that it has on one machine."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from builders import BatchBuilder, a_batch
from fanout_builders import FanOutBuilder, a_fan_out
from headrace.api.window import DataWindow
from headrace.api.worker import ExitCode, Failure, Role
from headrace.cli import main
from headrace.shells.kube import reader
from headrace.shells.kube.resources import BATCHES, BULKHEADS, FAN_OUTS, JOBS, PODS, SCHEDULES
from schedule_builders import a_schedule

from .kubectl import write_kubeconfig_for_token
from .operator_rig import RECORDS, Rig, fan_out_manifest, manifest, plane, rig
from .operator_workers import Fate
from .proxy import Call, Forward, answer, any_call, calls_to, write_kubeconfig

__all__ = ["plane", "rig"]
pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("operator")]

INLINE = a_batch().inline(*RECORDS).sharded(4)
CONTEXT = "headrace-test"


@dataclass(frozen=True)
class Answer:
    """What a command has said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its answer as JSON."""
        return json.loads(self.out)


@dataclass(frozen=True)
class Desk:
    """A working directory, from which commands go to one namespace of a cluster."""

    rig: Rig
    folder: Path
    capsys: pytest.CaptureFixture[str]
    kubeconfig: Path

    @property
    def flags(self) -> list[str]:
        """What every command needs."""
        return ["--kubeconfig", str(self.kubeconfig), "-n", self.rig.namespace]

    @property
    def hint(self) -> str:
        """How a command that is to be pasted names the batch."""
        return f"reviews -n {self.rig.namespace} --kubeconfig {self.kubeconfig}"

    def do(self, *words: str, flags: list[str] | None = None) -> Answer:
        """Run a command in this process."""
        self.capsys.readouterr()
        code = main([*words, *(self.flags if flags is None else flags)])
        said = self.capsys.readouterr()
        return Answer(code, said.out, said.err)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """A command in a process of its own."""
        command = [sys.executable, "-m", "headrace", *words, *self.flags]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=self.folder)

    def write(self, batch: BatchBuilder, file: str = "reviews.yaml") -> str:
        """A manifest."""
        (self.folder / file).write_text(yaml.safe_dump(manifest(batch), sort_keys=False))
        return file


@pytest.fixture
def desk(rig: Rig, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Desk:
    """A manifest `reviews.yaml`, and no operator yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2] / "operator"))
    rig.script.shards = 4
    made = Desk(rig, tmp_path, capsys, rig.plane.cluster.kubeconfig)
    made.write(INLINE)
    return made


@pytest.fixture
def operated(desk: Desk) -> Desk:
    """The same, with an operator."""
    desk.rig.operator().start().wait_ready()
    return desk


def test_run_submits_and_looks_on_to_the_end(operated: Desk) -> None:
    done = operated.do("run", "-f", "reviews.yaml")
    assert (done.code, done.err.splitlines()[0]) == (0, "reviews: created")
    assert "reviews: InputValid: 10 records in 4 shards" in done.err.splitlines()
    assert "reviews: RecordsProcessed: 10 of 10 records succeeded, 0 failed" in done.err.splitlines()
    assert done.out.startswith("reviews is complete: 10 of 10 records succeeded\n")
    assert f"  results: headrace results {operated.hint}" in done.out.splitlines()
    again = operated.do("run", "-f", "reviews.yaml", "-o", "json")
    assert (again.code, again.json["status"]["records"]["succeeded"]) == (0, 10)
    assert again.err.startswith("reviews has finished already")
    owners = {entry["manager"] for entry in operated.rig.get(BATCHES, "reviews")["metadata"]["managedFields"]}
    assert owners == {"headrace-cli", "headrace-operator"}


def test_run_of_a_batch_that_fails_says_where_the_log_is(operated: Desk) -> None:
    no_model = Fate(exit_code=ExitCode.JOB_FAILED, failure=Failure(reason="NoModel", message="no such model"))
    operated.rig.script.fate = lambda _: no_model
    failed = operated.do("run", "-f", "reviews.yaml")
    assert failed.code == 1
    assert "reviews failed: WorkerFailed: NoModel: no such model" in failed.out
    assert "  log of the worker: kubectl logs reviews-run-" in failed.out
    assert f"  when that is mended: headrace retry {operated.hint}" in failed.out.splitlines()
    operated.rig.script.fate = lambda _: Fate()
    told = operated.do("retry", "reviews")
    look = f"look on with: headrace get {operated.hint} --watch"
    assert (told.code, told.out) == (0, f"reviews goes on: the operator sees to it; {look}\n")
    operated.rig.until_state("Complete")
    refused = operated.do("retry", "reviews")
    assert (refused.code, refused.err) == (1, "headrace: reviews is complete: there is nothing to retry\n")


def test_run_that_is_interrupted_leaves_the_batch_at_work(operated: Desk) -> None:
    operated.rig.script.fate = lambda _: Fate(waits=True)
    started = operated.start("run", "-f", "reviews.yaml")
    operated.rig.until_at_work(4)
    started.send_signal(signal.SIGINT)
    _, said = started.communicate()
    assert started.returncode == 130
    assert said.splitlines()[-1] == (
        f"headrace: reviews goes on in the cluster; look on with `headrace get {operated.hint} --watch`, "
        f"end it with `headrace cancel {operated.hint}`"
    )
    operated.rig.script.let_go()
    operated.rig.until_state("Complete")
    assert operated.do("run", "-f", "reviews.yaml").code == 0


def test_run_refuses_what_cannot_change(operated: Desk) -> None:
    operated.do("run", "-f", "reviews.yaml", "-q")
    operated.write(INLINE.with_spec(shards=5))
    refused = operated.do("run", "-f", "reviews.yaml")
    assert refused.code == 2
    assert "spec.shards: cannot be changed: reviews was created with another value\n" in refused.err
    assert refused.err.endswith("\nChoose a new metadata.name.\n")
    replaced = operated.do("run", "-f", "reviews.yaml", "--replace")
    assert replaced.code == 2
    assert "spec.output.uri: the output at file:///out/" in replaced.err
    operated.write(INLINE.with_spec(shards=5, output={"uri": "file:///elsewhere"}))
    started_over = operated.do("run", "-f", "reviews.yaml", "--replace")
    assert (started_over.code, started_over.err.splitlines()[0]) == (0, "reviews: started over")


def test_run_of_what_may_change_is_a_new_generation(operated: Desk) -> None:
    operated.do("run", "-f", "reviews.yaml", "-q")
    operated.write(INLINE.with_spec(parallelism=2))
    operated.do("run", "-f", "reviews.yaml", "-q")
    assert operated.do("get", "reviews", "-o", "json").json["metadata"]["generation"] == 2


def test_run_keeps_config_maps(desk: Desk) -> None:
    text = "{apiVersion: v1, kind: ConfigMap, metadata: {name: records}, data: {a.jsonl: x}}"
    (desk.folder / "map.yaml").write_text(text)
    kept = desk.do("run", "-f", "map.yaml", "-o", "json")
    assert kept.json == {"configMaps": [{"namespace": desk.rig.namespace, "name": "records"}]}
    found = desk.rig.kubectl.get("configmap", "records", "--namespace", desk.rig.namespace)
    assert found["data"] == {"a.jsonl": "x"}


def test_run_of_several_submits_all_before_it_waits(desk: Desk) -> None:
    desk.write(BatchBuilder("other", INLINE.spec), "other.yaml")
    started = desk.start("run", "-f", "reviews.yaml", "-f", "other.yaml")
    desk.rig.eventually(lambda: len(desk.rig.all(BATCHES)) == 2, "both batches")
    started.send_signal(signal.SIGTERM)
    _, said = started.communicate()
    assert started.returncode == 143
    assert [line.split()[0] for line in said.splitlines()[-2:]] == ["headrace:", "other"]


def test_get_in_all_forms(operated: Desk) -> None:
    assert operated.do("get").err == f"no InferenceBatch in the namespace {operated.rig.namespace}\n"
    operated.do("run", "-f", "reviews.yaml", "-q")
    for words in (["get"], ["get", "ib"], ["get", "ib/reviews"], ["get", "inferencebatches", "reviews"]):
        head, row = operated.do(*words).out.splitlines()
        assert head.split() == ["NAME", "STATE", "PROGRESS", "FAILED", "FILL", "ETA", "AGE"]
        assert row.split()[:4] == ["reviews", "Complete", "10/10", "0"]
    assert operated.do("get", "-o", "name").out == "inferencebatch.headrace.dev/reviews\n"
    assert "OUTPUT" in operated.do("get", "-o", "wide").out
    assert yaml.safe_load(operated.do("get", "reviews", "-o", "yaml").out)["metadata"]["name"] == "reviews"
    assert [item["metadata"]["name"] for item in operated.do("get", "-o", "json").json["items"]] == ["reviews"]
    rows = operated.do("get", "-A").out.splitlines()
    assert rows[0].split()[:2] == ["NAMESPACE", "NAME"]
    assert [operated.rig.namespace, "reviews"] in [row.split()[:2] for row in rows]


def test_get_and_watch_shows_what_changes(operated: Desk) -> None:
    operated.rig.script.fate = lambda _: Fate(waits=True)
    operated.rig.submit(INLINE)
    operated.rig.until_state("Running")
    started = operated.start("get", "reviews", "--watch")
    assert started.stdout is not None
    assert started.stdout.readline().split()[:2] == ["NAME", "STATE"]
    assert started.stdout.readline().split()[:3] == ["reviews", "Running", "0/10"]
    operated.rig.script.let_go()
    shown = ""
    while "Complete" not in shown:
        shown = started.stdout.readline()
    assert shown.split()[:3] == ["reviews", "Complete", "10/10"]
    operated.do("delete", "reviews")
    while "Complete" in shown:
        shown = started.stdout.readline()
    assert shown.split()[:2] == ["reviews", "Deleted"]
    started.send_signal(signal.SIGINT)
    _, said = started.communicate()
    assert (started.returncode, said) == (130, "")


def test_get_and_watch_as_json_is_a_line_a_change(desk: Desk) -> None:
    desk.rig.submit(INLINE)
    started = desk.start("get", "-o", "json", "-w")
    assert started.stdout is not None
    assert json.loads(started.stdout.readline())["spec"]["suspend"] is False
    desk.rig.edit(suspend=True)
    assert json.loads(started.stdout.readline())["spec"]["suspend"] is True
    started.terminate()
    started.communicate()


def test_suspend_resume_and_cancel_are_left_to_the_operator(operated: Desk) -> None:
    operated.rig.script.fate = lambda pod: Fate(waits=pod.role == Role.RUN)
    operated.rig.submit(INLINE)
    operated.rig.until_at_work(4)
    suspended = operated.do("suspend", "reviews")
    assert suspended.out.startswith("reviews puts its work away: the operator sees to it; look on with: headrace get")
    operated.rig.until_state("Suspended")
    assert operated.do("resume", "reviews", "-o", "json").json["spec"]["suspend"] is False
    operated.rig.until_at_work(4)
    assert operated.do("cancel", "reviews").out.startswith("reviews ends: the operator sees to it")
    operated.rig.until_state("Cancelled")
    late = operated.do("suspend", "reviews")
    assert (late.code, late.err) == (1, "headrace: reviews has failed already: nothing is left to be changed\n")


def test_delete_says_that_the_output_stays(operated: Desk) -> None:
    operated.do("run", "-f", "reviews.yaml", "-q")
    deleted = operated.do("delete", "reviews")
    kept = f"file:///out/{operated.rig.namespace}/reviews/"
    assert (deleted.code, deleted.out) == (0, f"reviews is deleted; its output stays at {kept}\n")
    operated.rig.eventually(lambda: not operated.rig.all(JOBS), "its Jobs gone")


def test_plan_says_what_the_core_and_the_server_say(desk: Desk) -> None:
    fine = desk.do("plan", "-f", "reviews.yaml")
    assert (fine.code, fine.out.splitlines()[0]) == (0, "reviews: 10 records")
    assert desk.rig.all(BATCHES) == [], "nothing was submitted"
    desk.rig.submit(INLINE)
    desk.write(INLINE.with_spec(shards=7, input={**INLINE.spec["input"], "prompt": {"template": "{{ x"}}))
    blocked = desk.do("plan", "-f", "reviews.yaml", "-o", "json").json["blockedBy"]
    assert any("spec.input.prompt.template" in reason for reason in blocked)
    assert any("shards cannot be changed once the batch exists" in reason for reason in blocked), blocked
    assert desk.do("plan", "-f", "reviews.yaml").code == 2


def test_plan_says_whether_it_would_be_admitted_now(desk: Desk) -> None:
    name = desk.rig.namespace
    head = {"apiVersion": BULKHEADS.api_version, "kind": BULKHEADS.kind, "metadata": {"name": name}}
    desk.write(INLINE.with_spec(bulkheadName=name))
    unknown = desk.do("plan", "-f", "reviews.yaml")
    assert unknown.code == 2
    assert f"UnknownBulkhead: there is no Bulkhead {name}: create it" in unknown.out
    desk.rig.create(BULKHEADS, {**head, "spec": {"capacity": {"pods": 8}}})
    fine = desk.do("plan", "-f", "reviews.yaml")
    assert (fine.code, fine.out.splitlines()[-1]) == (0, "  would be admitted now: no limit stands in the way")
    desk.rig.change(BULKHEADS, name, {"spec": {"capacity": {"startsPerMinute": 1, "pods": 2}}})
    small = desk.do("plan", "-f", "reviews.yaml", "-o", "json").json["verdict"]
    assert (small["admitted"], small["pods"]) == (True, 2)
    desk.write(INLINE.with_spec(bulkheadName=name, queueName="team-a"))
    queued = desk.do("plan", "-f", "reviews.yaml")
    assert "LocalQueue team-a of Kueue decides when it starts" in queued.out
    desk.rig.delete(BULKHEADS, name)


def test_get_bulkheads(desk: Desk) -> None:
    name = desk.rig.namespace
    head = {"apiVersion": BULKHEADS.api_version, "kind": BULKHEADS.kind, "metadata": {"name": name}}
    desk.rig.create(BULKHEADS, {**head, "spec": {"capacity": {"gpus": 8}}})
    header, row = desk.do("get", "bh", name).out.splitlines()
    assert (header.split()[:3], row.split()[0]) == (["NAME", "GPUS", "PODS"], name)
    assert desk.do("get", "bh", name, "-o", "json").json["spec"]["capacity"] == {"gpus": 8}
    assert f"bulkhead.headrace.dev/{name}" in desk.do("get", "bulkheads", "-o", "name").out.splitlines()
    assert desk.do("get", "bh", "nosuch").err == "headrace: there is no Bulkhead nosuch\n"
    assert desk.do("get", "bh", "--watch").code == 2
    desk.rig.delete(BULKHEADS, name)


def test_get_schedules(desk: Desk) -> None:
    desk.rig.create(SCHEDULES, a_schedule("30 6 * * *", "daily").manifest)
    header, row = desk.do("get", "sg").out.splitlines()
    assert header.split() == ["NAME", "SCHEDULE", "ZONE", "STATE", "ACTIVE", "NEXT", "LAST", "DRIFT", "AGE"]
    assert row.split()[:7] == ["daily", "30", "6", "*", "*", "*", "Etc/UTC"]
    assert desk.do("get", "sg/daily", "-o", "json").json["spec"]["schedule"] == "30 6 * * *"
    assert desk.do("get", "sg", "daily", "-o", "name").out == "scheduledgeneration.headrace.dev/daily\n"
    assert desk.do("get", "sg", "nosuch").err == "headrace: there is no ScheduledGeneration nosuch\n"
    desk.rig.delete(SCHEDULES, "daily")


def test_backfill_runs_each_past_tick_once_the_oldest_first_and_with_its_own_window(operated: Desk) -> None:
    wanted = a_schedule("0 * * * *", "hourly").of_batch(**INLINE.spec)
    (operated.folder / "hourly.yaml").write_text(yaml.safe_dump(wanted.manifest, sort_keys=False))
    command = ("backfill", "-f", "hourly.yaml", "--from", "2026-01-15T12:00Z", "--to", "2026-01-15T15:00Z")
    done = operated.do(*command)
    assert done.code == 0, done.err
    times = [datetime(2026, 1, 15, hour, tzinfo=UTC) for hour in (12, 13, 14)]
    names = [f"hourly-{int(time.timestamp()) // 60}" for time in times]
    runs = {run["metadata"]["name"]: run for run in operated.rig.all(BATCHES)}
    assert sorted(runs) == names
    assert [line.split(":")[0] for line in done.err.splitlines() if line.endswith(": created")] == names
    windows = [DataWindow.parse(runs[name]["spec"]["input"]["window"]) for name in names]
    assert [(it.start_time, it.end_time) for it in windows] == [(time - timedelta(hours=1), time) for time in times]
    for before, after in pairwise(names):
        assert runs[before]["status"]["completionTime"] <= runs[after]["metadata"]["creationTimestamp"]
    again = operated.do(*command)
    assert (again.code, again.err.splitlines()) == (0, [f"{name} is there already: Complete" for name in names])
    assert {run["metadata"]["uid"] for run in operated.rig.all(BATCHES)} == {
        it["metadata"]["uid"] for it in runs.values()
    }


def test_plan_of_a_path_of_this_machine_names_the_line(desk: Desk) -> None:
    desk.write(a_batch().with_spec(input={"uri": "in.jsonl"}))
    refused = desk.do("plan", "-f", "reviews.yaml")
    assert refused.code == 2
    assert refused.err.startswith("headrace: reviews.yaml:11: InferenceBatch reviews: spec.input.uri: ")
    assert '"in.jsonl" is a path on this machine, which no pod can see' in refused.err


def test_results_of_a_cluster_without_nodes_says_why_and_leaves_nothing(
    operated: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "START_SECONDS", 1.0)
    operated.do("run", "-f", "reviews.yaml", "-q")
    said = operated.do("results", "reviews")
    assert said.code == 1
    assert said.err.startswith("headrace: the pod reviews-read-")
    assert "which was to read the output, has not started within " in said.err
    nodes = "0/1 nodes are available"  # as the scheduler says, once it has looked at a pod
    operated.rig.eventually(lambda: nodes in operated.do("results", "reviews").err, nodes)
    operated.rig.eventually(lambda: not _readers(operated.rig), "the reader gone")


def test_results_that_are_interrupted_leave_no_pod(operated: Desk) -> None:
    operated.do("run", "-f", "reviews.yaml", "-q")
    started = operated.start("results", "reviews")
    operated.rig.eventually(lambda: _readers(operated.rig), "the reader")
    started.send_signal(signal.SIGTERM)
    _, said = started.communicate()
    assert (started.returncode, said.splitlines()[-1]) == (143, "headrace: interrupted")
    operated.rig.eventually(lambda: not _readers(operated.rig), "the reader gone")


def test_reader_goes_with_its_batch(operated: Desk) -> None:
    """Whoever made it may have died without a word."""
    operated.do("run", "-f", "reviews.yaml", "-q")
    started = operated.start("results", "reviews")
    operated.rig.eventually(lambda: _readers(operated.rig), "the reader")
    started.kill()
    started.communicate()
    assert _readers(operated.rig), "nobody has taken it away yet"
    operated.rig.delete(BATCHES, "reviews")
    operated.rig.eventually(lambda: not _readers(operated.rig), "the reader gone")


def test_reader_passes_the_restricted_standard(operated: Desk) -> None:
    namespace = operated.rig.namespace
    operated.rig.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    operated.do("run", "-f", "reviews.yaml", "-q")
    started = operated.start("results", "reviews")
    operated.rig.eventually(lambda: _readers(operated.rig), "the reader")
    started.terminate()
    assert "forbidden" not in started.communicate()[1]


def test_results_without_a_job_left_need_the_image(operated: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEADRACE_WORKER_IMAGE", raising=False)
    monkeypatch.setattr(reader, "START_SECONDS", 1.0)
    assert operated.do("results", "nope").err.startswith("headrace: there is no InferenceBatch or FanOutJob nope")
    operated.do("run", "-f", "reviews.yaml", "-q")
    operated.rig.delete(JOBS, "reviews-run")
    operated.rig.eventually(lambda: not operated.rig.jobs(), "the Job gone")
    said = operated.do("results", "reviews")
    assert (said.code, "name it with --worker-image, or set HEADRACE_WORKER_IMAGE" in said.err) == (1, True)
    assert "has not started" in operated.do("results", "reviews", "--worker-image", "some/worker:1").err


FAN_OUT = a_fan_out("one", "two").with_spec(input={"inline": RECORDS, "format": "jsonl"})


def write_fan_out(desk: Desk, fan_out: FanOutBuilder = FAN_OUT) -> None:
    (desk.folder / "answers.yaml").write_text(yaml.safe_dump(fan_out_manifest(fan_out), sort_keys=False))


def test_run_of_a_fan_out_looks_on_to_the_end(operated: Desk) -> None:
    write_fan_out(operated)
    done = operated.do("run", "-f", "answers.yaml")
    assert (done.code, done.err.splitlines()[0]) == (0, "answers: created")
    assert "answers: RecordsJoined: 10 of 10 records have an answer" in done.err.splitlines()
    assert done.out.startswith("answers is complete: 10 of 10 records succeeded\n")
    _, row = operated.do("get", "fo").out.splitlines()
    assert row.split()[:6] == ["answers", "Complete", "20/20", "2", "2", "0"]
    assert operated.do("get", "answers", "-o", "json").json["kind"] == "FanOutJob"
    assert operated.do("get", "ib/answers").err == "headrace: there is no InferenceBatch answers: it is a FanOutJob\n"
    changed = FAN_OUT.with_spec(aggregation={"type": "vote"})
    write_fan_out(operated, changed)
    refused = operated.do("run", "-f", "answers.yaml")
    assert (refused.code, "spec.aggregation: cannot be changed" in refused.err) == (2, True), refused.err
    operated.do("delete", "answers")
    operated.rig.eventually(lambda: operated.do("get", "ib").out == "", "the branches gone")


def test_a_failed_fan_out_is_retried_and_cancelled_by_its_words(operated: Desk) -> None:
    failing = Fate(exit_code=ExitCode.JOB_FAILED, failure=Failure(reason="NoModel", message="no such model"))
    operated.rig.script.fate = lambda pod: failing if pod.config.batch.name == "answers-two" else Fate()
    write_fan_out(operated)
    failed = operated.do("run", "-f", "answers.yaml", "-q")
    assert (failed.code, "without two (WorkerFailed)" in failed.out) == (1, True), failed.out
    operated.rig.script.fate = lambda pod: Fate(waits=pod.role == Role.RUN)
    assert operated.do("retry", "answers").code == 0
    operated.rig.until_at_work(1)
    assert operated.do("cancel", "answers").code == 0
    operated.rig.eventually(lambda: operated.rig.state(FAN_OUTS, "answers") == "Cancelled", "cancelled")


def test_plan_of_a_fan_out_names_what_is_wrong_with_a_branch(desk: Desk) -> None:
    write_fan_out(desk, FAN_OUT.with_branch("two", when="size("))
    said = desk.do("plan", "-f", "answers.yaml")
    assert (said.code, "spec.branches[1].when: is not an expression in CEL" in said.out) == (2, True), said.out


async def not_found_page(_: Call, __: Forward) -> web.StreamResponse:
    """As an API server answers for a path that it has never heard of."""
    return web.Response(text="404 page not found\n", status=404)


def _readers(rig: Rig) -> list[Any]:
    return [
        pod
        for pod in rig.all(PODS)
        if "-read-" in pod["metadata"]["name"] and "deletionTimestamp" not in pod["metadata"]
    ]


@pytest.mark.parametrize(
    "words",
    [
        ["get", "nope"],
        ["get", "nope", "-w"],
        ["results", "nope"],
        ["cancel", "nope"],
        ["suspend", "nope"],
        ["resume", "nope"],
        ["retry", "nope"],
        ["delete", "nope"],
    ],
    ids=" ".join,
)
def test_what_is_not_there_is_named_as_on_one_machine(desk: Desk, words: list[str]) -> None:
    said = desk.do(*words)
    expected = f"headrace: there is no InferenceBatch or FanOutJob nope in the namespace {desk.rig.namespace}\n"
    assert (said.code, said.out, said.err) == (1, "", expected)
    if "-w" not in words:
        assert desk.do(*words, "-o", "json").json["error"]["reason"] == "NotFound"


WORDS = [
    ["get"],
    ["get", "reviews"],
    ["run", "-f", "reviews.yaml"],
    ["plan", "-f", "reviews.yaml"],
    ["cancel", "reviews"],
]


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_no_such_context(desk: Desk, words: list[str]) -> None:
    kubeconfig = ["--kubeconfig", str(desk.kubeconfig)]
    said = desk.do(*words, flags=[*kubeconfig, "--context", "nope"])
    assert (said.code, said.out) == (2, "")
    assert said.err == f'headrace: there is no context "nope" in {desk.kubeconfig}; it has {CONTEXT}\n'


def test_context_alone_is_looked_up_where_kubeconfig_says(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(desk.kubeconfig))
    desk.rig.submit(INLINE)
    flags = ["--context", CONTEXT, "-n", desk.rig.namespace]
    assert desk.do("get", "-o", "name", flags=flags).out == "inferencebatch.headrace.dev/reviews\n"
    told = desk.do("suspend", "reviews", flags=flags).out
    assert f"headrace get reviews -n {desk.rig.namespace} --context {CONTEXT} --watch" in told


def test_namespace_is_that_of_the_context(desk: Desk) -> None:
    config = yaml.safe_load(desk.kubeconfig.read_text())
    config["contexts"][0]["context"]["namespace"] = desk.rig.namespace
    own = desk.folder / "own.conf"
    own.write_text(yaml.safe_dump(config))
    started = subprocess.Popen(
        [sys.executable, "-m", "headrace", "run", "-f", "reviews.yaml", "--kubeconfig", "own.conf"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    desk.rig.eventually(lambda: desk.rig.all(BATCHES), "the batch, in that namespace")
    started.terminate()
    assert "`headrace cancel reviews --kubeconfig own.conf`" in started.communicate()[1]
    assert desk.do("get", "-o", "name", flags=["--kubeconfig", "own.conf"]).out.endswith("/reviews\n")


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_unreachable_server(desk: Desk, words: list[str]) -> None:
    nowhere = write_kubeconfig(desk.folder / "nowhere.conf", "http://127.0.0.1:1")
    said = desk.do(*words, flags=["--kubeconfig", str(nowhere)])
    assert (said.code, said.out) == (1, "")
    assert "does not answer at http://127.0.0.1:1: " in said.err
    assert said.err.endswith("check that it runs and that you can reach it, or choose another --context\n")


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_forbidden(desk: Desk, words: list[str]) -> None:
    name = desk.rig.namespace
    desk.rig.kubectl("create", "serviceaccount", "nobody", "--namespace", name)
    token = desk.rig.kubectl("create", "token", "nobody", "--namespace", name).strip()
    write_kubeconfig_for_token(desk.folder / "nobody.conf", desk.rig.kubectl, token, name)
    said = desk.do(*words, flags=["--kubeconfig", str(desk.folder / "nobody.conf")])
    assert (said.code, said.out) == (1, "")
    assert f"the cluster of the context {CONTEXT} does not let you: inferencebatches.headrace.dev" in said.err
    assert f'system:serviceaccount:{name}:nobody" cannot' in said.err
    assert said.err.endswith(": ask whoever runs it for that right\n")


def test_unknown_user(desk: Desk) -> None:
    write_kubeconfig_for_token(desk.folder / "old.conf", desk.rig.kubectl, "an-old-token", "default")
    said = desk.do("get", flags=["--kubeconfig", "old.conf"])
    assert said.code == 1
    assert said.err.endswith("does not know who you are: log in to it again, or choose another --context\n")


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_crds_that_are_not_installed(desk: Desk, words: list[str]) -> None:
    bare = write_kubeconfig(desk.folder / "bare.conf", desk.rig.url)
    desk.rig.proxy.on(calls_to("inferencebatches"), not_found_page)
    said = desk.do(*words, flags=["--kubeconfig", str(bare)])
    assert (said.code, said.out) == (1, "")
    assert (
        "knows no headrace.dev objects: install them with `headrace crds | kubectl apply --server-side -f -`"
        in said.err
    )


def test_namespace_that_is_not_there(desk: Desk) -> None:
    said = desk.do("run", "-f", "reviews.yaml", flags=["--kubeconfig", str(desk.kubeconfig), "-n", "nowhere"])
    assert said.code == 1
    assert 'namespaces "nowhere" not found' in said.err


def test_following_survives_a_server_that_is_away_for_a_moment(operated: Desk) -> None:
    operated.rig.script.fate = lambda _: Fate(waits=True)
    proxy, url = operated.rig.another_proxy()
    shaky = write_kubeconfig(operated.folder / "shaky.conf", url)
    command = ["run", "-f", "reviews.yaml", "--kubeconfig", str(shaky), "-n", operated.rig.namespace]
    started = subprocess.Popen(
        [sys.executable, "-m", "headrace", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    operated.rig.until_at_work(4)
    operated.rig.eventually(lambda: proxy.watches, "its watch")
    proxy.on(any_call, answer(503, "ServiceUnavailable"), times=3)
    for stream in list(proxy.watches):
        operated.rig.run(stream.expire())
    operated.rig.script.let_go()
    out, _ = started.communicate()
    assert started.returncode == 0
    assert out.startswith("reviews is complete")
