"""Specs gone wrong: good objects of every kind with random changes, and what must hold of each.

`python tests/fuzz_specs.py --objects 100000` takes as many as one likes; the suite takes a few thousand.
"""

from __future__ import annotations

import copy
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import yaml

import bulkhead_cases
import schedule_cases
from builders import NOON, PLACE
from documents import resolved
from headrace.api.base import ApiModel, InvalidSpec
from headrace.api.bulkhead import Bulkhead
from headrace.api.fanoutjob import FanOutJob
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.kinds import Kind, kind_named
from headrace.api.scheduledgeneration import ScheduledGeneration
from headrace.core.admission.book import Book
from headrace.core.fanout.observed import FanOutObserved
from headrace.core.fanout.reconcile import reconcile as reconcile_fan_out
from headrace.core.observed import Observed
from headrace.core.reconcile import reconcile
from headrace.core.schedule.observed import ScheduleObserved
from headrace.core.schedule.reconcile import reconcile as reconcile_schedule
from spec_cases import GOOD

JsonObject = dict[str, Any]
Place = tuple[Any, ...]
"""The keys and indexes that lead to a value."""

EXAMPLES = Path(__file__).parents[1] / "manifests" / "examples"
MOST_CHANGES = 3
LARGE = 5000
"""Manifests longer than this would only be slow."""
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**53 + 1, 10**30, 0.5, -1e308, "", "a", "a" * 5000, "\n", "ünï\u200b", "\u0000", "auto", "1%",
    "500m", "s3://b/k", "file:///x", "{{ x", "{% for a in b %}{{ a }}{% endfor %}", "record.n >", "size(record.text) > 2", "a/b", "-x", "X",
    "2026-01-01T00:00:00Z", [], [None], [[]], ["a", "a"], {}, {"a": None}, {"name": "x"}, {"name": ["x"]}, {"": ""}, {"a" * 300: 1},
)  # fmt: skip
NAMES = (
    "name",
    "uri",
    "inline",
    "limit",
    "path",
    "max_batch_size",
    "Name",
    "",
    "kind",
    "spec",
    "x-y",
    "$ref",
    "__class__",
)


def seeds() -> list[JsonObject]:
    """Good objects of all kinds."""
    batches = [case.manifest for case in GOOD]
    head = {"apiVersion": "headrace.dev/v1alpha1", "kind": "Bulkhead", "metadata": {"name": "research"}}
    examples = [
        resolved(document)
        for file in sorted(EXAMPLES.glob("*.yaml"))
        for document in yaml.safe_load_all(file.read_text())
    ]
    schedules = [schedule_cases.manifest(case.values[0]) for case in schedule_cases.GOOD]  # type: ignore[arg-type]
    found = [*batches, *schedules, {**head, "spec": bulkhead_cases.EVERYTHING}, *examples]
    return [document for document in found if len(str(document)) < LARGE]


def places(value: Any, path: Place = ()) -> Iterator[Place]:
    """The places of everything inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


def mutated(seed: JsonObject, rng: Random) -> JsonObject:
    """The object with one to three random changes; its kind stays what it is."""
    document = copy.deepcopy(seed)
    for _ in range(rng.randint(1, MOST_CHANGES)):
        here = list(places(document))
        if here:
            _change(document, rng.choice(here), rng)
    return {**document, "kind": seed["kind"]}


def _change(document: JsonObject, place: Place, rng: Random) -> None:
    *above, last = place
    parent: Any = document
    for key in above:
        parent = parent[key]
    rng.choice(_CHANGES)(parent, last, rng)


def _replace(parent: Any, key: Any, rng: Random) -> None:
    parent[key] = copy.deepcopy(rng.choice(VALUES))


def _remove(parent: Any, key: Any, _: Random) -> None:
    del parent[key]


def _rename(parent: Any, key: Any, rng: Random) -> None:
    if isinstance(parent, dict):
        parent[rng.choice(NAMES)] = parent.pop(key)


def _add(parent: Any, _: Any, rng: Random) -> None:
    value = copy.deepcopy(rng.choice(VALUES))
    if isinstance(parent, dict):
        parent[rng.choice(NAMES)] = value
    else:
        parent.append(value)


def _repeat(parent: Any, key: Any, rng: Random) -> None:
    if isinstance(parent, list):
        parent += [copy.deepcopy(parent[key])] * rng.choice((1, 2, 200))
    else:
        parent[key] = [copy.deepcopy(parent[key])]


def _nest(parent: Any, key: Any, rng: Random) -> None:
    for _ in range(rng.choice((1, 60))):
        parent[key] = {"a": parent[key]}


_CHANGES: tuple[Callable[[Any, Any, Random], None], ...] = (
    _replace,
    _replace,
    _replace,
    _remove,
    _rename,
    _add,
    _repeat,
    _nest,
)


def judge(document: JsonObject) -> str:
    """`accepted` or `refused`; raises whatever should not be: an error without a field, or a crash of a decision."""
    kind = kind_named(document["kind"])
    assert kind is not None
    found = _parsed(kind, document)
    if isinstance(found, InvalidSpec):
        assert found.errors, "refused without a word"
        assert all(it.field and it.message for it in found.errors), found
        return "refused"
    assert kind.model.parse(found.to_object()) == found, "what is written is what was read"
    _decide(found)
    return "accepted"


def _parsed(kind: Kind, document: JsonObject) -> ApiModel | InvalidSpec:
    try:
        return kind.model.parse(document)
    except InvalidSpec as error:
        return error


def _decide(found: Any) -> None:
    """Let whoever decides about such an object decide, as the operator would."""
    match found:
        case InferenceBatch():
            reconcile(Observed(found, NOON, installation=PLACE))
        case FanOutJob():
            reconcile_fan_out(FanOutObserved(found, NOON, installation=PLACE))
        case ScheduledGeneration():
            reconcile_schedule(ScheduleObserved(found, NOON, installation=PLACE))
        case Bulkhead():
            Book().put_bulkhead(found, NOON)


def fuzz(objects: int, seed: int) -> Counter[str]:
    """Judge so many objects; how many were accepted and refused. Raises `AssertionError` with the first that is neither."""
    rng, by_kind = Random(seed), defaultdict[str, list[JsonObject]](list)
    for document in seeds():
        by_kind[document["kind"]].append(document)
    kinds = sorted(by_kind)
    counts: Counter[str] = Counter()
    for number in range(objects):
        document = mutated(rng.choice(by_kind[kinds[number % len(kinds)]]), rng)
        try:
            counts[f"{document['kind']} {judge(document)}"] += 1
        except Exception as error:
            raise AssertionError(f"object {number} of seed {seed}: {error!r}\n{json.dumps(document)}") from error
    return counts
