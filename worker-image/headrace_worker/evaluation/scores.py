"""How good answers are, from counts that are bounded by the number of labels.

Without labels an answer is right, wrong, or not given. Precision is then the share of the given answers that are right, recall that of the
expected ones. With labels each has a precision and a recall of its own, and the scores are the means of these over the labels that were
expected or named.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from headrace.api.evaluation import Evaluation, Scores
from headrace.api.expected import reading


@dataclass(slots=True)
class Tally:
    """Of one label, or of all records together."""

    expected: int = 0
    answered: int = 0
    correct: int = 0

    def count(self, *, expected: bool, answered: bool) -> None:
        """One more record."""
        self.expected += expected
        self.answered += answered
        self.correct += expected and answered

    @property
    def precision(self) -> float:
        """Of what was answered, the share that is right."""
        return self.correct / self.answered if self.answered else 0.0

    @property
    def recall(self) -> float:
        """Of what was expected, the share that was answered."""
        return self.correct / self.expected if self.expected else 0.0

    @property
    def f1(self) -> float:
        """The harmonic mean of both."""
        both = self.expected + self.answered
        return 2 * self.correct / both if both else 0.0


@dataclass
class Scorer:
    """Compares answers with what was expected, one after the other."""

    evaluation: Evaluation
    total: Tally = field(default_factory=Tally)
    labels: dict[str, Tally] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._read = reading(self.evaluation)
        self.labels = {label: Tally() for label in self.evaluation.labels}

    def count(self, expected: str, answer: str | None) -> None:
        """One more record; an answer is None when there is none, or none that answers."""
        wanted, given = self._read(expected), self._read(answer) if answer is not None else ""
        self.total.expected += 1
        self.total.answered += bool(given)
        self.total.correct += given == wanted
        for label in {wanted, given} & self.labels.keys():
            self.labels[label].count(expected=label == wanted, answered=label == given)

    @property
    def scores(self) -> Scores | None:
        """None when nothing was expected of any record."""
        if not self.total.expected:
            return None
        seen = [one for one in self.labels.values() if one.expected or one.answered] or [self.total]
        return Scores(
            expected=self.total.expected,
            correct=self.total.correct,
            accuracy=decimal(self.total.correct / self.total.expected),
            precision=decimal(_mean(one.precision for one in seen)),
            recall=decimal(_mean(one.recall for one in seen)),
            f1=decimal(_mean(one.f1 for one in seen)),
        )


def of_labels(labels: Mapping[str, Tally]) -> dict[str, dict[str, int]]:
    """The counts of each label, as the evaluation writes them down."""
    return {
        label: {"expected": one.expected, "answered": one.answered, "correct": one.correct}
        for label, one in labels.items()
    }


def decimal(value: float) -> str:
    """A number as statuses have it, to four places."""
    return f"{value:.4f}"


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)
