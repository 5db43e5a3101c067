"""The role `select`: the records that are not settled go on, as they stand in the input."""

from __future__ import annotations

import random
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.api.cascade import Cascade
from headrace.api.input import Input
from headrace.api.records import ErrorCode
from headrace.api.splitting import Split, SplitBy
from headrace.api.worker import ExitCode, Role, SelectReport, WorkerConfig, stage_input
from headrace_worker.errors import JobFailed
from headrace_worker.formats.shards import read_shard
from headrace_worker.joining.answers import Joined
from headrace_worker.joining.select import is_settled, select
from headrace_worker.manifest import iter_shards
from headrace_worker.planning.plan import plan
from headrace_worker.stores.local import LocalStore
from worker_fanout import FanOut
from worker_rig import CREATED, Zygote

STORE = LocalStore()
LOST = ErrorCode.ENGINE_ERROR
DISPUTED = {"minAgreementPercent": 100}


class Staged(FanOut):
    """A FanOutJob whose first stage has ended."""

    cascade: dict[str, Any] = DISPUTED

    def config_json(self) -> bytes:
        """What `HEADRACE_CONFIG` says."""
        told = orjson.loads(super().config_json())
        told["fanOut"] |= {"cascade": self.cascade, "stage": 1}
        return orjson.dumps(told)

    def select(self) -> SelectReport:
        """Play the role."""
        return select(self.config(), lambda _: None)

    @property
    def file(self) -> Path:
        """The input of the next stage."""
        return self.output / "_headrace/stages/1.jsonl"

    @property
    def selected(self) -> str:
        """The ids of the records that go on."""
        return "".join(orjson.loads(line)["custom_id"] for line in self.file.read_bytes().splitlines())


def staged(path: Path, records: str | list[str], cascade: dict[str, Any] | None = None, **aggregation: Any) -> Staged:
    """The first stage over records of these ids."""
    fan_out = Staged(path, aggregation=aggregation or {"type": "vote"})
    fan_out.cascade = cascade or DISPUTED
    fan_out.plan(records)
    return fan_out


def test_select_takes_what_is_disputed_and_what_has_no_answer(tmp_path: Path) -> None:
    fan_out = staged(tmp_path, "abcdef")
    fan_out.answer("one", {"a": "yes", "b": "yes", "c": LOST, "d": "yes", "e": None})
    fan_out.answer("two", {"a": "Yes.", "b": "no", "c": LOST, "d": LOST, "e": None})
    assert fan_out.select() == SelectReport(stage=1, records=4, spared=2)
    assert fan_out.selected == "bcef"


def test_select_takes_what_scores_low(tmp_path: Path) -> None:
    scorers = [{"regex": {"pattern": "^[0-9]+$"}}, {"length": {}}]
    fan_out = staged(tmp_path, "abc", {"minScore": 1}, type="bestOf", bestOf={"scorers": scorers})
    fan_out.answer("one", {"a": "12", "b": "twelve", "c": "12 or so"})
    fan_out.answer("two", {"a": "twelve", "b": "a dozen", "c": "12"})
    assert (fan_out.select().records, fan_out.selected) == (1, "b")


def test_select_writes_the_very_lines_of_the_input(tmp_path: Path) -> None:
    fan_out = staged(tmp_path, "abc")
    fan_out.answer("one", {"b": "yes"})
    fan_out.select()
    lines = (tmp_path / "input.jsonl").read_bytes().splitlines(keepends=True)
    assert fan_out.file.read_bytes() == lines[0] + lines[2]


