"""The whole path of a fan-out on one machine: the command line, its branches, the join, and kills at any moment."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import uuid
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.test_local import Desk
from endpoint_server import Gate, endpoint_server, engine_settings
from laptop import eventually
from worker_rig import size_of


class FanOutDesk(Desk):
    """A working directory with a fan-out `answers.yaml`."""

    def write_fan_out(self, records: int, *branches: dict[str, Any], **spec: Any) -> list[str]:
        """An input of so many records and the manifest; returns the ids of the records in their order."""
        ids = [f"r{number}" for number in range(records)]
        lines = (json.dumps({"custom_id": name, "text": f"say {name}", "n": n}) for n, name in enumerate(ids))
        (self.folder / "in.jsonl").write_text("\n".join(lines))
        usual = {"model": {"name": "mock"}, "engine": {"name": "mock"}, "retries": {"limit": 0}}
        fan_out = {
            "apiVersion": "headrace.dev/v1alpha1",
            "kind": "FanOutJob",
            "metadata": {"name": "answers"},
            "spec": {
                "input": {"uri": "in.jsonl", "format": "jsonl"},
                "branches": [{**usual, **branch} for branch in branches],
                **spec,
            },
        }
        (self.folder / "answers.yaml").write_text(yaml.safe_dump(fan_out))
        return ids

    def rows(self, *which: str, name: str = "answers") -> list[dict[str, Any]]:
        """The lines of the results."""
        code, out, err = self.do("results", name, *which, "-o", "json")
        assert code == 0, err
        return [json.loads(line) for line in out.splitlines()]

    def object(self, name: str = "answers") -> dict[str, Any]:
        """An object as it is now."""
        code, out, err = self.do("get", name, "-o", "json")
        assert code == 0, err
        found: dict[str, Any] = json.loads(out)
        return found

    def has_begun(self, running: subprocess.Popen[str], journalled: int) -> bool:
        """Whether its branches have journalled about so many records, or it has ended."""
        size = sum(
            size_of(it)
            for it in self.folder.glob(".headrace/output/default/answers/branches/*/_headrace/shards/*/*.journal")
        )
        return size > journalled * 100 or running.poll() is not None

    def condition(self, kind: str) -> str:
        """Reason and message of a condition that is true."""
        conditions = self.object()["status"]["conditions"]
        return next(f"{c['reason']}: {c['message']}" for c in conditions if (c["type"], c["status"]) == (kind, "True"))


@pytest.fixture
def desk(tmp_path: Path) -> FanOutDesk:
    """An empty working directory."""
    return FanOutDesk(tmp_path, uuid.uuid4().hex)


def mock(**settings: int) -> dict[str, Any]:
    """The mock engine with these settings."""
    return {"name": "mock", "mock": settings}


def test_run_joins_what_the_branches_have_answered(desk: FanOutDesk) -> None:
    ids = desk.write_fan_out(
        60,
        {"name": "even", "when": "record.n % 2 == 0", "shards": 3},
        {"name": "flaky", "engine": mock(errorPercent=50), "when": "record.n < 50"},
        aggregation={"type": "concat", "concat": {"separator": "|"}},
    )
    code, out, _ = desk.do("run", "-f", "answers.yaml")
    assert (code, out.startswith("answers is complete: ")) == (0, True)
    assert [row["custom_id"] for row in desk.rows("--all")] == ids
    for row in desk.rows("--all"):
        n, about = int(row["custom_id"][1:]), row["headrace"]
        assert ("even" in about["contributing"]) == (n % 2 == 0)
        assert about["missing"].get("even") == (None if n % 2 == 0 else "not_routed")
        assert (about["missing"].get("flaky") == "not_routed") == (n >= 50)
    codes = {row["error"]["code"] for row in desk.rows("--errors")}
    assert codes == {"not_routed", "no_answer"}
    assert len(desk.rows(name="answers-even")) == 30
    status = desk.object()["status"]
    assert status["branchCounts"] == {"total": 2, "active": 0, "succeeded": 2, "failed": 0}
    assert status["evennessPercent"] > 0


def test_run_goes_on_where_it_was_killed(desk: FanOutDesk) -> None:
    slow = {"engine": mock(latencyMilliseconds=60), "batching": {"maxBatchSize": 4}}
    ids = desk.write_fan_out(
        80, {"name": "one", **slow}, {"name": "two", **slow}, {"name": "three"}, aggregation={"type": "vote"}
    )
    rng = random.Random(20260115)
    for kill in range(4):
        running = desk.start("run", "-f", "answers.yaml", "-q")
        eventually(partial(desk.has_begun, running, rng.randrange(20) * kill))
        running.send_signal(signal.SIGKILL if kill % 2 else signal.SIGINT)
        running.communicate()
    eventually(lambda: not desk.workers())
    assert desk.do("run", "-f", "answers.yaml")[0] == 0
    assert [row["custom_id"] for row in desk.rows("--all")] == ids
    assert {row["headrace"]["scores"]["one"] for row in desk.rows()} == {3}


def test_a_branch_that_cannot_run_leaves_the_others_alone(desk: FanOutDesk) -> None:
    ids = desk.write_fan_out(
        10, {"name": "good"}, {"name": "bad", "engine": {"name": "vllm"}}, completionPolicy={"mode": "BestEffort"}
    )
    code, _, err = desk.do("run", "-f", "answers.yaml")
    assert code == 0
    assert desk.condition("Complete").startswith("PartiallySucceeded: 10 of 10 records have an answer")
    assert "without bad (InvalidSpec)" in desk.condition("Complete")
    assert [row["custom_id"] for row in desk.rows()] == ids
    assert {row["headrace"]["missing"]["bad"] for row in desk.rows()} == {"InvalidSpec"}
    assert "answers-bad: InvalidSpec" in err


def test_branches_that_are_killed_hang_or_answer_with_errors_leave_the_others_alone(desk: FanOutDesk) -> None:
    """All at once; `tests/bench/fanout.py` measures each, and that it costs the others no time."""
    ids = desk.write_fan_out(
        12,
        {"name": "a"},
        {"name": "killed", "engine": mock(crashPercent=100), "failurePolicy": {"backoffLimitPerIndex": 0}},
        {"name": "hangs", "engine": mock(latencyMilliseconds=3_600_000), "completionDeadlineSeconds": 5},
        {"name": "errs", "engine": mock(errorPercent=100)},
        {"name": "c"},
        completionPolicy={"mode": "BestEffort"},
        aggregation={"type": "concat"},
    )
    assert desk.do("run", "-f", "answers.yaml")[0] == 0
    said = desk.condition("Complete")
    assert said.startswith("PartiallySucceeded: 12 of 12 records have an answer")
    assert "without killed (ShardFailed), hangs (DeadlineExceeded)" in said
    for name in ("answers-a", "answers-c"):
        assert [(row["custom_id"], row["attempts"]) for row in desk.rows(name=name)] == [(i, 1) for i in ids]
        assert desk.object(name)["status"]["records"] == {"total": 12, "succeeded": 12, "failed": 0, "pending": 0}
    for row in desk.rows():
        assert row["headrace"]["contributing"] == ["a", "c"]
        missing = row["headrace"]["missing"]
        # Where the machine is busy, its input has not even been read by then.
        assert missing.pop("hangs") in ("batch_expired", "DeadlineExceeded")
        assert missing == {"killed": "shard_failed", "errs": "mock_error"}


def test_retry_runs_the_failed_branch_alone(desk: FanOutDesk) -> None:
    fragile = {"engine": mock(crashPercent=100), "failurePolicy": {"backoffLimitPerIndex": 0}}
    ids = desk.write_fan_out(6, {"name": "good"}, {"name": "fragile", **fragile})
    code, _, _ = desk.do("run", "-f", "answers.yaml")
    assert code == 1
    assert "without fragile (ShardFailed)" in desk.condition("Failed")
    before = desk.object("answers-good")
    code, out, err = desk.do("retry", "answers")
    assert code == 0, (out, err)
    assert desk.object("answers-good") == before
    assert desk.object("answers-fragile")["status"]["retries"] == 1
    assert [row["custom_id"] for row in desk.rows("--all")] == ids
    manifest = json.loads((desk.folder / ".headrace/output/default/answers/manifest.json").read_text())
    assert manifest["round"] == 1


def test_retry_brings_the_branch_that_a_quorum_did_without(desk: FanOutDesk) -> None:
    fragile = {"engine": mock(crashPercent=100), "failurePolicy": {"backoffLimitPerIndex": 0}}
    ids = desk.write_fan_out(
        6, {"name": "good"}, {"name": "fragile", **fragile}, completionPolicy={"mode": "BestEffort"}
    )
    assert desk.do("run", "-f", "answers.yaml")[0] == 0
    assert desk.condition("Complete").startswith("PartiallySucceeded")
    before = desk.object("answers-good")
    code, out, err = desk.do("retry", "answers", "--failed")
    assert code == 0, (out, err)
    assert desk.condition("Complete").startswith("RecordsProcessed")
    assert desk.object("answers-good") == before
    assert [row["custom_id"] for row in desk.rows()] == ids
    assert desk.object("answers-fragile")["status"]["retries"] == desk.object()["status"]["retries"] == 1
    assert all(row["headrace"]["missing"] == {} for row in desk.rows())
    assert {row["attempts"] for row in desk.rows(name="answers-fragile")} == {2}


def test_retry_redoes_the_failed_records_alone(desk: FanOutDesk) -> None:
    """The lines that were good are kept to the last byte; the joined output is that of a run in which nothing has failed."""
    flaky = {"engine": mock(errorPercent=30, errorAttempts=1), "shards": 3}
    spec = {"aggregation": {"type": "concat"}}
    ids = desk.write_fan_out(30, {"name": "good"}, {"name": "flaky", **flaky}, **spec)
    assert desk.do("run", "-f", "answers.yaml")[0] == 0
    before, good = {row["custom_id"]: row for row in desk.rows(name="answers-flaky")}, desk.object("answers-good")
    assert 0 < len(before) < 30
    code, out, err = desk.do("retry", "answers", "--failed")
    assert code == 0, (out, err)
    assert desk.object("answers-good") == good
    after = desk.rows(name="answers-flaky")
    assert [row["custom_id"] for row in after] == ids
    assert [row for row in after if row["custom_id"] in before] == list(before.values())
    assert {row["attempts"] for row in after if row["custom_id"] not in before} == {2}
    assert all(row["headrace"]["contributing"] == ["good", "flaky"] for row in desk.rows())
    assert desk.object("answers-flaky")["status"]["records"] == {
        "total": 30,
        "succeeded": 30,
        "failed": 0,
        "pending": 0,
    }
    code, _, err = desk.do("retry", "answers")
    assert (code, err) == (1, "headrace: answers is complete: there is nothing to retry\n")


def test_any_ends_with_the_first(desk: FanOutDesk) -> None:
    ids = desk.write_fan_out(
        20,
        {"name": "slow", "weight": 9, "engine": mock(latencyMilliseconds=3_600_000)},
        {"name": "fast"},
        completionPolicy={"mode": "Any"},
    )
    assert desk.do("run", "-f", "answers.yaml")[0] == 0
    assert "without slow (Cancelled)" in desk.condition("Complete")
    assert [row["custom_id"] for row in desk.rows()] == ids
    assert {row["headrace"]["winner"] for row in desk.rows()} == {"fast"}


def test_cancel_and_delete_reach_the_branches(desk: FanOutDesk) -> None:
    slow = {"engine": mock(latencyMilliseconds=100), "batching": {"maxBatchSize": 2}}
    ids = desk.write_fan_out(2000, {"name": "one", **slow}, {"name": "two", **slow})
    running = desk.start("run", "-f", "answers.yaml", "-q")
    eventually(partial(desk.has_begun, running, 4))
    assert desk.do("cancel", "answers")[0] == 0
    running.communicate()
    assert desk.condition("Failed").startswith("Cancelled: 0 of 2 branches have succeeded")
    assert [row["custom_id"] for row in desk.rows("--all")] == ids
    assert desk.do("delete", "answers")[0] == 0
    assert desk.do("get", "ib")[1] == desk.do("get", "fo")[1] == ""
    assert not (desk.folder / ".headrace/output/default/answers").exists()


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        pytest.param({"branches": []}, "spec.branches", id="no branch"),
        pytest.param(
            {"completionPolicy": {"mode": "Quorum", "minSucceeded": 3}},
            "minSucceeded must not be greater",
            id="a quorum too large",
        ),
        pytest.param({"aggregation": {"type": "bestOf"}}, "bestOf must be set", id="no scorer"),
        pytest.param({"aggregation": {"type": "sum"}}, "spec.aggregation.type", id="an aggregation that is not there"),
        pytest.param({"aggregation": {"type": "reduce"}}, "split must say", id="nothing to reduce"),
        pytest.param({"split": {"by": "chunks", "size": 9, "overlap": 9}}, "overlap must be less", id="only overlap"),
        pytest.param(
            {"aggregation": {"type": "image", "image": {"reference": "registry.example/join"}}},
            "spec.aggregation.image: no container is started on this machine",
            id="an image on one machine",
        ),
        pytest.param(
            {"split": {"by": "scenes", "size": 9}},
            "spec.split.by: must be 'chunks', 'lines', 'pages', 'tiles' or 'frames'",
            id="parts that nobody can make",
        ),
    ],
)
def test_run_refuses_what_cannot_be(desk: FanOutDesk, spec: dict[str, Any], said: str) -> None:
    desk.write_fan_out(2, {"name": "one"}, {"name": "two"}, **spec)
    code, _, err = desk.do("run", "-f", "answers.yaml")
    assert (code, said in err) == (2, True), err
    assert not (desk.folder / ".headrace/batches").exists()


def test_run_names_the_line_of_a_when_that_does_not_parse(desk: FanOutDesk) -> None:
    desk.write_fan_out(2, {"name": "one", "when": "size(record.text) >"})
    code, _, err = desk.do("run", "-f", "answers.yaml")
    line = (desk.folder / "answers.yaml").read_text().splitlines().index("    when: size(record.text) >") + 1
    assert code == 2
    assert f"answers.yaml:{line}" in err
    assert "spec.branches[0].when: is not an expression in CEL" in err


def test_run_refuses_a_name_that_something_else_has(desk: FanOutDesk) -> None:
    desk.write_fan_out(2, {"name": "one"})
    assert desk.do("run", "-f", "answers.yaml")[0] == 0
    batch = {
        "model": {"name": "mock"},
        "engine": {"name": "mock"},
        "input": {"inline": [{"custom_id": "a"}], "format": "jsonl"},
    }
    for name, said in (("answers", "is a FanOutJob"), ("answers-one", "belongs to the FanOutJob answers")):
        head = {"apiVersion": "headrace.dev/v1alpha1", "kind": "InferenceBatch", "metadata": {"name": name}}
        (desk.folder / "other.yaml").write_text(yaml.safe_dump({**head, "spec": batch}))
        code, _, err = desk.do("run", "-f", "other.yaml")
        assert (code, said in err) == (1, True), err


def test_suspended_branches_go_on_when_they_are_let_go(desk: FanOutDesk) -> None:
    """An endpoint holds most of the answers back until all is at rest, so that nothing is over before that."""
    gate = Gate(free=4)
    with endpoint_server(gate.answer) as server:
        held = {"engine": engine_settings(server)}
        ids = desk.write_fan_out(20, {"name": "one", **held}, {"name": "two", **held})
        running = desk.start("run", "-f", "answers.yaml", "-q")
        eventually(partial(desk.has_begun, running, 2))
        assert desk.do("suspend", "answers")[0] == 0
        eventually(lambda: desk.object()["status"]["summary"]["state"] == "Suspended")
        assert desk.object("answers-one")["spec"]["suspend"]
        gate.open()
        assert desk.do("resume", "answers")[0] == 0
        _, err = running.communicate()
    assert running.returncode == 0, err
    assert [row["custom_id"] for row in desk.rows()] == ids


def test_a_cascade_gives_later_branches_what_is_disputed_alone(desk: FanOutDesk) -> None:
    sometimes = {"template": "{% if n % 3 %}{{ text }}{% else %}something else{% endif %}"}
    ids = desk.write_fan_out(
        60,
        {"name": "small"},
        {"name": "other", "prompt": sometimes},
        {"name": "large", "stage": 1, "weight": 3, "prompt": {"template": "think about {{ text }}"}, "shards": 2},
        {"name": "never", "stage": 2},
        aggregation={"type": "vote"},
        cascade={"minAgreementPercent": 60},
    )
    code, out, err = desk.do("run", "-f", "answers.yaml")
    assert (code, "answers is complete" in out) == (0, True), err
    rows = {row["custom_id"]: row["headrace"] for row in desk.rows("--all")}
    assert list(rows) == ids
    disputed = [name for n, name in enumerate(ids) if n % 3 == 0]
    assert [name for name, about in rows.items() if about["winner"] == "large"] == disputed
    assert rows["r1"]["missing"] == {"large": "not_escalated", "never": "not_escalated"}
    status = desk.object()["status"]
    assert status["stages"] == [
        {"stage": 1, "records": 20, "spared": 40}, {"stage": 2, "records": 0, "spared": 60}
    ]  # fmt: skip
    large = desk.object("answers-large")["status"]
    used = large["usage"]["promptTokens"] + large["usage"]["completionTokens"]
    assert large["records"]["total"] == 20
    assert status["savedTokens"] > used * 40 // 20, "of both later stages"
    assert [branch["state"] for branch in status["branches"]] == ["Complete", "Complete", "Complete", "NoRecords"]


def test_a_cascade_over_parts_gives_later_branches_the_disputed_parts_alone(desk: FanOutDesk) -> None:
    about = "{{ title }} {{ part.parent }} {{ part.position }}: {{ text }}"
    sometimes = "{% if part.position % 2 %}something else{% else %}" + about + "{% endif %}"
    desk.write_fan_out(
        0,
        {"name": "small", "prompt": {"template": about}, "shards": 3},
        {"name": "other", "prompt": {"template": sometimes}},
        {
            "name": "large",
            "stage": 1,
            "weight": 3,
            "when": "record.part.position > 1",
            "prompt": {"template": "Think. " + about},
        },
        split={"by": "lines", "size": 2},
        aggregation={"type": "vote"},
        cascade={"minAgreementPercent": 100},
    )
    text = "".join(f"verse {n}\n" for n in range(10))
    (desk.folder / "in.jsonl").write_text(json.dumps({"custom_id": "poem", "title": "Rain", "text": text}))
    code, out, err = desk.do("run", "-f", "answers.yaml")
    assert (code, "answers is complete" in out) == (0, True), err
    rows = {row["custom_id"]: row["headrace"] for row in desk.rows("--all")}
    assert list(rows) == [f"poem#{n:04}" for n in range(5)]
    assert [row["custom_id"] for row in desk.rows(name="answers-large")] == ["poem#0003"]
    assert rows["poem#0003"]["winner"] == "large"
    assert {rows[name]["missing"]["large"] for name in rows if name != "poem#0003"} == {"not_escalated"}
    assert desk.object()["status"]["stages"] == [{"stage": 1, "records": 2, "spared": 3}]
    plain = desk.object("answers-large")["spec"]["input"]
    assert (plain["format"], "split" in plain) == ("jsonl", False)


def test_a_cascade_that_is_killed_anywhere_ends_with_the_same_lines(desk: FanOutDesk) -> None:
    def write(spec_of: FanOutDesk) -> None:
        spec_of.write_fan_out(
            40,
            {"name": "small", "engine": mock(latencyMilliseconds=50)},
            {"name": "other", "prompt": {"template": "{{ text }}{{ 'x' * (n % 2) }}"}},
            {"name": "large", "stage": 1, "engine": mock(latencyMilliseconds=50, errorPercent=30)},
            aggregation={"type": "vote"},
            cascade={"minAgreementPercent": 100},
            completionPolicy={"mode": "BestEffort"},
        )

    write(desk)
    assert desk.do("run", "-f", "answers.yaml")[0] == 0
    expected = [(row["custom_id"], row["headrace"]) for row in desk.rows("--all")]
    (desk.folder / ".headrace").rename(desk.folder / "kept")
    rng = random.Random(3)
    for _ in range(4):
        running = desk.start("run", "-f", "answers.yaml")
        try:
            running.wait(timeout=1 + rng.random() * 3)  # a random moment is the point
        except subprocess.TimeoutExpired:
            running.send_signal(signal.SIGKILL)
            running.wait()
    assert desk.do("run", "-f", "answers.yaml")[0] == 0
    assert [(row["custom_id"], row["headrace"]) for row in desk.rows("--all")] == expected


def test_run_splits_texts_and_reduces_the_answers_in_their_order(desk: FanOutDesk) -> None:
    """Killed on the way; two shards share one text."""
    slow = {"engine": mock(latencyMilliseconds=30), "batching": {"maxBatchSize": 4}, "shards": 3}
    split = {"split": {"by": "lines", "size": 2}, "aggregation": {"type": "reduce", "reduce": {"separator": ""}}}
    desk.write_fan_out(0, {"name": "one", **slow}, {"name": "flaky", "engine": mock(errorPercent=50)}, **split)
    texts = {"poem": "".join(f"verse {n}\n" for n in range(60)), "note": "short"}
    lines = (json.dumps({"custom_id": name, "text": text}) for name, text in texts.items())
    (desk.folder / "in.jsonl").write_text("\n".join(lines))
    running = desk.start("run", "-f", "answers.yaml", "-q")
    eventually(partial(desk.has_begun, running, 5))
    running.send_signal(signal.SIGKILL)
    running.communicate()
    eventually(lambda: not desk.workers())
    assert desk.do("run", "-f", "answers.yaml")[0] == 0
    parts = desk.rows(name="answers-one")
    assert [row["custom_id"] for row in parts] == [*(f"poem#{n:04}" for n in range(30)), "note#0000"]
    said = [row["response"]["body"]["choices"][0]["message"]["content"] for row in parts]
    rows = {row["custom_id"]: row for row in desk.rows("--all")}
    answers = {name: row["response"]["body"]["choices"][0]["message"]["content"] for name, row in rows.items()}
    assert answers == {"poem": "".join(said[:30]), "note": said[30]}
    assert rows["poem"]["headrace"]["parts"] == {"total": 30, "answered": 30, "missing": {}}
    status = desk.object()["status"]
    assert (status["records"]["total"], status["branches"][0]["records"]["total"]) == (2, 31)
    assert desk.object("answers-one")["status"]["shards"]["total"] == 3
    assert 33 <= desk.object("answers-one")["status"]["evennessPercent"] <= 100


def test_run_splits_inline_records(desk: FanOutDesk) -> None:
    records = {"inline": [{"custom_id": "a", "text": "1\f2\f3"}], "format": "jsonl"}
    split = {"split": {"by": "pages", "size": 1}, "aggregation": {"type": "reduce"}}
    desk.write_fan_out(0, {"name": "one", "when": "record.part.position != 1"}, input=records, **split)
    assert desk.do("run", "-f", "answers.yaml")[0] == 0
    (row,) = desk.rows("--all")
    assert row["headrace"]["parts"] == {"total": 3, "answered": 2, "missing": {"a#0001": "not_routed"}}


def test_a_batch_over_the_joined_answers_has_the_last_word(desk: FanOutDesk) -> None:
    """As the documentation says: two objects in one file, the second of which reads what the first has left."""
    joined = (desk.folder / "joined").as_uri()
    more = {"split": {"by": "lines", "size": 1}, "aggregation": {"type": "reduce", "reduce": {"separator": " & "}}}
    desk.write_fan_out(0, {"name": "one"}, output={"uri": joined}, **more)
    (desk.folder / "in.jsonl").write_text(json.dumps({"custom_id": "poem", "text": "roses\nviolets"}))
    template = "Summarise: {{ response.body.choices[0].message.content }}"
    records = {"uri": f"{joined}/results/*.jsonl", "format": "jsonl", "prompt": {"template": template}}
    batch = {"model": {"name": "mock"}, "engine": {"name": "mock"}, "input": records}
    head = {"apiVersion": "headrace.dev/v1alpha1", "kind": "InferenceBatch", "metadata": {"name": "last-word"}}
    with (desk.folder / "answers.yaml").open("a") as file:
        file.write("---\n" + yaml.safe_dump({**head, "spec": batch}))
    code, _, err = desk.do("run", "-f", "answers.yaml")
    assert code == 0, err
    (row,) = desk.rows(name="last-word")
    assert row["custom_id"] == "poem"
    assert "Summarise: poem#0000: " in row["response"]["body"]["choices"][0]["message"]["content"]
    (whole,) = desk.rows()
    assert " & poem#0001: " in whole["response"]["body"]["choices"][0]["message"]["content"]
