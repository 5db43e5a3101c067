"""The command line as a contract: words, exit codes, JSON, and a sentence for everything that can be wrong.

The worker does no work here (`fake_worker.py`); `tests/e2e/test_local.py` has the real one.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from headrace.api.kinds import KINDS
from headrace.cli import main
from laptop import FAKE_WORKER, FakeWorker, eventually, processes_with

BATCH = {
    "apiVersion": "headrace.dev/v1alpha1",
    "kind": "InferenceBatch",
    "metadata": {"name": "reviews"},
    "spec": {
        "model": {"name": "mock"},
        "engine": {"name": "mock"},
        "input": {"uri": "in.jsonl"},
        "shards": 2,
        "parallelism": 2,
        "terminationGracePeriodSeconds": 600,
    },
}


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


Cli = Callable[..., Answer]


@pytest.fixture(autouse=True)
def _desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worker: FakeWorker) -> None:
    """A working directory with a manifest, and the fake worker in place of the real one."""
    assert worker.log.exists()
    package = tmp_path / "fakes" / "headrace_worker"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()  # a package without it would lose to the installed one
    (package / "__main__.py").write_text(f"import runpy\nrunpy.run_path({str(FAKE_WORKER)!r}, run_name='__main__')\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(package.parent), *map(str, _operator())]))
    monkeypatch.chdir(tmp_path)
    write("reviews.yaml")


def _operator() -> list[Path]:
    return [Path(__file__).parents[2] / "operator"]


def write(file: str, name: str = "reviews", **spec: Any) -> str:
    """A manifest with other spec fields."""
    batch = {**BATCH, "metadata": {"name": name}, "spec": {**BATCH["spec"], **spec}}  # type: ignore[dict-item]
    Path(file).write_text(yaml.safe_dump(batch, sort_keys=False))
    return file


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run a command in this process."""

    def run(*arguments: str) -> Answer:
        code = main(arguments)
        said = capsys.readouterr()
        return Answer(code, said.out, said.err)

    return run


def test_run_is_complete(cli: Cli) -> None:
    answer = cli("run", "-f", "reviews.yaml")
    assert answer.code == 0
    assert answer.out.startswith("reviews is complete: 10 of 10 records succeeded\n")
    assert "results: headrace results reviews" in answer.out
    assert answer.err.splitlines()[:2] == ["reviews: created", "reviews: Planning: the input is being read"]
    assert "\x1b" not in answer.err


def test_run_again_shows_the_result_again(cli: Cli, worker: FakeWorker) -> None:
    first = cli("run", "-f", "reviews.yaml")
    again = cli("run", "-f", "reviews.yaml")
    assert (again.code, again.out) == (0, first.out)
    assert again.err == "reviews has finished already, this is how; to start over: the same command with --replace\n"
    assert worker.turns("plan") == ["0-1"]


def test_run_as_json_says_the_object_and_nothing_else(cli: Cli) -> None:
    answer = cli("run", "-f", "reviews.yaml", "-o", "json", "--quiet")
    assert (answer.code, answer.err) == (0, "")
    assert answer.json["metadata"]["name"] == "reviews"
    assert answer.json["status"]["records"]["succeeded"] == 10


def test_run_of_a_batch_that_fails(cli: Cli, worker: FakeWorker) -> None:
    worker.orders(exits={"0": [44]})
    answer = cli("run", "-f", "reviews.yaml")
    assert answer.code == 1
    assert "reviews failed: WorkerFailed: Broken: shard 0 is broken" in answer.out
    assert "/pods/reviews-run-0-1/log" in answer.out
    assert "when that is mended: headrace retry reviews" in answer.out
    worker.orders()
    assert cli("retry", "reviews").code == 0


def test_run_of_bad_records(cli: Cli, worker: FakeWorker) -> None:
    worker.orders(bad=25)
    answer = cli("run", "-f", "reviews.yaml", "--quiet")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.splitlines()[0] == "headrace: reviews: the input has 25 bad lines, so nothing was worked on:"
    assert answer.err.splitlines()[1] == "  line 1: no JSON (invalid_json)"
    assert "  and 5 more" in answer.err
    as_json = cli("run", "-f", "reviews.yaml", "--quiet", "-o", "json")
    assert as_json.code == 2
    assert as_json.json["error"]["reason"] == "InputInvalid"
    assert as_json.json["error"]["errors"][1] == {"line": 2, "code": "invalid_json", "message": "no JSON"}


def test_run_of_a_bad_spec(cli: Cli) -> None:
    write("bad.yaml", shards=0, frob=1)
    answer = cli("run", "-f", "bad.yaml")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.splitlines() == [
        "headrace: 2 things are wrong:",
        "bad.yaml:12: InferenceBatch reviews: spec.shards: must be greater than or equal to 1, not 0",
        "bad.yaml:15: InferenceBatch reviews: spec.frob: unknown field",
    ]
    (first, _) = cli("run", "-f", "bad.yaml", "-o", "json").json["error"]["errors"]
    assert first == {
        "file": "bad.yaml",
        "line": 12,
        "object": "InferenceBatch reviews",
        "field": "spec.shards",
        "message": "must be greater than or equal to 1, not 0",
    }