def test_select_makes_objects_of_files(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.txt", "b.txt"):
        (tmp_path / "in" / name).write_text(f"I am {name}\n\nand have two paragraphs.")
    fan_out = Staged(tmp_path, aggregation={"type": "vote"})
    fan_out.fields["input"] = {"uri": (tmp_path / "in").as_uri(), "format": "text"}
    fan_out.plan_as_it_is()
    fan_out.answer("one", {"a.txt": "yes", "b.txt": "yes"})
    fan_out.answer("two", {"a.txt": "yes", "b.txt": "no"})
    fan_out.select()
    assert orjson.loads(fan_out.file.read_bytes()) == {
        "custom_id": "b.txt", "text": "I am b.txt\n\nand have two paragraphs."
    }  # fmt: skip


TEXT_PARTS = (SplitBy.CHUNKS, SplitBy.LINES, SplitBy.PAGES)


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.text(alphabet='ab. \n\fé👋"\x00', max_size=40), min_size=1, max_size=5),
    size=st.integers(1, 9), by=st.sampled_from(TEXT_PARTS), as_files=st.booleans(), data=st.data(),
)  # fmt: skip
def test_a_part_that_goes_on_is_asked_as_it_was_before(
    texts: list[str], size: int, by: SplitBy, as_files: bool, data: st.DataObject
) -> None:
    """Whatever its text, the next stage has the same record of it: id, text, and the fields that templates see."""
    split = Split(by=by, size=size, overlap=data.draw(st.integers(0, size - 1)))
    with tempfile.TemporaryDirectory() as name:
        fan_out = a_split_stage(Path(name), texts, split, as_files)
        before = asked(fan_out.config(), fan_out.config().input)
        settled = set(data.draw(st.lists(st.sampled_from(sorted(before)), unique=True)))
        fan_out.answer("one", dict.fromkeys(before, "yes"))
        fan_out.answer("two", {part: "yes" if part in settled else "no" for part in before})
        report = fan_out.select()
        assert (report.records, report.spared) == (len(before) - len(settled), len(settled))
        assert fan_out.selected == "".join(part for part in before if part not in settled)
        if report.records:
            config = fan_out.config()
            later = config.model_copy(update={"plan_uri": f"{config.output_uri}plan-1.jsonl", "shards": 2})
            stage = stage_input(config.input, config.output_uri, 1)
            plan(later.model_copy(update={"input": stage}), check=None, now=CREATED, progress=lambda _: None)
            assert asked(later, stage) == {part: body for part, body in before.items() if part not in settled}


def a_split_stage(path: Path, texts: list[str], split: Split, as_files: bool) -> Staged:
    """A planned fan-out over parts of these texts, as lines with one more field or as files."""
    fan_out = Staged(path, aggregation={"type": "vote"})
    (path / "in").mkdir()
    if as_files:
        for number, text in enumerate(texts):
            (path / "in" / f"r{number}").write_bytes(text.encode())
    rows = [orjson.dumps({"n": n, "custom_id": f"r{n}", "text": text}) for n, text in enumerate(texts)]
    (path / "lines.jsonl").write_bytes(b"\n".join(rows))
    fan_out.fields["input"] = {
        "uri": (path / ("in" if as_files else "lines.jsonl")).as_uri(),
        "format": "text" if as_files else "jsonl",
        "split": split.to_object(),
        "prompt": {
            "template": "{{ n | default('-') }} {{ custom_id }} {{ part.parent }} {{ part.position }} {{ text }}"
        },
    }
    fan_out.plan_as_it_is()
    return fan_out


def asked(config: WorkerConfig, spec: Input) -> dict[str, Any]:
    """The requests of what was planned, by id."""
    return {
        request.custom_id: request.body
        for shard in iter_shards(STORE, config.plan_uri)
        for _, request in read_shard(STORE, shard, spec, config.model)
    }


def test_parts_that_have_gone_on_are_joined_with_what_they_were_answered_before(tmp_path: Path) -> None:
    split = Split(by=SplitBy.LINES, size=1)
    fan_out = a_split_stage(tmp_path, ["a\nb", "c"], split, as_files=True)
    fan_out.answer("one", {"r0#0000": "yes", "r0#0001": "yes", "r1#0000": "yes"})
    fan_out.answer("two", {"r0#0000": "yes", "r0#0001": "no", "r1#0000": LOST})
    fan_out.select()
    assert fan_out.selected == "r0#0001"
    fan_out.answer("large", {"r0#0001": "perhaps"}, stage=1, weight=9)
    fan_out.join()
    assert {part: fan_out.said(part) for part in fan_out.rows()} == {
        "r0#0000": "yes", "r0#0001": "perhaps", "r1#0000": "yes"
    }  # fmt: skip
    assert fan_out.about("r0#0000")["missing"] == {"large": "not_escalated"}


