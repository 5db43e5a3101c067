"""How good the answers of a run are, and whether its records and answers are still what they were in an earlier run."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from headrace.api.base import ApiModel, Count, Rule
from headrace.api.input import INPUT_SCHEMES
from headrace.api.scorers import Embedder

EVALUATION_FILE = "evaluation.json"
"""Its name in the output folder."""
MAX_LABELS = 100


class Match(StrEnum):
    """When an answer is what was expected."""

    EXACT = "Exact"
    NORMALIZED = "Normalized"
    LABEL = "Label"


Label = Annotated[str, Field(min_length=1, max_length=64, description="One of them.")]


class Evaluation(ApiModel):
    """How a run is looked at once all its records are done, on a CPU."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="(self.match == 'Label') == (self.labels.size() > 0)",
            message="labels must be set when match is Label, and only then",
            check=lambda it: (it.match == Match.LABEL) == bool(it.labels),
            field="labels",
        ),
    )

    match: Match = Match.NORMALIZED
    """When an answer is what the record's field `expected` says. Exact: the same characters, but for spaces around them. Normalized: the
    same words, whatever their case and punctuation. Label: of `labels`, the answer names that one alone."""
    labels: Annotated[tuple[Label, ...], Field(max_length=MAX_LABELS)] = ()
    """For Label: all that may be expected. Precision, recall and F1 are means over them."""
    reference: Annotated[str, Field(max_length=4096, pattern=rf"^({INPUT_SCHEMES})://.+")] | None = None
    """The output folder of an earlier run that was evaluated too: what this run is compared with, for the condition DataDrift."""
    max_psi_percent: Annotated[int, Field(ge=1, le=10_000)] = 20
    """The largest population stability index that is no drift, in hundredths: 20 is 0.20."""
    embedding: Embedder | None = None
    """A model that makes vectors of prompts, so that drift of what they are about is seen. It is run on a sample, in the pod that
    evaluates. A batch of the task embedding needs none: its answers are vectors."""


class Feature(StrEnum):
    """What is compared with the reference."""

    PROMPT_LENGTH = "PromptLength"
    """Characters of the text in a prompt."""
    LANGUAGE = "Language"
    """The language of that text."""
    EMBEDDING_BUCKET = "EmbeddingBucket"
    """The region of the vector space that a prompt's vector is in."""
    REFUSAL_RATE = "RefusalRate"
    """Whether an answer declines to answer."""
    ERROR_RATE = "ErrorRate"
    """Whether a record has failed."""


Decimal = Annotated[str, Field(max_length=32, pattern=r"^[0-9]+(\.[0-9]+)?$")]
"""A decimal number: Kubernetes APIs have no floats."""


class Scores(ApiModel):
    """How good the answers are to the records that say what is expected."""

    expected: Count
    """Records that say it."""
    correct: Count
    """Those whose answer is that."""
    accuracy: Decimal
    """The share of these."""
    precision: Decimal
    """Of the answers that were given, the share that is right; with labels, the mean over the labels."""
    recall: Decimal
    """Of the answers that should have been given, the share that was; with labels, the mean over the labels."""
    f1: Decimal
    """The harmonic mean of both; with labels, the mean over the labels."""


class FeatureDrift(ApiModel):
    """By how much one feature differs from the reference."""

    feature: Feature
    psi: Decimal
    """The population stability index: 0 when both runs are alike."""
    limit: Decimal
    """Above this it is drift: `maxPsiPercent`, or what chance alone explains of runs so small, whichever is larger."""
    drifted: bool
    """Whether it is."""


class EvaluationStatus(ApiModel):
    """What the evaluation has found."""

    uri: Annotated[str, Field(max_length=4096)]
    """The whole of it: counts for each label, and the distributions that a later run can be compared with."""
    scores: Scores | None = None
    """None when no record says what is expected."""
    drift: Annotated[
        tuple[FeatureDrift, ...],
        Field(
            max_length=len(Feature),
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["feature"]},
        ),
    ] = ()
    """The features that could be compared with the reference."""
