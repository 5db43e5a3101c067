"""How the answers of several branches to one record become one answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Annotated, ClassVar, TypeVar

from pydantic import Field

from headrace.api.base import ApiModel, FieldError, Rule
from headrace.api.common import Resources
from headrace.api.input import Prompt
from headrace.api.model import Model
from headrace.api.scorers import Embedder, Judge, ModelUse, Scorer, scorer_problems, template_problems

Word = Annotated[str, Field(max_length=4096, description="One word of a command line.")]
_Part = TypeVar("_Part", bound=ApiModel)


class AggregationType(StrEnum):
    """Which answer a record gets, of those that its branches have given."""

    FIRST = "first"
    """The answer of the branch with the greatest weight that has one."""
    CONCAT = "concat"
    """The texts of all answers, in the order of the branches."""
    VOTE = "vote"
    """The text that most weight stands behind."""
    MERGE = "merge"
    """All answers are JSON objects, laid over each other."""
    BEST_OF = "bestOf"
    """The answer that the scorers like best."""
    COLLECT = "collect"
    """All answers, of whatever kind, each under the name of its branch."""
    JUDGE = "judge"
    """The answer that a judge model picks."""
    IMAGE = "image"
    """What a program of your own makes of the answers."""
    REDUCE = "reduce"
    """Of a record that was split: the texts of its parts, in their order. A part has the answer of the greatest weight that has one."""

    @property
    def needs_text(self) -> bool:
        """Whether it looks at what an answer says: then it is for generated text alone."""
        return self not in (AggregationType.FIRST, AggregationType.COLLECT, AggregationType.IMAGE)


class Concat(ApiModel):
    """How texts are put together."""

    separator: Annotated[str, Field(max_length=1024)] = "\n\n"
    """What stands between two texts."""


class Comparison(StrEnum):
    """When two texts are the same vote."""

    EXACT = "Exact"
    NORMALIZED = "Normalized"
    CLUSTER = "Cluster"


class Cluster(Embedder):
    """When two texts mean the same: the cosine of their embeddings is large, or that of each and a third one between them."""

    similarity_percent: Annotated[int, Field(ge=1, le=100)] = 85
    """How large, in hundredths."""


class Vote(ApiModel):
    """How votes are counted."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="(self.comparison == 'Cluster') == has(self.cluster)",
            message="cluster must be set when comparison is Cluster, and only then",
            check=lambda it: (it.comparison == Comparison.CLUSTER) == (it.cluster is not None),
        ),
    )

    comparison: Comparison = Comparison.NORMALIZED
    """Exact: the same characters. Normalized: upper and lower case, space, and the punctuation around the text do not matter. Cluster:
    their embeddings are close."""
    cluster: Cluster | None = None
    """The embedding model, for the comparison Cluster."""