def test_select_of_nothing_leaves_an_empty_file(tmp_path: Path) -> None:
    fan_out = staged(tmp_path, "ab")
    fan_out.answer("one", {"a": "yes", "b": "yes"})
    assert fan_out.select() == SelectReport(stage=1, records=0, spared=2)
    assert fan_out.file.read_bytes() == b""


def test_select_keeps_a_selection_that_is_there(tmp_path: Path) -> None:
    fan_out = staged(tmp_path, "ab")
    fan_out.answer("one", {"a": "yes", "b": "yes"})
    fan_out.answer("two", {"a": "yes", "b": "no"})
    fan_out.select()
    fan_out.answer("two", {"a": "no", "b": "no"})
    assert (fan_out.select(), fan_out.selected) == (SelectReport(stage=1, records=1, spared=1), "b")


def test_select_refuses_branches_that_have_read_another_input(tmp_path: Path) -> None:
    fan_out = staged(tmp_path, "ab")
    fan_out.answer("one", {"b": "yes", "a": "yes"})
    with pytest.raises(JobFailed, match="InputChanged"):
        fan_out.select()
    assert not fan_out.file.exists()


def test_select_is_the_same_however_often_it_is_killed(tmp_path: Path, zygote: Zygote) -> None:
    """With a model that is asked about each window, killed ten times at any moment."""
    ids, rng = [f"r{number}" for number in range(600)], random.Random(11)
    engine = {"name": "mock", "mock": {"latencyMilliseconds": 10}}
    cluster = {"model": {"name": "mock", "task": "embedding"}, "engine": engine}
    fan_out = staged(tmp_path, ids, type="vote", vote={"comparison": "Cluster", "cluster": cluster})
    for branch in ("one", "two"):
        fan_out.answer(branch, {i: rng.choice(["yes", "no", LOST]) for i in ids}, shards=3)
    assert zygote.run(fan_out, Role.SELECT).wait() == ExitCode.DONE
    expected, kills = fan_out.file.read_bytes(), 0
    while kills < 10:
        fan_out.file.unlink(missing_ok=True)
        worker = zygote.start(fan_out, Role.SELECT)
        time.sleep(rng.random() * 0.3)  # no synchronisation: a random moment is the point
        worker.kill()
        kills += worker.wait() == -signal.SIGKILL
    worker = zygote.run(fan_out, Role.SELECT)
    assert worker.wait() == ExitCode.DONE
    assert fan_out.file.read_bytes() == expected
    assert isinstance(worker.report, SelectReport)
    assert worker.report.records == expected.count(b"\n")


@pytest.mark.parametrize(
    ("cascade", "score", "settled"),
    [
        pytest.param({"minAgreementPercent": 100}, 3, True, id="all agree"),
        pytest.param({"minAgreementPercent": 100}, 2, False, id="one does not"),
        pytest.param({"minAgreementPercent": 66}, 2, True, id="two thirds are enough"),
        pytest.param({"minAgreementPercent": 67}, 2, False, id="two thirds are not enough"),
        pytest.param({"minScore": -7}, [-7, 0], True, id="a score that is just good enough"),
        pytest.param({"minScore": -7}, [-8, 9], False, id="the second scorer does not count"),
    ],
)
def test_is_settled_looks_at_the_winner(cascade: dict[str, Any], score: Any, settled: bool) -> None:
    found = Joined({}, ("a", "b", "c"), "a", {"a": score})
    assert is_settled(Cascade.parse(cascade), found, {"a": 1, "b": 1, "c": 1}) == settled


def test_is_settled_never_by_branches_without_weight() -> None:
    assert not is_settled(Cascade(min_agreement_percent=1), Joined({}, ("a",), "a", {"a": 0}), {"a": 0})


@given(st.lists(st.integers(0, 5), min_size=1, max_size=5), st.integers(1, 100), st.integers(1, 100), st.data())
def test_asking_for_more_agreement_never_settles_more(
    weights: list[int], one: int, other: int, data: st.DataObject
) -> None:
    named = {f"b{place}": weight for place, weight in enumerate(weights)}
    votes = data.draw(st.integers(0, sum(weights)))
    found = Joined({}, tuple(named), "b0", {"b0": votes})
    lenient, strict = sorted((one, other))
    if is_settled(Cascade(min_agreement_percent=strict), found, named):
        assert is_settled(Cascade(min_agreement_percent=lenient), found, named)
