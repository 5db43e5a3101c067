"""How answers become one: what a spec may say of it, and which models it needs."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.api.aggregation import Aggregation, aggregation_problems
from headrace.api.base import InvalidSpec
from headrace.api.fanoutjob import FanOutJobSpec
from headrace.api.model import Model, ModelSource

CHAT: dict[str, Any] = {"model": {"name": "m"}}
EMBEDDING: dict[str, Any] = {"model": {"name": "e", "task": "embedding"}}


def best_of(*scorers: dict[str, Any]) -> dict[str, Any]:
    return {"type": "bestOf", "bestOf": {"scorers": list(scorers)}}


@pytest.mark.parametrize(
    ("spec", "field", "said"),
    [
        pytest.param({"type": "bestOf"}, "", "bestOf must be set when type is bestOf", id="scores are needed, and there is no scorer"),
        pytest.param({"type": "judge"}, "", "judge must be set when type is judge", id="a judge without a judge"),
        pytest.param({"type": "image"}, "", "image must be set when type is image", id="an image that is not named"),
        pytest.param({"type": "vote", "judge": CHAT}, "judge", "only when type is judge", id="a judge of another type"),
        pytest.param(best_of({"logLikelihood": {}}), "bestOf.scorers[0].logLikelihood.model", "required", id="a scorer without its model"),
        pytest.param(
            best_of({"logLikelihood": EMBEDDING}), "bestOf.scorers[0].logLikelihood.model.task", "must be chat or completion",
            id="a likelihood of an embedding model",
        ),
        pytest.param(
            best_of({"agreement": CHAT}), "bestOf.scorers[0].agreement.model.task", "must be embedding", id="agreement without embeddings",
        ),
        pytest.param(best_of({"judge": CHAT}, {"judge": CHAT}), "bestOf.scorers", "one judge at most", id="two judges"),
        pytest.param(best_of({"judge": CHAT, "length": {}}), "bestOf.scorers[0]", "exactly one of", id="two scorers in one"),
        pytest.param(
            {"type": "vote", "vote": {"comparison": "Cluster"}}, "vote", "cluster must be set when comparison is Cluster",
            id="clusters without a model",
        ),
        pytest.param(
            {"type": "vote", "vote": {"cluster": EMBEDDING}}, "vote", "cluster must be set when comparison is Cluster, and only then",
            id="a model that nobody asks",
        ),
        pytest.param(
            {"type": "vote", "vote": {"comparison": "Cluster", "cluster": {**EMBEDDING, "similarityPercent": 101}}},
            "vote.cluster.similarityPercent", "101", id="more similar than the same",
        ),
    ],
)  # fmt: skip
def test_parse_refuses_an_aggregation(spec: dict[str, Any], field: str, said: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        Aggregation.parse(spec)
    (error,) = refused.value.errors
    assert (error.field, said in str(error)) == (field, True), refused.value


def test_aggregation_problems_names_templates_that_are_none() -> None:
    spec = best_of({"judge": {**CHAT, "prompt": {"template": "{{ answers"}}}) | {"prompt": {"template": "{% if %}"}}
    fields = [error.field for error in aggregation_problems(Aggregation.parse(spec))]
    assert fields == ["spec.aggregation.prompt.template", "spec.aggregation.bestOf.scorers[0].judge.prompt.template"]


def test_the_question_of_lines_that_are_requests_is_the_request() -> None:
    spec = {
        "input": {"uri": "s3://in/x", "format": "openai"},
        "branches": [{"name": "one", **CHAT}],
        "aggregation": {"prompt": {"template": "{{ x }}"}},
    }
    with pytest.raises(InvalidSpec, match=r"aggregation\.prompt: .* when input.format is openai"):
        FanOutJobSpec.parse(spec)


def test_with_models_changes_every_model_and_nothing_else() -> None:
    spec = best_of({"length": {}}, {"logLikelihood": CHAT}, {"agreement": EMBEDDING}, {"judge": CHAT})
    before = Aggregation.parse(spec)
    after = before.with_models(lambda it: it.model_copy(update={"source": ModelSource(path=f"/mnt/{it.name}")}))
    seen = [use.model.source.path if use.model.source else None for use in after.uses]
    assert seen == ["/mnt/m", "/mnt/e", "/mnt/m"]
    assert after.with_models(lambda it: Model(name=it.name, task=it.task)) == before
    assert [name for name, _ in before.named_uses()] == [
        "bestOf.scorers[1].logLikelihood", "bestOf.scorers[2].agreement", "bestOf.scorers[3].judge"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "asks"),
    [
        pytest.param({"type": "vote"}, False, id="votes on texts"),
        pytest.param({"type": "vote", "vote": {"comparison": "Cluster", "cluster": EMBEDDING}}, False, id="clusters"),
        pytest.param(best_of({"agreement": EMBEDDING}), False, id="agreement"),
        pytest.param(best_of({"agreement": EMBEDDING}, {"logLikelihood": CHAT}), True, id="a likelihood given the question"),
        pytest.param({"type": "judge", "judge": CHAT}, True, id="a judge"),
    ],
)  # fmt: skip
def test_asks_says_whether_a_model_is_shown_the_question(spec: dict[str, Any], asks: bool) -> None:
    assert Aggregation.parse(spec).asks == asks
