"""From the branches' lines about one record to the one line that the joined output has of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from headrace.api.base import JsonObject
from headrace.api.records import ErrorCode, RecordError, joined_line
from headrace.api.worker import JoinBranch
from headrace_worker.joining.aggregators import Aggregator
from headrace_worker.joining.answers import Answer, Joined
from headrace_worker.joining.branches import BranchOutput
from headrace_worker.joining.cases import Case

NOT_ROUTED = ErrorCode.NOT_ROUTED.value
"""Why a branch has no answer to a record: its `when` is not true for it."""
NOT_ESCALATED = ErrorCode.NOT_ESCALATED.value
"""Why a branch of a later stage has none."""
_NOT_ASKED = (NOT_ROUTED, NOT_ESCALATED)
_MESSAGE = 2000


class ProgramLines(Protocol):
    """What a program of the user's has made of the answers."""

    def joined(self, case: Case) -> Joined:
        """Of the record that comes next. Raises `RecordError` where there is nothing."""


class Outcome(NamedTuple):
    """What the answers to one record come to."""

    answer: Joined | RecordError
    missing: Mapping[str, str]
    """Branches without an answer that can be used, in the order of the spec, and why."""


@dataclass(frozen=True)
class Joiner:
    """Makes one answer, and one line, of the branches' lines about one record."""

    aggregate: Aggregator
    branches: tuple[JoinBranch, ...]
    min_answers: int = 1
    """How many of the branches that take a record must have answered it."""
    program: ProgramLines | None = None
    """What somebody else has made of the answers; then nothing is aggregated here."""

    def gather(self, case: Case, outputs: Mapping[str, BranchOutput]) -> Case:
        """The case with what the branches have answered to it; where that is not enough, no answer counts."""
        answers: list[Answer] = []
        missing: dict[str, str] = {}
        said: list[str] = []
        attempts = 0
        for branch in self.branches:
            row = outputs[branch.name].take(case.custom_id) if branch.joined else None
            if row is None:
                missing[branch.name] = _not_given(branch) if branch.joined else branch.reason
                continue
            attempts += row["attempts"]
            if row["response"] is not None:
                answers.append(Answer(branch.name, branch.weight, row["response"]["body"]))
            else:
                missing[branch.name] = row["error"]["code"]
                said.append(f"{branch.name}: {row['error']['message']}")
        shortage = self._shortage(len(answers), missing, said)
        if shortage is not None:
            missing = self._in_order({**missing, **{answer.branch: shortage.code.value for answer in answers}})
            answers = []
        return case._replace(
            answers=tuple(answers), missing=missing, said=tuple(said), shortage=shortage, attempts=attempts
        )

    def _shortage(self, answered: int, missing: Mapping[str, str], said: Sequence[str]) -> RecordError | None:
        """Why the record can have no answer; None when it can."""
        owing = {branch: why for branch, why in missing.items() if why not in _NOT_ASKED}
        reasons = "; ".join(said) or "; ".join(f"{branch}: {why}" for branch, why in owing.items())
        if not answered and not owing:
            message = "no branch takes this record: the when of none of them is true for it"
            return RecordError(ErrorCode.NOT_ROUTED, message)
        if not answered:
            return RecordError(ErrorCode.NO_ANSWER, f"no branch has answered: {reasons}"[:_MESSAGE])
        required = [branch.name for branch in self.branches if branch.required and branch.name in owing]
        if required:
            message = f"no answer from {', '.join(required)}, which must be there: {reasons}"
            return RecordError(ErrorCode.REQUIRED_BRANCH_MISSING, message[:_MESSAGE])
        needed = min(self.min_answers, answered + len(owing))
        if answered < needed:
            message = f"{answered} of the {needed} answers that must be there: {reasons}"
            return RecordError(ErrorCode.NOT_ENOUGH_ANSWERS, message[:_MESSAGE])
        return None

    def joined(self, case: Case) -> Joined:
        """The one answer to the record. Raises `RecordError` when there is none."""
        if case.shortage is not None:
            raise case.shortage
        if isinstance(case.question, RecordError):
            raise case.question
        return self.aggregate(case.answers) if self.program is None else self.program.joined(case)

    def outcome(self, case: Case) -> Outcome:
        """The same, with the reason where there is none."""
        try:
            joined = self.joined(case)
        except RecordError as error:
            unusable = {answer.branch: error.code.value for answer in case.answers}
            return Outcome(error, self._in_order({**case.missing, **unusable}))
        return Outcome(joined, self._in_order({**case.missing, **joined.missing}))

    def line(self, case: Case) -> tuple[bytes, bool]:
        """The line of the record, and whether it is an error."""
        answer, missing = self.outcome(case)
        if isinstance(answer, RecordError):
            about = _about(None, missing, case.verdict)
            return joined_line(case.id, case.custom_id, answer, about, case.attempts), True
        about = _about(answer, missing, case.verdict)
        return joined_line(case.id, case.custom_id, answer.body, about, case.attempts), False

    def _in_order(self, missing: Mapping[str, str]) -> dict[str, str]:
        return {branch.name: missing[branch.name] for branch in self.branches if branch.name in missing}


def _about(joined: Joined | None, missing: Mapping[str, str], verdict: JsonObject | None) -> dict[str, object]:
    return {
        "winner": joined.winner if joined is not None else None,
        "scores": joined.scores if joined is not None else {},
        "contributing": joined.contributing if joined is not None else (),
        "missing": missing,
        **({"verdict": verdict} if verdict is not None else {}),
    }


def _not_given(branch: JoinBranch) -> str:
    """Why a branch has no line of a record: its `when`, or in a cascade that the record was settled before."""
    return NOT_ROUTED if branch.stage == 0 else NOT_ESCALATED