def test_run_of_what_this_machine_cannot_do_names_the_line(cli: Cli) -> None:
    write("bad.yaml", engine={"name": "vllm"})
    answer = cli("run", "-f", "bad.yaml")
    assert answer.code == 2
    assert answer.err.startswith("headrace: bad.yaml:9: InferenceBatch reviews: spec.engine.name: this version has no")


def test_run_refuses_immutable_changes_and_replace_starts_over(cli: Cli) -> None:
    cli("run", "-f", "reviews.yaml")
    write("reviews.yaml", shards=1)
    answer = cli("run", "-f", "reviews.yaml")
    assert answer.code == 2
    assert answer.err.splitlines() == [
        "headrace: reviews.yaml:12: InferenceBatch reviews: spec.shards: cannot be changed: "
        "reviews was created with another value",
        "Choose a new metadata.name, or start over with --replace (what this batch has done so far is deleted).",
    ]
    assert cli("run", "-f", "reviews.yaml", "-o", "json").json["error"]["reason"] == "ImmutableFields"
    replaced = cli("run", "-f", "reviews.yaml", "--replace")
    assert replaced.code == 0
    assert replaced.err.startswith("reviews: started over\n")


def test_run_of_mutable_changes_is_a_new_generation(cli: Cli) -> None:
    cli("run", "-f", "reviews.yaml")
    write("reviews.yaml", parallelism=1)
    cli("run", "-f", "reviews.yaml")
    assert cli("get", "reviews", "-o", "json").json["metadata"]["generation"] == 2


def test_run_of_several_objects_runs_all_and_tells_the_worst(cli: Cli, worker: FakeWorker) -> None:
    write("other.yaml", "other", shards=1)
    worker.orders(exits={"1": [43]})
    answer = cli("run", "-f", "reviews.yaml", "-f", "other.yaml", "-q")
    assert answer.code == 1
    assert "reviews failed: ShardFailed" in answer.out
    assert "other is complete" in answer.out or "other failed" in answer.out
    as_json = cli("run", "-f", "reviews.yaml", "-f", "other.yaml", "-q", "-o", "json")
    assert [item["metadata"]["name"] for item in as_json.json["items"]] == ["reviews", "other"]


def test_run_of_a_config_map_keeps_it_for_later(cli: Cli, worker: FakeWorker) -> None:
    Path("map.yaml").write_text("{apiVersion: v1, kind: ConfigMap, metadata: {name: records}, data: {a.jsonl: x}}")
    assert cli("run", "-f", "map.yaml").code == 0
    write("mapped.yaml", "mapped", input={"configMapRef": {"name": "records"}})
    assert cli("run", "-f", "mapped.yaml").code == 0
    config = json.loads(worker.environment("plan-0-1")["HEADRACE_CONFIG"])
    folder = Path(config["input"]["uri"].removeprefix("file://"))
    assert (folder / "a.jsonl").read_text() == "x"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        pytest.param(["run"], 2, "Missing option '--filename' / '-f'", id="no file"),
        pytest.param(["run", "-f", "nope.yaml"], 2, "nope.yaml: cannot be read: No such file or directory", id="no such file"),
        pytest.param(["run", "-f", "empty.yaml"], 2, "there is no object in empty.yaml", id="an empty file"),
        pytest.param(["run", "-f", "binary.yaml"], 2, "binary.yaml: byte 0 is not UTF-8", id="a binary file"),
        pytest.param(["run", "-f", "syntax.yaml"], 2, "syntax.yaml:1:8: not valid YAML", id="no YAML"),
        pytest.param(["run", "-f", "reviews.yaml", "-n", "../x"], 2, '"../x" is not a namespace', id="no namespace"),
        pytest.param(["get", "--kubeconfig", "nope.conf"], 2, "there is no kubeconfig nope.conf: name one", id="no kubeconfig"),
        pytest.param(["get", "--kubeconfig", "reviews.yaml"], 2, "reviews.yaml is not a kubeconfig", id="a file that is no kubeconfig"),
        pytest.param(["run", "-f", "reviews.yaml", "--state-dir", "a%b"], 2, "must not have %", id="a bad state folder"),
        pytest.param(["run", "-f", "reviews.yaml", "--state-dir", "reviews.yaml"], 1, "reviews.yaml", id="a file as state folder"),
        pytest.param(["run", "-f", "reviews.yaml", "-o", "xml"], 2, "xml", id="an unknown form"),
        pytest.param(["frob"], 2, "No such command 'frob'", id="an unknown command"),
        pytest.param(["get", "bh"], 2, "a Bulkhead is known to a cluster alone: name one with --context", id="a kind of clusters"),
        pytest.param(["get", "Pod", "x"], 2, '"Pod" is not a kind; there are InferenceBatch (inferencebatches, ib)', id="an unknown kind"),
        pytest.param(["get", "ib", "nope"], 1, "there is no InferenceBatch or FanOutJob nope in the", id="no such object"),
        pytest.param(["get", "nope"], 1, "there is no InferenceBatch or FanOutJob nope", id="a name alone"),
        pytest.param(["results", "nope"], 1, "there is no InferenceBatch or FanOutJob nope", id="results of nothing"),
        pytest.param(["results", "../../x"], 2, '"../../x" is not the name of a batch', id="a path as a name"),
        pytest.param(["delete", "..", ], 2, '".." is not the name of a batch', id="dots as a name"),
        pytest.param(["results", "x", "--all", "--errors"], 2, "--errors and --all cannot be used together", id="two wishes at once"),
        pytest.param(["cancel", "nope"], 1, "there is no InferenceBatch or FanOutJob nope", id="cancel nothing"),
        pytest.param(["suspend", "nope"], 1, "there is no InferenceBatch or FanOutJob nope", id="suspend nothing"),
        pytest.param(["resume", "nope"], 1, "there is no InferenceBatch or FanOutJob nope", id="resume nothing"),
        pytest.param(["retry", "nope"], 1, "there is no InferenceBatch or FanOutJob nope", id="retry nothing"),
        pytest.param(["delete", "nope"], 1, "there is no InferenceBatch or FanOutJob nope", id="delete nothing"),
    ],
)  # fmt: skip
def test_bad_input_gets_a_sentence_and_an_exit_code(cli: Cli, arguments: list[str], code: int, says: str) -> None:
    Path("empty.yaml").write_text("# nothing\n")
    Path("binary.yaml").write_bytes(b"\xff\xfe\x00")
    Path("syntax.yaml").write_text("kind: [}")
    answer = cli(*arguments)
    assert answer.code == code
    assert says in answer.err
    assert answer.err.startswith("headrace: ")
    assert answer.out == ""
    if "-o" not in arguments and arguments[0] != "frob":
        as_json = cli(*arguments, "-o", "json")
        assert (as_json.code, as_json.err) == (code, "")
        assert says in as_json.json["error"]["message"]
        assert set(as_json.json["error"]) == {"reason", "message", "errors"}


