"""A program of the user's as aggregator: what it gets, what it must write, and how it says that it cannot.

The answers are in `answers.jsonl`, one line for each record that has one, in the order of the input. The program writes `joined.jsonl`, one
line for each of these, in the same order. It says by `error.txt` that nothing can be joined; any other end with an exit code than 0 is a
crash, and is tried again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import orjson

from headrace.api.base import JsonObject
from headrace.api.input import InputFormat
from headrace.api.records import ErrorCode, RecordError
from headrace.api.worker import FanOutConfig, JoinReport, ManifestHeader, WorkerConfig
from headrace_worker.commit import same_batch
from headrace_worker.config import bad_config
from headrace_worker.errors import JobFailed
from headrace_worker.failures import input_failures
from headrace_worker.joining.answers import Answer, Joined, put_together, ranked
from headrace_worker.joining.cases import Case
from headrace_worker.joining.lines import Joiner
from headrace_worker.joining.reading import nothing_left, open_branches, records
from headrace_worker.manifest import read_header
from headrace_worker.stores import open_store

ANSWERS_FILE, JOINED_FILE, ERROR_FILE = "answers.jsonl", "joined.jsonl", "error.txt"
_KINDS = ("winner", "text", "body", "error")
_MESSAGE = 2000


def collect(config: WorkerConfig) -> JoinReport:
    """Write down the answers. Raises `JobFailed` like `join`."""
    if config.fan_out is None or config.fan_out.exchange is None:
        raise bad_config("fanOut.exchange must be set for the role collect")
    with input_failures():
        header = read_header(open_store(config.plan_uri), config.plan_uri)
    same_batch(header.batch, config.batch, config.plan_uri)
    folder = Path(config.fan_out.exchange)
    for name in (JOINED_FILE, ERROR_FILE):
        (folder / name).unlink(missing_ok=True)
    with (folder / ANSWERS_FILE).open("wb") as file:
        file.writelines(_answer_lines(config, config.fan_out))
    return _counts(header)


def _answer_lines(config: WorkerConfig, fan_out: FanOutConfig) -> Iterator[bytes]:
    joiner = Joiner(_never, fan_out.branches, fan_out.min_answers)
    with ExitStack() as stack:
        outputs = open_branches(open_store(config.output_uri), config.output_uri, fan_out.branches, stack)
        for record in records(config, fan_out.aggregation):
            case = joiner.gather(record, outputs)
            if case.answers:
                yield orjson.dumps(_shown(case, config.input.format), option=orjson.OPT_APPEND_NEWLINE)
        nothing_left(outputs)


def _never(_: object) -> Joined:
    raise AssertionError("who only gathers, aggregates nothing")


def _shown(case: Case, form: InputFormat) -> JsonObject:
    return {
        "custom_id": case.custom_id,
        "record": _record(case, form),
        "answers": [{"branch": it.branch, "weight": it.weight, "body": it.body} for it in case.answers],
        "missing": dict(case.missing),
    }


def _record(case: Case, form: InputFormat) -> JsonObject:
    if case.part is not None:
        return case.part
    if form == InputFormat.TEXT:
        return {"text": case.raw.decode(errors="replace")}
    fields: JsonObject = orjson.loads(case.raw)
    return fields


def _counts(header: ManifestHeader) -> JoinReport:
    report = JoinReport()
    return report.model_copy(update={"records": report.records.model_copy(update={"total": header.records})})


class ProgramAnswers:
    """What the program has written, line by line. Raises `JobFailed` (`AggregatorFailed`) when it says so, or breaks the contract."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        error = folder / ERROR_FILE
        if error.exists() and (said := error.read_text(errors="replace").strip()):
            raise _failed(said[:_MESSAGE])
        path = folder / JOINED_FILE
        if not path.exists():
            raise _failed(f"it has ended well, but written neither {JOINED_FILE} nor {ERROR_FILE}")
        self._lines = stack.enter_context(path.open("rb"))
        self._number = 0

    def joined(self, case: Case) -> Joined:
        """Its answer to the record that comes next. Raises `RecordError` where it says that there is none."""
        self._number += 1
        raw = self._lines.readline()
        if not raw:
            raise _failed(f"{JOINED_FILE} ends after {self._number - 1} lines, before the record {case.custom_id}")
        row = self._object(raw, case)
        (kind,) = (name for name in _KINDS if row.get(name) is not None)
        value = row[kind]
        if kind == "error":
            raise RecordError(ErrorCode.NOT_JOINABLE, str(value)[:_MESSAGE])
        answers = {answer.branch: answer for answer in case.answers}
        scores = row.get("scores") or {}
        if kind == "winner":
            if not isinstance(value, str) or value not in answers:
                raise self._wrong(f"winner must be one of {', '.join(answers)}, not {value}")
            return Joined(answers[value].body, tuple(answers), value, scores)
        return Joined(self._body(kind, value, case), tuple(answers), None, scores)

    def nothing_left(self) -> None:
        """Raise when it has written more lines than there are records."""
        if self._lines.readline():
            raise _failed(f"{JOINED_FILE} has more lines than {ANSWERS_FILE}, which has {self._number}")

    def _object(self, raw: bytes, case: Case) -> dict[str, Any]:
        try:
            row = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            raise self._wrong(f"must be JSON: {error}") from error
        if not isinstance(row, dict) or row.get("custom_id") != case.custom_id:
            raise self._wrong(
                f"must be an object with the custom_id {case.custom_id}: lines are in the order of {ANSWERS_FILE}"
            )
        if sum(row.get(name) is not None for name in _KINDS) != 1:
            raise self._wrong(f"must have exactly one of {', '.join(_KINDS)}")
        if not isinstance(row.get("scores") or {}, dict):
            raise self._wrong("scores must be an object")
        return row

    def _body(self, kind: str, value: Any, case: Case) -> JsonObject:
        if kind == "body":
            if not isinstance(value, dict):
                raise self._wrong("body must be an object")
            return value
        like: list[Answer] = [answer for answer, _ in case.candidates]
        if not isinstance(value, str) or not like:
            raise self._wrong("text must be a text, and be made of at least one answer that has one")
        return put_together(value, ranked(like)[0], like)

    def _wrong(self, what: str) -> JobFailed:
        return _failed(f"line {self._number} of {JOINED_FILE}: {what}")


def _failed(why: str) -> JobFailed:
    return JobFailed("AggregatorFailed", f"the program of aggregation.image: {why}")
