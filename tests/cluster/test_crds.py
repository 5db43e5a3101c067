"""The CRDs on a real API server: it takes them, and says the same as the models of every spec, good or bad."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import bulkhead_cases
import schedule_cases
from headrace.api.base import JsonObject
from headrace.api.batchstatus import InferenceBatchStatus, RecordCounts, Summary, Usage
from headrace.api.bulkhead import Bulkhead
from headrace.api.engines import EngineName
from headrace.api.fanoutjob import FanOutJob
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.kinds import KINDS, Kind
from headrace.api.meta import Condition, ConditionStatus
from headrace.api.scheduledgeneration import ScheduledGeneration
from spec_cases import (
    BAD,
    BAD_FAN_OUTS,
    CHANGES,
    GOOD,
    GOOD_FAN_OUTS,
    MINIMAL,
    UNSET,
    Bad,
    BadFanOut,
    Change,
    Good,
    fan_out_manifest,
    manifest,
)

from .cluster import Cluster
from .kubectl import Kubectl, KubectlError
from .trial import RefusedError, Trial
from .waiting import eventually

CRDS = Path(__file__).parents[2] / "crds"
pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]


@pytest.fixture(scope="module", autouse=True)
def crds(cluster: Cluster) -> None:
    """Install crds/ as a user does, and wait until objects of their kinds can be made."""
    cluster.kubectl("apply", "--server-side", "--force-conflicts", f"--filename={CRDS}")
    names = [f"crd/{kind.plural}.headrace.dev" for kind in KINDS]
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=180s", *names)
    eventually(lambda: is_told_of(cluster.kubectl), "the API server tells of its new kinds")


def is_told_of(kubectl: Kubectl) -> bool:
    """Whether the kinds are in what clients read about the API, which is put together after they can be used."""
    try:
        return bool([kubectl("explain", f"{kind.plural}.spec") for kind in KINDS])
    except KubectlError:
        return False


@pytest.fixture(scope="module")
def trial(cluster: Cluster) -> Trial:
    return Trial(cluster)


def refusal(asked: Callable[[JsonObject], JsonObject], document: JsonObject) -> str:
    """The words in which the API server refuses it."""
    with pytest.raises(RefusedError) as caught:
        asked(document)
    return str(caught.value)


def names_field(words: str, field: str) -> bool:
    """Whether an API server's refusal blames that field, and not only one below it."""
    return re.search(rf"(?<![\w.]){re.escape(field)}(?![\w.\[])", words) is not None


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_api_server_finds_nothing_wrong_with_a_crd(kubectl: Kubectl, kind: Kind) -> None:
    """A schema that is not structural, or names that clash, become conditions, not errors."""
    conditions = kubectl.get("crd", f"{kind.plural}.headrace.dev")["status"]["conditions"]
    assert {c["type"]: c["status"] for c in conditions} == {"NamesAccepted": "True", "Established": "True"}


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.what)
def test_a_bad_spec_is_refused_with_the_same_field(trial: Trial, case: Bad) -> None:
    words = refusal(trial.create, case.manifest)
    assert names_field(words, case.at), words


@pytest.mark.parametrize("case", GOOD + UNSET, ids=lambda case: case.what)
def test_a_good_spec_is_stored_as_the_models_see_it(trial: Trial, case: Good) -> None:
    """With the same defaults, and with everything in parameters and inline records."""
    stored = trial.create(case.manifest)
    assert stored["spec"] == InferenceBatch.parse(case.manifest).to_object()["spec"]
    assert InferenceBatch.parse(stored).spec == InferenceBatch.parse(case.manifest).spec


@pytest.mark.parametrize("case", BAD_FAN_OUTS, ids=lambda case: case.what)
def test_a_bad_fan_out_is_refused_with_the_same_field(trial: Trial, case: BadFanOut) -> None:
    words = refusal(trial.create, case.manifest)
    assert names_field(words, case.at), words


@pytest.mark.parametrize("spec", GOOD_FAN_OUTS)
def test_a_good_fan_out_is_stored_as_the_models_see_it(trial: Trial, spec: dict[str, Any]) -> None:
    stored = trial.create(fan_out_manifest(spec))
    assert stored["spec"] == FanOutJob.parse(fan_out_manifest(spec)).to_object()["spec"]


@pytest.mark.parametrize("case", CHANGES, ids=lambda case: case.what)
def test_a_change_is_refused_or_taken(trial: Trial, case: Change) -> None:
    with trial.holding(case.old):
        if case.forbidden:
            words = refusal(trial.replace, case.new)
            assert names_field(words, f"spec.{case.forbidden}"), words
        else:
            assert trial.replace(case.new)["spec"] == InferenceBatch.parse(case.new).to_object()["spec"]