def test_get_a_table(cli: Cli) -> None:
    cli("run", "-f", "reviews.yaml")
    for arguments in (["get"], ["get", "ib"], ["get", "inferencebatches", "reviews"], ["get", "ib/reviews"]):
        head, row = cli(*arguments).out.splitlines()
        assert head.split() == ["NAME", "STATE", "PROGRESS", "FAILED", "FILL", "ETA", "AGE"]
        assert row.split()[:4] == ["reviews", "Complete", "10/10", "0"]


def test_get_in_other_forms(cli: Cli) -> None:
    cli("run", "-f", "reviews.yaml")
    assert cli("get", "-o", "name").out == "inferencebatch.headrace.dev/reviews\n"
    assert {"OUTPUT", "EVENNESS", "STRAGGLERS"} <= set(cli("get", "-o", "wide").out.split())
    assert yaml.safe_load(cli("get", "reviews", "-o", "yaml").out)["metadata"]["name"] == "reviews"
    listed = cli("get", "-o", "json").json
    assert (listed["kind"], len(listed["items"])) == ("List", 1)
    assert cli("get", "-A").out.split()[:2] == ["NAMESPACE", "NAME"]


def test_hints_name_the_place_so_that_they_can_be_pasted(cli: Cli, worker: FakeWorker) -> None:
    worker.orders(exits={"0": [44]})
    place = ["--state-dir", "my state", "-n", "team"]
    said = cli("run", "-f", "reviews.yaml", *place)
    assert "  when that is mended: headrace retry reviews -n team --state-dir 'my state'" in said.out.splitlines()
    worker.orders()
    retried = cli("retry", "reviews", *place)
    assert retried.code == 0
    assert "  results: headrace results reviews -n team --state-dir 'my state'" in retried.out.splitlines()


def test_get_and_watch_shows_what_changes(cli: Cli) -> None:
    cli("run", "-f", "reviews.yaml")
    started = start("get", "--watch", stdout=subprocess.PIPE)
    assert started.stdout is not None
    assert started.stdout.readline().split()[:2] == ["NAME", "STATE"]
    assert started.stdout.readline().split()[:3] == ["reviews", "Complete", "10/10"]
    cli("delete", "reviews")
    assert started.stdout.readline().split()[:2] == ["reviews", "Deleted"]
    write("other.yaml", "other")
    cli("run", "-f", "other.yaml", "-q")
    shown = ""
    while "Complete" not in shown:
        shown = started.stdout.readline()
        assert shown.startswith("other")
    started.send_signal(signal.SIGINT)
    assert started.wait() == 130
    started.communicate()


def test_get_and_watch_of_what_is_not_there_does_not_wait_for_it(cli: Cli) -> None:
    assert (
        cli("get", "nope", "-w").err
        == "headrace: there is no InferenceBatch or FanOutJob nope in the namespace default\n"
    )


def test_get_nothing(cli: Cli) -> None:
    answer = cli("get", "-n", "team")
    assert (answer.code, answer.out, answer.err) == (0, "", "no InferenceBatch in the namespace team\n")
    assert cli("get", "-o", "json").json["items"] == []


