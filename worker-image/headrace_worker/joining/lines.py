"""From the branches' lines about one record to the one line that the joined output has of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from headrace.api.records import ErrorCode, RecordError, joined_line
from headrace.api.worker import JoinBranch
from headrace_worker.joining.aggregators import Aggregator
from headrace_worker.joining.answers import Answer, Joined
from headrace_worker.joining.branches import BranchOutput

NOT_ROUTED = ErrorCode.NOT_ROUTED.value
"""Why a branch has no answer to a record: its `when` is not true for it."""


@dataclass(frozen=True)
class Joiner:
    """Makes one line of the branches' lines about one record."""

    aggregate: Aggregator
    branches: tuple[JoinBranch, ...]

    def line(self, name: str, custom_id: str, outputs: Mapping[str, BranchOutput]) -> tuple[bytes, bool]:
        """The line of the record, and whether it is an error."""
        answers: list[Answer] = []
        missing: dict[str, str] = {}
        said: list[str] = []
        attempts = 0
        for branch in self.branches:
            row = outputs[branch.name].take(custom_id) if branch.joined else None
            if row is None:
                missing[branch.name] = NOT_ROUTED if branch.joined else branch.reason
                continue
            attempts += row["attempts"]
            if row["response"] is not None:
                answers.append(Answer(branch.name, branch.weight, row["response"]["body"]))
            else:
                missing[branch.name] = row["error"]["code"]
                said.append(f"{branch.name}: {row['error']['message']}")
        try:
            if not answers:
                raise _unanswered(missing, said)
            joined = self.aggregate(answers)
        except RecordError as error:
            unusable = {answer.branch: error.code.value for answer in answers}
            about = self._about(None, missing | unusable)
            return joined_line(name, custom_id, error, about, attempts), True
        about = self._about(joined, missing | dict(joined.missing))
        return joined_line(name, custom_id, joined.body, about, attempts), False

    def _about(self, joined: Joined | None, missing: Mapping[str, str]) -> dict[str, object]:
        in_order = {branch.name: missing[branch.name] for branch in self.branches if branch.name in missing}
        return {
            "winner": joined.winner if joined is not None else None,
            "scores": joined.scores if joined is not None else {},
            "contributing": joined.contributing if joined is not None else (),
            "missing": in_order,
        }


def _unanswered(missing: Mapping[str, str], said: list[str]) -> RecordError:
    if all(why == NOT_ROUTED for why in missing.values()):
        return RecordError(ErrorCode.NOT_ROUTED, "no branch takes this record: the when of none of them is true for it")
    others = [f"{branch}: {why}" for branch, why in missing.items() if why != NOT_ROUTED]
    return RecordError(ErrorCode.NO_ANSWER, f"no branch has answered: {'; '.join(said or others)}"[:2000])