class BestOf(ApiModel):
    """The scorers: the first one decides, the next ones break its ties, after them weight and the order of the branches."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.scorers.filter(s, has(s.judge)).size() <= 1",
            message="there may be one judge at most",
            check=lambda it: sum(scorer.judge is not None for scorer in it.scorers) <= 1,
            field="scorers",
        ),
    )

    scorers: Annotated[
        tuple[Scorer, ...], Field(min_length=1, max_length=8, json_schema_extra={"x-kubernetes-list-type": "atomic"})
    ]
    """From the one that matters most."""


class OwnImage(ApiModel):
    """A container image whose program reads the answers from a file and writes what they come to into another."""

    reference: Annotated[str, Field(min_length=1, max_length=1024)]
    """The image, for example `registry.example/join@sha256:…`; it must run without root, and with a root file system that is read-only."""
    command: Annotated[
        tuple[Word, ...], Field(max_length=64, json_schema_extra={"x-kubernetes-list-type": "atomic"})
    ] = ()
    """The program and its first words; by default that of the image."""
    args: Annotated[tuple[Word, ...], Field(max_length=64, json_schema_extra={"x-kubernetes-list-type": "atomic"})] = ()
    """The words after these."""


class MissingParts(StrEnum):
    """What becomes of a record when some of its parts have no answer."""

    SKIP = "Skip"
    FAIL = "Fail"


class Reduce(ApiModel):
    """How the parts of a record are put together again."""

    separator: Annotated[str, Field(max_length=1024)] = "\n"
    """What stands between the texts of two parts."""
    missing_parts: MissingParts = MissingParts.SKIP
    """Skip: the answer is that of the other parts, and says which are missing. Fail: the record has no answer."""


def _only_for(field: str, kind: AggregationType) -> Rule:
    name = kind.value
    return Rule(
        cel=f"!has(self.{name}) || self.type == '{name}'",
        message=f"{name} may be set only when type is {name}",
        check=lambda it: getattr(it, field) is None or it.type == kind,
        field=name,
    )


class Aggregation(ApiModel):
    """How the answers to one record become one. Ties go to the greater weight, then to the branch that is named first."""

    rules: ClassVar[tuple[Rule, ...]] = (
        _only_for("concat", AggregationType.CONCAT),
        _only_for("vote", AggregationType.VOTE),
        _only_for("best_of", AggregationType.BEST_OF),
        _only_for("judge", AggregationType.JUDGE),
        _only_for("image", AggregationType.IMAGE),
        _only_for("reduce", AggregationType.REDUCE),
        Rule(
            cel="self.type != 'bestOf' || has(self.bestOf)",
            message="bestOf must be set when type is bestOf: it has the scorers that tell which answer is best",
            check=lambda it: it.type != AggregationType.BEST_OF or it.best_of is not None,
        ),
        Rule(
            cel="self.type != 'judge' || has(self.judge)",
            message="judge must be set when type is judge: it has the model that picks the answer",
            check=lambda it: it.type != AggregationType.JUDGE or it.judge is not None,
        ),
        Rule(
            cel="self.type != 'image' || has(self.image)",
            message="image must be set when type is image: it has the program that joins the answers",
            check=lambda it: it.type != AggregationType.IMAGE or it.image is not None,
        ),
    )

    type: AggregationType = AggregationType.FIRST
    """Which answer a record gets."""
    concat: Concat | None = None
    """Settings of the type concat."""
    vote: Vote | None = None
    """Settings of the type vote."""
    best_of: BestOf | None = None
    """Settings of the type bestOf."""
    judge: Judge | None = None
    """Settings of the type judge."""
    image: OwnImage | None = None
    """Settings of the type image."""
    reduce: Reduce | None = None
    """Settings of the type reduce."""
    prompt: Prompt | None = None
    """How a record becomes the question that models here are shown beside its answers; by default as `input.prompt` says."""
    resources: Resources | None = None
    """What the pod of the join gets; by default no GPU, and as much as a pod of a batch gets where a model or an image is used here."""

    @property
    def uses(self) -> tuple[ModelUse, ...]:
        """The models that the join runs, in the order of the spec."""
        return tuple(use for _, use in self.named_uses())

    @property
    def asks(self) -> bool:
        """Whether a model here is shown the question too."""
        return any(not isinstance(use, Embedder) for use in self.uses)

    def named_uses(self) -> Iterator[tuple[str, ModelUse]]:
        """The same, each with its place below the aggregation."""
        if self.vote is not None and self.vote.cluster is not None:
            yield "vote.cluster", self.vote.cluster
        for index, scorer in enumerate(self.best_of.scorers if self.best_of is not None else ()):
            if scorer.use is not None:
                name = "judge" if scorer.judge else "agreement" if scorer.agreement else "logLikelihood"
                yield f"bestOf.scorers[{index}].{name}", scorer.use
        if self.judge is not None:
            yield "judge", self.judge

    def with_models(self, see: Callable[[Model], Model]) -> Aggregation:
        """The same with other models, such as those whose weights are mounted."""
        return _with_models(self, see)


def _with_models(part: _Part, see: Callable[[Model], Model]) -> _Part:
    """Every `ModelUse` in a part of the spec, with the model that `see` gives for its own."""
    if isinstance(part, ModelUse):
        return part.model_copy(update={"model": see(part.model)})
    changed: dict[str, object] = {}
    for name in type(part).model_fields:
        value = getattr(part, name)
        if isinstance(value, ApiModel):
            changed[name] = _with_models(value, see)
        elif isinstance(value, tuple):
            changed[name] = tuple(_with_models(one, see) if isinstance(one, ApiModel) else one for one in value)
    return part.model_copy(update=changed)


def aggregation_problems(aggregation: Aggregation, field: str = "spec.aggregation") -> Iterator[FieldError]:
    """What is wrong with an aggregation that no schema can know."""
    yield from template_problems(aggregation.prompt, f"{field}.prompt")
    if aggregation.judge is not None:
        yield from template_problems(aggregation.judge.prompt, f"{field}.judge.prompt")
    for index, scorer in enumerate(aggregation.best_of.scorers if aggregation.best_of is not None else ()):
        yield from scorer_problems(scorer, f"{field}.bestOf.scorers[{index}]")