def test_cancel_suspend_and_resume_without_a_process_that_runs_the_batch(cli: Cli, worker: FakeWorker) -> None:
    write("reviews.yaml", suspend=True)
    started = start("run", "-f", "reviews.yaml")
    eventually(lambda: "Suspended" in cli("get").out)
    started.send_signal(signal.SIGINT)
    assert started.wait() == 130
    assert cli("suspend", "reviews").out == "reviews is suspended; go on with: headrace resume reviews\n"
    cancelled = cli("cancel", "reviews")
    assert cancelled.code == 0
    assert "reviews failed: Cancelled" in cancelled.out
    assert cli("resume", "reviews").err == "headrace: reviews has failed already: nothing is left to be changed\n"
    assert worker.turns("run") == []


def test_resume_runs_to_the_end(cli: Cli) -> None:
    write("reviews.yaml", suspend=True)
    started = start("run", "-f", "reviews.yaml")
    eventually(lambda: "Suspended" in cli("get").out)
    told = cli("resume", "reviews")
    assert told.out.startswith(f"reviews goes on: it is held by process {started.pid}")
    assert started.wait() == 0


def test_delete(cli: Cli) -> None:
    cli("run", "-f", "reviews.yaml")
    assert cli("delete", "reviews").out == "reviews is deleted\n"
    assert cli("get").out == ""
    cli("run", "-f", "reviews.yaml")
    assert cli("delete", "reviews", "-o", "json").json["deleted"] == "reviews"


def test_plan_says_what_it_would_take(cli: Cli) -> None:
    answer = cli("plan", "-f", "reviews.yaml")
    assert answer.code == 0
    assert answer.out.splitlines() == [
        "reviews: 10 records",
        "  2 shards, 2 pods at once, 0 GPUs",
        "  about 50 prompt tokens, at most 1,280 more",
        "  nothing stands in the way",
    ]
    assert not Path(".headrace").exists(), "a plan leaves nothing behind"


def test_plan_without_reading(cli: Cli, worker: FakeWorker) -> None:
    answer = cli("plan", "-f", "reviews.yaml", "--no-read", "-o", "json")
    assert (answer.code, answer.json["records"], answer.json["shards"]) == (0, None, 2)
    assert worker.turns("plan") == []


@pytest.mark.parametrize(
    ("orders", "spec", "reason"),
    [
        pytest.param({"bad": 1}, {}, "line 1: invalid_json: no JSON", id="bad lines"),
        pytest.param({"plan_exit": [44]}, {}, "the disk is on fire", id="an input that cannot be read"),
        pytest.param(
            {}, {"engine": {"name": "vllm"}}, "spec.engine.name: this version has no such engine", id="an engine"
        ),
    ],
)
def test_plan_says_what_would_block(
    cli: Cli, worker: FakeWorker, orders: dict[str, Any], spec: dict[str, Any], reason: str
) -> None:
    worker.orders(**orders)
    write("reviews.yaml", **spec)
    answer = cli("plan", "-f", "reviews.yaml", "-o", "json")
    assert answer.code == 2
    assert any(reason in blocked for blocked in answer.json["blockedBy"])


def test_crds(cli: Cli, tmp_path: Path) -> None:
    printed = list(yaml.safe_load_all(cli("crds").out))
    assert [crd["metadata"]["name"] for crd in printed] == [f"{kind.plural}.headrace.dev" for kind in KINDS]
    assert cli("crds", "-o", "json").json["items"] == printed
    files = cli("crds", "--output-dir", str(tmp_path / "crds")).out.split()
    assert [yaml.safe_load(Path(file).read_text()) for file in files] == printed


def test_version(cli: Cli) -> None:
    assert cli("version").out.startswith("headrace ")
    assert cli("version", "-o", "json").json["apiVersion"] == "headrace.dev/v1alpha1"