@pytest.mark.parametrize(("spec", "field"), bulkhead_cases.BAD)
def test_a_bad_bulkhead_is_refused_with_the_same_field(trial: Trial, spec: dict[str, Any], field: str) -> None:
    words = refusal(trial.create, bulkhead_cases.manifest(spec))
    assert names_field(words, field), words


@pytest.mark.parametrize("spec", [{}, bulkhead_cases.EVERYTHING], ids=["nothing said", "all that can be said"])
def test_a_good_bulkhead_is_stored_as_the_models_see_it(trial: Trial, spec: dict[str, Any]) -> None:
    stored = trial.create(bulkhead_cases.manifest(spec))
    assert stored["spec"] == Bulkhead.parse(bulkhead_cases.manifest(spec)).to_object()["spec"]


@pytest.mark.parametrize(("spec", "field"), schedule_cases.BAD)
def test_a_bad_schedule_is_refused_with_the_same_field(trial: Trial, spec: dict[str, Any], field: str) -> None:
    words = refusal(trial.create, schedule_cases.manifest(spec))
    assert names_field(words, field), words


@pytest.mark.parametrize("name", schedule_cases.BAD_NAMES)
def test_a_name_after_which_no_run_can_be_called_is_refused(trial: Trial, name: str) -> None:
    words = refusal(trial.create, schedule_cases.manifest({}, name))
    assert names_field(words, "metadata.name"), words


@pytest.mark.parametrize("spec", schedule_cases.GOOD)
def test_a_good_schedule_is_stored_as_the_models_see_it(trial: Trial, spec: dict[str, Any]) -> None:
    stored = trial.create(schedule_cases.manifest(spec))
    assert stored["spec"] == ScheduledGeneration.parse(schedule_cases.manifest(spec)).to_object()["spec"]


def test_a_status_is_stored_whole_and_shown_in_columns(kubectl: Kubectl, namespace: str) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    status = InferenceBatchStatus(
        observed_generation=1,
        conditions=(
            Condition(type="Complete", status=ConditionStatus.FALSE, reason="Planning", last_transition_time=now),
        ),
        records=RecordCounts(total=1000, succeeded=817, failed=3, pending=180),
        usage=Usage(prompt_tokens=10**12),
        batch_fill_percent=97,
        records_per_second="12.5",
        start_time=now,
        summary=Summary(state="Running", progress="820/1000", fill="97%", eta="4m"),
    ).to_object()
    kubectl("create", "--namespace", namespace, "--filename=-", stdin=json.dumps(manifest(MINIMAL)))
    patch = json.dumps({"status": status})
    kubectl(
        "patch", "ib", "reviews", "--namespace", namespace, "--subresource=status", "--type=merge", "--patch", patch
    )

    assert kubectl.get("ib", "reviews", "--namespace", namespace)["status"] == status
    header, row = kubectl("get", "ib", "--namespace", namespace).splitlines()
    assert header.split() == ["NAME", "STATE", "PROGRESS", "FAILED", "FILL", "ETA", "AGE"]
    assert row.split()[:-1] == ["reviews", "Running", "820/1000", "3", "97%", "4m"]


def test_a_status_cannot_be_written_with_the_spec(trial: Trial) -> None:
    document = manifest(MINIMAL) | {"status": {"summary": {"state": "Complete"}}}
    assert "status" not in trial.create(document)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_kind_answers_to_its_short_name_and_its_category(kubectl: Kubectl, namespace: str, kind: Kind) -> None:
    resources = kubectl("api-resources", "--api-group=headrace.dev", "--categories=headrace", "--no-headers")
    assert [kind.plural, kind.short_name] in [line.split()[:2] for line in resources.splitlines()]


def test_explain_describes_a_part_and_its_fields(kubectl: Kubectl) -> None:
    words = " ".join(kubectl("explain", "inferencebatch.spec.batching").split())
    assert "When waiting records become a batch: whichever limit is reached first." in words
    assert "maxWaitMilliseconds <integer> How long a batch that is not full may wait for more records." in words


def test_explain_lists_the_choices_of_a_field(kubectl: Kubectl) -> None:
    words = " ".join(kubectl("explain", "inferencebatch.spec.engine.name").split())
    assert f"ENUM: {' '.join(name.value for name in EngineName)}" in words


def test_explain_knows_the_usual_parameters(kubectl: Kubectl) -> None:
    assert "Most tokens to generate for one record." in kubectl("explain", "inferencebatch.spec.parameters.max_tokens")
