"""Inline records: read by the core where that is safe, by the preflight Job where a template is a program."""

from __future__ import annotations

import pytest

from builders import BatchBuilder, a_batch, a_job, look, planned
from headrace.api.reasons import ConditionType
from headrace.api.worker import Role
from headrace.core.plan import Plan
from headrace.core.planning import about_to_be
from headrace.core.reconcile import reconcile
from headrace.core.volumes import Volumes

GOOD = ({"custom_id": "a", "text": "x"}, {"custom_id": "b", "text": "y"})


def with_template(template: str, *records: dict[str, str]) -> BatchBuilder:
    return a_batch().inline(*(records or GOOD), prompt={"template": template})


def names(plan: Plan) -> list[str]:
    return [c["metadata"]["name"] for c in plan.children or ()]


@pytest.mark.parametrize(
    "template",
    [
        pytest.param("{{ text }}", id="a field"),
        pytest.param("Say {{ text }} to {{ custom_id }}.", id="two fields in a sentence"),
        pytest.param("no field at all", id="plain text"),
    ],
)
def test_reconcile_reads_plain_substitutions_itself(template: str) -> None:
    plan = reconcile(look(with_template(template)))
    assert plan.status.is_true(ConditionType.INPUT_VALIDATED)
    assert names(plan) == ["reviews-input"]


@pytest.mark.parametrize(
    "template",
    [
        pytest.param("{{ text * 1000000000 }}", id="arithmetic could take all memory"),
        pytest.param(
            "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
            id="loops could take all time",
        ),
        pytest.param("{{ text | truncate(100) }}", id="filters run code"),
        pytest.param("{{ 'a' * 10 ** 10 }}", id="even constants, which compiling would run"),
        pytest.param("{{ text[0] }}", id="subscripts are not worth the doubt"),
    ],
)
def test_reconcile_leaves_templates_that_are_programs_to_a_pod(template: str) -> None:
    batch = with_template(template)
    plan = reconcile(look(batch))
    assert names(plan) == ["reviews-input", "reviews-plan"]
    assert set(plan.children[0]["data"]) == {"records.jsonl"} if plan.children else False
    assert Volumes.of(batch.build(), look(batch).installation).plan_uri.startswith("file:///out/")

    read = reconcile(look(batch, jobs=[a_job(Role.PLAN, complete=True)], reports=[planned(2)]))
    assert read.status.is_true(ConditionType.INPUT_VALIDATED)
    assert read.status.records.total == 2


def test_reconcile_refuses_malformed_records_at_once_whatever_the_template_is() -> None:
    plan = reconcile(look(with_template("{{ text | upper }}", {"text": "x"})))
    assert plan.status.validation is not None
    assert plan.status.validation.errors[0].code == "missing_custom_id"
    assert plan.status.finished


def test_reconcile_refuses_a_field_that_a_record_does_not_have() -> None:
    plan = reconcile(look(with_template("{{ title }}")))
    assert plan.status.validation is not None
    assert [e.code for e in plan.status.validation.errors] == ["template_error", "template_error"]


@pytest.mark.parametrize(
    ("batch", "shards"),
    [
        pytest.param(a_batch().inline(*GOOD).sharded(2), 2, id="records that are good"),
        pytest.param(a_batch().inline(GOOD[0], GOOD[0]).sharded(2), 0, id="an id twice"),
        pytest.param(with_template("{{").sharded(2), 0, id="a template that is none"),
        pytest.param(with_template("{{ text * 9 }}").sharded(2), 0, id="a template that a pod must fill"),
    ],
)
def test_about_to_be_knows_what_the_look_will_find(batch: BatchBuilder, shards: int) -> None:
    found = about_to_be(look(batch)).status
    assert found.is_true(ConditionType.INPUT_VALIDATED) == bool(shards)
    assert found.shards.total == shards


def test_about_to_be_believes_the_preflight_pod() -> None:
    batch = with_template("{{ text * 9 }}")
    assert (
        about_to_be(
            look(batch, jobs=[a_job(Role.PLAN, complete=True)], reports=[planned(6, shards=3)])
        ).status.shards.total
        == 3
    )