def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    """A command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "headrace", *arguments], stderr=subprocess.PIPE, text=True, **options
    )


def test_help_lists_the_commands_and_imports_nothing_heavy() -> None:
    script = "import sys; from headrace.cli import main; main(['--help']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    for command in (
        "run",
        "plan",
        "get",
        "results",
        "cancel",
        "suspend",
        "resume",
        "retry",
        "delete",
        "crds",
        "version",
    ):
        assert f"\n  {command} " in done.stdout
    assert not {"pydantic", "yaml", "headrace.api.base", "headrace.shells.local.converge"} & set(done.stderr.split())


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
    ids=["Ctrl-C", "term", "hangup"],
)
def test_run_that_is_interrupted_drains_and_goes_on(
    cli: Cli, worker: FakeWorker, number: signal.Signals, code: int
) -> None:
    worker.orders(hold=[0, 1])
    started = start("run", "-f", "reviews.yaml")
    eventually(lambda: len(list(worker.log.glob("waits-*"))) == 2)
    started.send_signal(number)
    _, said = started.communicate()
    assert started.returncode == code
    assert said.splitlines()[-2:] == [
        "stopping: the workers put their work away; once more kills them",
        "headrace: stopped; run the same command again to go on",
    ]
    assert not list(processes_with("FAKE_WORKER_LOG", str(worker.log)))
    assert "Interrupted" in cli("get").out
    again = cli("run", "-f", "reviews.yaml")
    assert again.code == 0
    assert again.err.startswith("reviews: goes on where it stopped\n")


def test_run_that_is_interrupted_twice_kills(worker: FakeWorker) -> None:
    worker.orders(hold=[0, 1], deaf=[0, 1])
    write("reviews.yaml", terminationGracePeriodSeconds=3600)
    started = start("run", "-f", "reviews.yaml")
    eventually(lambda: len(list(worker.log.glob("waits-*"))) == 2)
    assert started.stderr is not None
    started.send_signal(signal.SIGINT)
    assert any("stopping" in line for line in started.stderr)
    started.send_signal(signal.SIGINT)
    started.communicate()
    assert started.returncode == 130
    assert not list(processes_with("FAKE_WORKER_LOG", str(worker.log)))


def test_run_that_is_killed_leaves_no_worker_behind(cli: Cli, worker: FakeWorker) -> None:
    worker.orders(hold=[0, 1])
    started = start("run", "-f", "reviews.yaml")
    eventually(lambda: len(list(worker.log.glob("waits-*"))) == 2)
    started.kill()
    started.communicate()
    eventually(lambda: not list(processes_with("FAKE_WORKER_LOG", str(worker.log))))
    assert cli("run", "-f", "reviews.yaml").code == 0


def test_a_second_run_names_the_first(cli: Cli, worker: FakeWorker) -> None:
    worker.orders(hold=[0, 1])
    started = start("run", "-f", "reviews.yaml")
    eventually(lambda: len(list(worker.log.glob("waits-*"))) == 2)
    answer = cli("run", "-f", "reviews.yaml", "-o", "json")
    assert answer.code == 1
    assert answer.json["error"]["reason"] == "AlreadyRunning"
    assert f"held by process {started.pid}" in answer.json["error"]["message"]
    deleted = cli("delete", "reviews")
    assert f"held by process {started.pid}" in deleted.err
    told = cli("cancel", "reviews")
    assert (told.code, told.out) == (0, f"reviews ends: it is held by process {started.pid}\n")
    assert started.wait() == 1


def test_results_to_a_reader_that_goes_away(cli: Cli, tmp_path: Path) -> None:
    """`headrace results reviews | head -1` ends without a word about the pipe."""
    cli("run", "-f", "reviews.yaml")
    output = tmp_path / ".headrace" / "output" / "default" / "reviews"
    commit_one_shard(output, records=20_000)
    started = start("results", "reviews", "-o", "json", stdout=subprocess.PIPE)
    assert started.stdout is not None
    assert json.loads(started.stdout.readline())["custom_id"] == "r0"
    started.stdout.close()
    assert started.stderr is not None
    assert "Error" not in started.stderr.read()
    assert started.wait() != 0


def commit_one_shard(output: Path, records: int = 4) -> None:
    """An output as a worker commits it; every second record has failed."""
    lines: dict[str, list[str]] = {"results": [], "errors": []}
    for number in range(records):
        record = {"id": f"batch_req_{number:012}", "custom_id": f"r{number}", "attempts": 1}
        body = {"choices": [{"message": {"content": f"answer {number}"}}]}
        if number % 2:
            lines["errors"].append(
                json.dumps(record | {"response": None, "error": {"code": "mock_error", "message": "no"}})
            )
        else:
            lines["results"].append(
                json.dumps(record | {"response": {"status_code": 200, "body": body}, "error": None})
            )
    files = {}
    for kind, rows in lines.items():
        path = output / kind / "00000.a1.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        content = "".join(f"{row}\n" for row in rows).encode()
        path.write_bytes(content)
        what = {"records": len(rows), "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        files[kind] = {"path": f"{kind}/00000.a1.jsonl", **what}
    commit = output / "_headrace" / "shards" / "00000" / "commit.json"
    commit.parent.mkdir(parents=True, exist_ok=True)
    counts = {"succeeded": len(lines["results"]), "failed": len(lines["errors"])}
    said = {"version": 1, "shard": 0, "attempt": 1, "reprocessed": 0, "batches": 1, "batchedRecords": records, **files}
    who = {"namespace": "default", "name": "reviews", "uid": "u"}
    commit.write_text(json.dumps({**said, "batch": who, "usage": {}, "records": {"total": records, **counts}}))


def test_results_in_the_order_of_the_input(cli: Cli, tmp_path: Path) -> None:
    cli("run", "-f", "reviews.yaml")
    commit_one_shard(tmp_path / ".headrace" / "output" / "default" / "reviews")
    table = cli("results", "reviews").out.splitlines()
    assert [line.split() for line in table] == [["r0", "answer", "0"], ["r2", "answer", "2"]]
    assert cli("results", "reviews", "--errors").out.split()[:3] == ["r1", "mock_error:", "no"]
    assert cli("results", "reviews", "--all", "--limit", "2").out.split()[::3] == ["r0", "r1"]
    everything = [
        json.loads(line)["custom_id"] for line in cli("results", "reviews", "--all", "-o", "json").out.splitlines()
    ]
    assert everything == ["r0", "r1", "r2", "r3"]


def test_results_while_it_runs_are_those_of_the_committed_shards(cli: Cli, worker: FakeWorker, tmp_path: Path) -> None:
    worker.orders(hold=[1])
    started = start("run", "-f", "reviews.yaml")
    eventually((worker.log / "waits-1").exists)
    eventually(lambda: cli("get", "reviews", "-o", "json").json["status"].get("output"))
    commit_one_shard(tmp_path / ".headrace" / "output" / "default" / "reviews")
    answer = cli("results", "reviews")
    assert len(answer.out.splitlines()) == 2
    assert answer.err == "reviews is not complete: these are the records of 1 of 2 shards\n"
    started.terminate()
    started.communicate()


def test_results_of_an_output_that_was_damaged(cli: Cli, tmp_path: Path) -> None:
    cli("run", "-f", "reviews.yaml")
    output = tmp_path / ".headrace" / "output" / "default" / "reviews"
    commit_one_shard(output)
    (output / "results" / "00000.a1.jsonl").unlink()
    answer = cli("results", "reviews", "-o", "json")
    assert (answer.code, answer.json["error"]["reason"]) == (1, "OutputDamaged")


def test_results_of_refused_input_say_why_there_are_none(cli: Cli, worker: FakeWorker) -> None:
    worker.orders(bad=1)
    cli("run", "-f", "reviews.yaml")
    answer = cli("results", "reviews")
    assert answer.code == 1
    assert answer.err.startswith("headrace: reviews has no output: InputInvalid: 1 bad line")


# schedules: inline records, whose input the core reads itself


def write_schedule(schedule: str | None = "0 * * * *", **spec: Any) -> None:
    """A schedule `hourly` of one small batch."""
    records = [{"custom_id": f"r{number}", "text": "Hi"} for number in range(10)]
    batch = {**BATCH["spec"], "input": {"inline": records, "format": "jsonl"}}  # type: ignore[dict-item]
    template = {"inferenceBatch": batch}
    manifest = {
        "apiVersion": "headrace.dev/v1alpha1",
        "kind": "ScheduledGeneration",
        "metadata": {"name": "hourly"},
        "spec": {"schedule": schedule, "template": template, **spec},
    }
    Path("hourly.yaml").write_text(yaml.safe_dump(manifest, sort_keys=False))


def test_run_of_a_schedule_asks_which_tick_is_meant(cli: Cli) -> None:
    write_schedule()
    answer = cli("run", "-f", "hourly.yaml")
    assert answer.code == 2
    assert answer.err == (
        "headrace: hourly.yaml:2: ScheduledGeneration hourly: kind: a ScheduledGeneration has no end: say --once for the run of the "
        "tick that has come last, or --watch to run each tick as it comes\n"
    )
    assert cli("run", "-f", "hourly.yaml", "--once", "--watch").code == 2


def test_run_once_runs_the_tick_that_has_come_last(cli: Cli) -> None:
    write_schedule("0 0 1 1 *")
    before = datetime.now(UTC).year
    answer = cli("run", "--once", "-f", "hourly.yaml", "-o", "json", "-q")
    year = int(answer.json["metadata"]["annotations"]["headrace.dev/tick"][:4])
    assert before <= year <= datetime.now(UTC).year
    new_year = datetime(year, 1, 1, tzinfo=UTC)
    assert answer.code == 0, answer.err
    assert answer.json["metadata"]["name"] == f"hourly-{int(new_year.timestamp()) // 60}"
    assert answer.json["metadata"]["annotations"] == {"headrace.dev/tick": f"{new_year:%Y-%m-%dT%H:%M:%SZ}"}
    window = answer.json["spec"]["input"]["window"]
    assert window["endTime"] == f"{new_year:%Y-%m-%dT%H:%M:%SZ}"
    assert window["startTime"] == f"{new_year.year - 1}-01-01T00:00:00Z"


def test_run_once_names_the_line_of_what_is_wrong_in_the_template(cli: Cli) -> None:
    write_schedule("0 0 30 2 *")
    assert (
        "hourly.yaml:6: ScheduledGeneration hourly: spec.schedule: never fires"
        in cli("run", "--once", "-f", "hourly.yaml").err
    )
    write_schedule(template={"inferenceBatch": {**BATCH["spec"], "engine": {"name": "vllm"}}})  # type: ignore[dict-item]
    refused = cli("run", "--once", "-f", "hourly.yaml")
    assert refused.code == 2
    assert "ScheduledGeneration hourly: spec.template.inferenceBatch.engine.name: " in refused.err


def test_run_watch_of_one_run_runs_it_once_and_ends(cli: Cli, worker: FakeWorker) -> None:
    write_schedule(None, runAt="2026-01-15T12:00:00Z")
    answer = cli("run", "--watch", "-f", "hourly.yaml")
    assert answer.code == 0, answer.err
    assert "hourly-29474640 is complete" in answer.out
    pods = len(worker.turns("run"))
    again = cli("run", "--watch", "-f", "hourly.yaml")
    assert (again.code, again.out, again.err) == (0, "", "hourly-29474640 is there already: Complete\n")
    assert len(worker.turns("run")) == pods


def test_run_watch_says_that_the_only_run_was_missed(cli: Cli) -> None:
    write_schedule(None, runAt="2026-01-15T12:00:00Z", startingDeadlineSeconds=60)
    answer = cli("run", "--watch", "-f", "hourly.yaml")
    assert (answer.code, answer.err) == (0, "hourly is not run: runAt was more than startingDeadlineSeconds (60) ago\n")


def test_run_watch_runs_what_a_run_depends_on_first(cli: Cli) -> None:
    """In the file it comes later."""
    once = {"schedule": None, "runAt": "2026-01-15T12:00:00Z"}
    write_schedule(**once, dependsOn=[{"kind": "ScheduledGeneration", "name": "source", "sameWindow": True}])
    first = Path("hourly.yaml").read_text()
    write_schedule(**once)
    source = Path("hourly.yaml").read_text().replace("name: hourly", "name: source")
    Path("hourly.yaml").write_text(f"{first}\n---\n{source}")
    answer = cli("run", "--watch", "-f", "hourly.yaml")
    assert answer.code == 0, answer.err
    assert "hourly-29474640 waits: ScheduledGeneration source has no complete run that covers 1970" in answer.err
    ends = [line.split()[0] for line in answer.out.splitlines() if "is complete" in line]
    assert ends == ["source-29474640", "hourly-29474640"]


def test_run_watch_passes_over_what_depends_on_something_that_is_not_there(cli: Cli) -> None:
    on_batch = [{"kind": "InferenceBatch", "name": "embeddings"}]
    write_schedule(None, runAt="2026-01-15T12:00:00Z", dependsOn=on_batch, onUnmet="Skip")
    answer = cli("run", "--watch", "-f", "hourly.yaml")
    assert (answer.code, answer.out) == (0, "")
    assert answer.err.splitlines()[-1] == "hourly-29474640 is not run: InferenceBatch embeddings does not exist"


def write_trigger(*names: str, **new_objects: Any) -> None:
    """A schedule `hourly` that new objects begin, and those, which have settled."""
    documents = Path("documents")
    documents.mkdir(exist_ok=True)
    for name in names:
        (documents / name).write_text("Hi")
        os.utime(documents / name, (1_768_478_400, 1_768_478_400))
    reads = {"uri": f"{documents.absolute().as_uri()}/*.txt", "format": "text", "objects": "ModifiedInWindow"}
    template = {"inferenceBatch": {**BATCH["spec"], "input": reads}}  # type: ignore[dict-item]
    write_schedule(None, template=template, trigger={"newObjects": {"settleSeconds": 1, **new_objects}})


def test_run_watch_runs_what_is_new_and_never_again(cli: Cli, worker: FakeWorker) -> None:
    """Nothing is remembered but the run: the second one begins where it ends."""
    write_trigger("a.txt", "b.txt", atLeast=2)
    started = start("run", "--watch", "-f", "hourly.yaml", stdout=subprocess.PIPE)
    assert started.stdout is not None
    assert "hourly-0 is complete" in next(line for line in started.stdout if "is complete" in line)
    started.send_signal(signal.SIGINT)
    _, said = started.communicate()
    assert started.returncode == 130
    assert "hourly: 2 new objects" in said
    run = cli("get", "hourly-0", "-o", "json").json
    assert run["spec"]["input"]["window"]["startTime"] == "1970-01-01T00:00:00Z"
    assert worker.turns("list") == []
    again = cli("run", "--once", "-f", "hourly.yaml")
    assert (again.code, again.out) == (1, "")
    assert "hourly has had a run a moment ago" in again.err


def test_run_watch_goes_on_with_the_run_that_was_interrupted(cli: Cli, worker: FakeWorker) -> None:
    write_trigger("a.txt")
    worker.orders(hold=[0, 1])
    first = start("run", "--watch", "-f", "hourly.yaml")
    eventually(lambda: len(list(worker.log.glob("waits-*"))) == 2)
    first.send_signal(signal.SIGINT)
    first.communicate()
    worker.orders()
    started = start("run", "--watch", "-f", "hourly.yaml", stdout=subprocess.PIPE)
    assert started.stdout is not None
    assert "hourly-0 is complete" in next(line for line in started.stdout if "is complete" in line)
    started.send_signal(signal.SIGINT)
    _, said = started.communicate()
    assert "hourly-0: goes on where it stopped" in said
    assert [row.split()[0] for row in cli("get").out.splitlines()[1:]] == ["hourly-0"]


def test_run_once_of_a_trigger_takes_all_there_is(cli: Cli) -> None:
    write_trigger("a.txt", atLeast=1000)
    answer = cli("run", "--once", "-f", "hourly.yaml", "-o", "json", "-q")
    assert answer.code == 0, answer.err
    assert answer.json["metadata"]["name"] == "hourly-0"


def test_run_watch_says_that_nothing_could_be_listed(cli: Cli) -> None:
    write_trigger("a.txt")
    Path("documents/lost.txt").symlink_to("nowhere")
    started = start("run", "--watch", "-f", "hourly.yaml")
    assert started.stderr is not None
    said = next(line for line in started.stderr if "could not be listed" in line)
    assert "hourly: what is new could not be listed: InputUnreadable: " in said
    started.send_signal(signal.SIGINT)
    started.communicate()
    assert cli("get").out == ""


def test_run_watch_refuses_to_look_where_this_machine_cannot(cli: Cli) -> None:
    write_trigger("a.txt", uri="claim://data/in/*")
    answer = cli("run", "--watch", "-f", "hourly.yaml")
    assert answer.code == 2
    assert "ScheduledGeneration hourly: spec.trigger.newObjects.uri: a claim is there only in a cluster" in answer.err


def test_schedule_preview_of_a_trigger_says_what_begins_a_run(cli: Cli) -> None:
    write_trigger(atLeast=100, maxWaitSeconds=600)
    row = cli("schedule", "preview", "-f", "hourly.yaml").out.splitlines()[1]
    assert row.split(maxsplit=1) == ["hourly", "on 100 new objects, or when one has waited 600 s"]


def test_schedule_preview_refuses_schedules_that_wait_for_each_other(cli: Cli) -> None:
    write_schedule(dependsOn=[{"kind": "ScheduledGeneration", "name": "daily"}])
    one = Path("hourly.yaml").read_text()
    other = (
        one.replace("name: daily", "name: other")
        .replace("name: hourly", "name: daily")
        .replace("name: other", "name: hourly")
    )
    Path("hourly.yaml").write_text(f"{one}\n---\n{other}")
    answer = cli("schedule", "preview", "-f", "hourly.yaml")
    assert answer.code == 2
    assert "ScheduledGeneration hourly: spec.dependsOn: must not lead back to this schedule" in answer.err
    assert "daily -> hourly -> daily" in answer.err


def test_schedule_preview_of_one_run_shows_its_moment(cli: Cli) -> None:
    write_schedule(None, runAt="2099-01-15T12:00:00Z")
    answer = cli("schedule", "preview", "-f", "hourly.yaml", "-o", "json").json
    assert answer["schedules"][0]["nextScheduleTimes"] == ["2099-01-15T12:00:00Z"]
    row = cli("schedule", "preview", "-f", "hourly.yaml").out.splitlines()[1]
    assert row.split() == ["hourly", "once,", "2099-01-15T12:00:00Z", "2099-01-15T12:00:00Z"]


def test_backfill_runs_each_past_tick_once_the_oldest_first(cli: Cli, worker: FakeWorker) -> None:
    write_schedule(timeZone="Europe/Berlin")
    span = ("--from", "2026-01-15T12:00", "--to", "2026-01-15T14:00:00Z")
    answer = cli("backfill", "-f", "hourly.yaml", *span)
    assert answer.code == 0, answer.err
    names = [f"hourly-{int(datetime(2026, 1, 15, hour, tzinfo=UTC).timestamp()) // 60}" for hour in (11, 12, 13)]
    ends = [line.split()[0] for line in answer.out.splitlines() if "is complete" in line]
    assert ends == names
    pods = len(worker.turns("run"))
    again = cli("backfill", "-f", "hourly.yaml", *span)
    assert (again.code, again.out) == (0, "")
    assert again.err.splitlines() == [f"{name} is there already: Complete" for name in names]
    assert len(worker.turns("run")) == pods


@pytest.mark.parametrize(
    ("span", "said"),
    [
        pytest.param(
            ("2026-01-01", "2026-01-15"), "there are more than 100 ticks of hourly in that time", id="too many"
        ),
        pytest.param(("yesterday", "2026-01-15"), "--from must be a time such as", id="no time"),
        pytest.param(("2026-01-15", "2100-01-01"), "--to must not be in the future", id="what is to come"),
    ],
)
def test_backfill_refuses(cli: Cli, span: tuple[str, str], said: str) -> None:
    write_schedule()
    answer = cli("backfill", "-f", "hourly.yaml", "--from", span[0], "--to", span[1])
    assert answer.code == 2
    assert said in answer.err


def test_schedule_preview_shows_a_storm_before_it_comes(cli: Cli) -> None:
    write_schedule(jitterSeconds=600)
    one = Path("hourly.yaml").read_text()
    Path("hourly.yaml").write_text("\n---\n".join(one.replace("name: hourly", f"name: hourly-{n}") for n in range(100)))
    answer = cli("schedule", "preview", "-f", "hourly.yaml", "--count", "1", "-o", "json")
    assert answer.code == 0, answer.err
    starts = answer.json["startsPerMinute"]
    assert sum(starts.values()) == 100
    assert max(starts.values()) <= 20
    assert [minute for minute, count in starts.items() if count] == [f"{minute:02}" for minute in range(10)]
    assert len(answer.json["schedules"]) == 100
    Path("hourly.yaml").write_text(one.replace("jitterSeconds: 600", "jitterSeconds: 0"))
    text = cli("schedule", "preview", "-f", "hourly.yaml").out.splitlines()
    assert text[1].split()[:7] == ["hourly", "0", "*", "*", "*", "*", "Etc/UTC"]
    assert text[-1] == ":00  █ 1"
