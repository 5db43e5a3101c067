"""Bulkheads as users write them: what is taken, and what is refused with the name of a field."""

from __future__ import annotations

from typing import Any

import pytest

from bulkhead_cases import BAD, EVERYTHING, manifest
from headrace.api.base import InvalidSpec
from headrace.api.bulkhead import Bulkhead, Ordering
from headrace.api.crd import custom_resource_definition
from headrace.api.kinds import kind_named


@pytest.mark.parametrize(("spec", "field"), BAD)
def test_parse_names_the_field_that_is_wrong(spec: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        Bulkhead.parse(manifest(spec))
    assert field in [error.field for error in caught.value.errors]


def test_parse_takes_all_that_can_be_said() -> None:
    assert Bulkhead.parse(manifest(EVERYTHING)).to_object()["spec"] == EVERYTHING


def test_parse_limits_nothing_that_is_not_said() -> None:
    spec = Bulkhead.parse(manifest({})).spec
    assert set(spec.capacity.model_dump().values()) == {None}
    assert spec.ordering == (Ordering.PRIORITY, Ordering.FAIR_SHARE, Ordering.DEADLINE, Ordering.AGE)


def test_the_crd_is_of_the_cluster_and_has_columns() -> None:
    kind = kind_named("bh")
    assert kind is not None
    crd = custom_resource_definition(kind)
    assert crd["spec"]["scope"] == "Cluster"
    (version,) = crd["spec"]["versions"]
    columns = [column["name"] for column in version["additionalPrinterColumns"]]
    assert columns == ["GPUs", "Pods", "Batches", "Waiting", "Oldest", "Age"]
