"""Looking at a run that is done: what `finalize` writes down and reports, and what `plan` refuses beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest

from headrace.api.evaluation import Feature
from headrace.api.records import ErrorCode, RecordError, error_line, result_line
from headrace.api.worker import EvaluationReport, WorkerConfig, termination_message
from headrace_worker.errors import JobFailed
from headrace_worker.finalize import finalize
from headrace_worker.journal import ShardJournal
from headrace_worker.layout import record_id
from headrace_worker.ledger import Entry
from headrace_worker.manifest import iter_shards, read_header
from headrace_worker.planning.plan import plan
from headrace_worker.stores.local import LocalStore
from worker_builders import NOW, a_chat, a_config, no_progress, write_files

STORE = LocalStore()
ENGLISH = "Where is the parcel with the number {} that I ordered two weeks ago?"
GERMAN = "Wo ist das Paket mit der Nummer {}, das ich vor zwei Wochen bestellt habe und das nie gekommen ist?"
LABELS = {"match": "Label", "labels": ["yes", "no"]}
Answers = Mapping[str, str | None]
"""By `custom_id`; None for a record that has failed."""


def planned(folder: Path, lines: list[bytes], **fields: Any) -> WorkerConfig:
    write_files(folder, {"in.jsonl": lines})
    config = a_config(folder, **{"shards": 3, "evaluation": {}, **fields})
    report = plan(config, None, NOW, no_progress)
    assert report.error_count == 0, report.errors
    return config


def run(config: WorkerConfig, answers: Answers, attempts: int = 1) -> None:
    """Work on all shards; the pods before the last attempt have done half of a shard and died."""
    header = read_header(STORE, config.plan_uri)
    for shard in iter_shards(STORE, config.plan_uri):
        ids = list(answers)[shard.first_record : shard.first_record + shard.records]
        for attempt in range(attempts):
            claimed = ShardJournal.claim(STORE, config.output_uri, shard, header, config.round)
            assert isinstance(claimed, ShardJournal)
            last = attempt == attempts - 1
            with claimed as journal:
                for position, name in enumerate(ids if last else ids[: len(ids) // 2]):
                    if not journal.ledger.is_finished(position):
                        journal.append([_entry(record_id(shard, position), position, name, answers[name])])
                journal.sync()
                if last:
                    journal.commit()


def _entry(record: str, position: int, name: str, answer: str | None) -> Entry:
    if answer is None:
        line = error_line(record, name, RecordError(ErrorCode.MOCK_ERROR, "made to fail"), 1)
        return Entry(position, line, failed=True)
    body = {"choices": [{"index": 0, "message": {"role": "assistant", "content": answer}, "finish_reason": "stop"}]}
    return Entry(position, result_line(record, name, body, 1), failed=False)


def evaluated(config: WorkerConfig) -> EvaluationReport:
    report = finalize(config).evaluation
    assert report is not None
    return report


def document(config: WorkerConfig) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(STORE.read(f"{config.output_uri}evaluation.json"))
    return found


def a_run(folder: Path, text: str = ENGLISH, answer: str = "On its way.", **fields: Any) -> WorkerConfig:
    """A run of 90 records that is done."""
    folder.mkdir(exist_ok=True)
    config = planned(folder, [a_chat(f"r{number}", text.format(number)) for number in range(90)], **fields)
    run(config, {f"r{number}": answer for number in range(90)})
    return config


def test_scores_count_each_record_that_says_what_is_expected(tmp_path: Path) -> None:
    expected = {"a": "yes", "b": "yes", "c": "no", "d": "no", "e": None}
    lines = [a_chat(name, **({"expected": said} if said else {})) for name, said in expected.items()]
    config = planned(tmp_path, lines, evaluation=LABELS)
    run(config, {"a": "Yes!", "b": "no", "c": "It is: no.", "d": None, "e": "yes"})
    scores = evaluated(config).scores
    assert scores is not None
    assert (scores.expected, scores.correct, scores.accuracy) == (4, 2, "0.5000")
    assert document(config)["labels"] == {
        "yes": {"expected": 2, "answered": 1, "correct": 1},
        "no": {"expected": 2, "answered": 2, "correct": 1},
    }


def test_scores_are_of_the_field_expected_of_json_lines(tmp_path: Path) -> None:
    rows = [{"custom_id": "a", "text": "2 + 2", "expected": "4"}, {"custom_id": "b", "text": "3 + 3", "expected": "6"}]
    lines = [orjson.dumps(row) + b"\n" for row in rows]
    config = planned(tmp_path, lines, input={"format": "jsonl", "prompt": {"template": "{{ text }}"}})
    run(config, {"a": "4.", "b": "7"})
    scores = evaluated(config).scores
    assert scores is not None
    assert (scores.expected, scores.correct) == (2, 1)


def test_shards_that_were_killed_and_taken_over_count_each_record_once(tmp_path: Path) -> None:
    """Whatever died on the way, the same bytes come of it; and also when it is looked at twice."""
    lines = [a_chat(f"r{number}", ENGLISH.format(number), expected="yes") for number in range(20)]
    answers = {f"r{number}": None if number % 5 == 0 else "yes" if number % 2 else "no" for number in range(20)}
    seen: list[object] = []
    for folder, attempts in ((tmp_path / "calm", 1), (tmp_path / "stormy", 3)):
        folder.mkdir()
        config = planned(folder, lines, evaluation=LABELS)
        run(config, answers, attempts)
        seen += [evaluated(config), evaluated(config)]
        seen.append(STORE.read(f"{config.output_uri}evaluation.json"))
    assert seen[:3] == seen[3:]


def test_retry_that_mends_records_is_what_is_looked_at(tmp_path: Path) -> None:
    lines = [a_chat(f"r{number}", expected="yes") for number in range(6)]
    config = planned(tmp_path, lines, evaluation=LABELS)
    run(config, {f"r{number}": None if number == 4 else "yes" for number in range(6)})
    before = evaluated(config).scores
    again = config.model_copy(update={"round": 1})
    header = read_header(STORE, config.plan_uri)
    for shard in iter_shards(STORE, config.plan_uri):
        journal = ShardJournal.claim(STORE, config.output_uri, shard, header, 1)
        if isinstance(journal, ShardJournal):
            journal.append([_entry(record_id(shard, 0), 0, f"r{shard.first_record}", "yes")])
            journal.commit()
    after = evaluated(again).scores
    assert before is not None
    assert after is not None
    assert (before.correct, after.correct) == (5, 6)


def test_run_that_is_like_its_reference_has_not_drifted(tmp_path: Path) -> None:
    january = a_run(tmp_path / "january")
    assert evaluated(january).compared == ()
    february = a_run(tmp_path / "february", evaluation={"reference": january.output_uri})
    compared = {one.feature: float(one.psi) for one in evaluated(february).compared}
    assert compared.keys() >= {Feature.PROMPT_LENGTH, Feature.REFUSAL_RATE, Feature.ERROR_RATE}
    assert set(compared.values()) == {0.0}
    assert document(february)["reference"] == january.output_uri


def test_run_in_another_language_with_refusals_has_drifted_in_just_that(tmp_path: Path) -> None:
    pytest.importorskip("py3langid")
    january = a_run(tmp_path / "january")
    evaluated(january)
    answer = "I'm sorry, but I can't help with that."
    february = a_run(tmp_path / "february", GERMAN, answer, evaluation={"reference": january.output_uri})
    drifted = {one.feature for one in evaluated(february).compared if float(one.psi) > float(one.chance)}
    assert drifted == {Feature.PROMPT_LENGTH, Feature.LANGUAGE, Feature.REFUSAL_RATE}


def test_vectors_are_compared_when_both_runs_have_them_of_one_model(tmp_path: Path) -> None:
    embedding = {"model": {"name": "e", "task": "embedding"}, "engine": {"name": "mock"}}
    january = a_run(tmp_path / "january", evaluation={"embedding": embedding})
    assert evaluated(january).compared == ()
    wanted = {"reference": january.output_uri, "embedding": embedding}
    february = a_run(tmp_path / "february", evaluation=wanted)
    same = {one.feature: one.psi for one in evaluated(february).compared}
    assert same[Feature.EMBEDDING_BUCKET] == "0.0000"
    other = {**wanted, "embedding": {**embedding, "model": {"name": "f", "task": "embedding"}}}
    report = evaluated(a_run(tmp_path / "march", evaluation=other))
    assert Feature.EMBEDDING_BUCKET in report.missing


def test_answers_of_the_task_embedding_are_the_vectors(tmp_path: Path) -> None:
    model = {"name": "e", "task": "embedding"}
    lines = [orjson.dumps({"custom_id": f"r{number}", "body": {"input": "text"}}) + b"\n" for number in range(4)]
    config = planned(tmp_path, lines, model=model, shards=1)
    (shard,) = iter_shards(STORE, config.plan_uri)
    journal = ShardJournal.claim(STORE, config.output_uri, shard, read_header(STORE, config.plan_uri))
    assert isinstance(journal, ShardJournal)
    for position in range(4):
        body = {"data": [{"index": 0, "embedding": [1.0, float(position), -1.0]}]}
        line = result_line(record_id(shard, position), f"r{position}", body, 1)
        journal.append([Entry(position, line, failed=False)])
    journal.commit()
    assert evaluated(config).failure is None
    assert sum(document(config)["distributions"]["EmbeddingBucket"].values()) == 4
    assert document(config)["embedding"]["dimensions"] == 3


@pytest.mark.parametrize(
    ("content", "reason", "sentence"),
    [
        pytest.param(None, "ReferenceNotFound", "must be the output folder of a run that is complete", id="nothing there"),
        pytest.param(b"{", "ReferenceMismatch", "is no JSON", id="no JSON"),
        pytest.param(b'{"kind": "Other"}', "ReferenceMismatch", "is not the evaluation of a run", id="another file"),
        pytest.param(b"[]", "ReferenceMismatch", "is not the evaluation of a run", id="a list"),
        pytest.param(
            b'{"kind": "Evaluation", "version": 2}', "ReferenceMismatch", "is of the version 2", id="a version to come"
        ),
        pytest.param(
            b'{"kind": "Evaluation", "version": 1}', "ReferenceMismatch", "not as Headrace writes it", id="half of it"
        ),
        pytest.param(
            orjson.dumps(
                {"version": 1, "kind": "Evaluation", "batch": {"namespace": "a", "name": "b", "uid": "c"},
                 "task": "embedding", "records": 1, "distributions": {}}
            ),
            "ReferenceMismatch",
            "is of a run of the task embedding, and this one is of chat",
            id="another task",
        ),
    ],
)  # fmt: skip
def test_plan_refuses_a_reference_that_nothing_can_be_compared_with(
    tmp_path: Path, content: bytes | None, reason: str, sentence: str
) -> None:
    write_files(tmp_path, {"in.jsonl": [a_chat("a")], **({"ref/evaluation.json": content} if content else {})})
    config = a_config(tmp_path, evaluation={"reference": f"{tmp_path.as_uri()}/ref/"})
    with pytest.raises(JobFailed, match=sentence) as error:
        plan(config, None, NOW, no_progress)
    assert error.value.failure.reason == reason
    assert not (tmp_path / "out").exists(), "nothing was begun"


def test_plan_names_the_lines_whose_expected_answer_is_none(tmp_path: Path) -> None:
    lines = [a_chat("a", expected="yes"), a_chat("b", expected=1), a_chat("c", expected="maybe"), a_chat("d")]
    write_files(tmp_path, {"in.jsonl": lines})
    report = plan(a_config(tmp_path, evaluation=LABELS), None, NOW, no_progress)
    assert [(error.line, error.code, error.param) for error in report.errors] == [
        (2, "invalid_expected", "expected"),
        (3, "invalid_expected", "expected"),
    ]


def test_expected_answers_that_nobody_evaluates_are_let_be(tmp_path: Path) -> None:
    write_files(tmp_path, {"in.jsonl": [a_chat("a", expected=1)]})
    assert plan(a_config(tmp_path), None, NOW, no_progress).error_count == 0


def test_reference_that_has_gone_since_the_plan_leaves_the_scores(tmp_path: Path) -> None:
    january = a_run(tmp_path / "january")
    evaluated(january)
    february = a_run(tmp_path / "february", evaluation={"reference": january.output_uri})
    (tmp_path / "january/out/evaluation.json").unlink()
    report = evaluated(february)
    assert report.incomparable is not None
    assert report.incomparable.reason == "ReferenceNotFound"
    assert document(february)["records"] == 90


def test_input_that_has_changed_since_is_told_and_costs_nothing_else(tmp_path: Path) -> None:
    config = a_run(tmp_path / "january")
    (tmp_path / "january/in.jsonl").write_bytes(b"".join(a_chat(f"x{number}") for number in range(90)))
    report = finalize(config)
    assert report.records.succeeded == 90
    assert report.evaluation is not None
    assert report.evaluation.failure is not None
    assert report.evaluation.failure.reason == "InputChanged"


def test_run_that_was_stopped_is_not_looked_at(tmp_path: Path) -> None:
    config = planned(tmp_path, [a_chat("a")], stopReason="batch_cancelled")
    assert finalize(config).evaluation is None


def test_report_fits_into_a_termination_message(tmp_path: Path) -> None:
    january = a_run(tmp_path / "january")
    evaluated(january)
    february = a_run(tmp_path / "february", GERMAN, evaluation={"reference": january.output_uri})
    assert len(termination_message(finalize(february))) < 2048
