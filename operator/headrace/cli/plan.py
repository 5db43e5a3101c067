"""`headrace plan`: what a batch would take, without doing any of it."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import timedelta
from typing import Any

from pydantic.alias_generators import to_camel

from headrace.api.inferencebatch import InferenceBatch
from headrace.api.worker import PlanReport
from headrace.cli.app import JsonOutput, Where
from headrace.cli.driving import Signals, stopped
from headrace.cli.exits import BAD_INPUT
from headrace.cli.place import load_manifests, open_state
from headrace.cli.text import duration, number, plural, say, say_json
from headrace.cli.watch import Silent
from headrace.core.estimate import Estimate, estimate
from headrace.shells.local.place import installation, problems
from headrace.shells.local.preflight import read_input
from headrace.shells.local.state import StateDir
from headrace.shells.manifests import ConfigMap, LoadedBatch


def plan(where: Where, files: list[str], output: JsonOutput, *, read: bool) -> int:
    """Show the estimates of all batches; the exit code is 2 when something would keep one from running."""
    state, manifests = open_state(where), load_manifests(where, files)
    estimates: list[tuple[InferenceBatch, Estimate]] = []
    with Signals(quiet=True) as signals:
        for loaded in manifests.batches:
            blocked = [loaded.source.problem(e) for e in problems(loaded.batch, state, manifests.config_maps)]
            found: PlanReport | str | None = None
            if read and not blocked and loaded.batch.spec.input.inline is None:
                found = read_input(loaded.batch, _config_maps(state, loaded, manifests.config_maps), Silent(), signals)
            if signals.requested:
                raise stopped(signals)
            estimates.append((loaded.batch, _estimate(state, loaded.batch, found, tuple(map(str, blocked)))))
    _show(estimates, output)
    return BAD_INPUT if any(found.blocked_by for _, found in estimates) else 0


def _estimate(
    state: StateDir, batch: InferenceBatch, found: PlanReport | str | None, blocked: tuple[str, ...]
) -> Estimate:
    place = installation(state, state.batch(batch.metadata.namespace, batch.metadata.name))
    report = found if isinstance(found, PlanReport) else None
    answer = estimate(batch, place, report, _known_speed(state, batch))
    if blocked:  # the same faults, with the lines that they are on
        return replace(answer, blocked_by=blocked)
    return replace(answer, blocked_by=(*answer.blocked_by, found)) if isinstance(found, str) else answer


def _config_maps(state: StateDir, loaded: LoadedBatch, given: tuple[ConfigMap, ...]) -> list[ConfigMap]:
    """The ConfigMap that the input is in, if it is in one: from the same files, or kept from earlier."""
    wanted, namespace = loaded.batch.spec.input.config_map_ref, loaded.batch.metadata.namespace
    if wanted is None:
        return []
    kept = state.config_map(namespace, wanted.name)
    named = [it for it in given if (it.metadata.namespace, it.metadata.name) == (namespace, wanted.name)]
    return named or [it for it in (kept,) if it is not None]


def _known_speed(state: StateDir, batch: InferenceBatch) -> float | None:
    """Tokens a second of the last batch here that had the same model and engine; None when there was none."""
    speeds = []
    for folder in state.batches():
        other = folder.load()
        began, ended, usage = other.status.start_time, other.status.completion_time, other.status.usage
        if began is None or ended is None or ended <= began:
            continue
        if (other.spec.model, other.spec.engine) == (batch.spec.model, batch.spec.engine):
            speed = (usage.prompt_tokens + usage.completion_tokens) / (ended - began).total_seconds()
            speeds.append((ended, speed))
    return max(speeds)[1] if speeds else None


def _show(estimates: list[tuple[InferenceBatch, Estimate]], output: JsonOutput) -> None:
    if output == JsonOutput.JSON:
        shown = [_object(batch, found) for batch, found in estimates]
        say_json(shown[0] if len(shown) == 1 else {"items": shown})
    else:
        say("\n".join(_text(batch, found) for batch, found in estimates))


def _object(batch: InferenceBatch, found: Estimate) -> dict[str, Any]:
    names = {"name": batch.metadata.name, "namespace": batch.metadata.namespace}
    return names | {to_camel(name): value for name, value in asdict(found).items()}


def _text(batch: InferenceBatch, found: Estimate) -> str:
    head = f"{batch.metadata.name}: {_size(found)}"
    if found.blocked_by:
        return "\n".join([f"{head}, which cannot be run:", *(f"  {reason}" for reason in found.blocked_by)])
    lines = [
        head,
        f"  {plural(found.shards, 'shard')}, {plural(found.pods, 'pod')} at once, {plural(found.gpus, 'GPU')}",
    ]
    if found.prompt_tokens is not None and found.max_completion_tokens is not None:
        lines.append(
            f"  about {number(found.prompt_tokens)} prompt tokens, at most {number(found.max_completion_tokens)} more"
        )
    if found.seconds is not None:
        lines.append(
            f"  about {duration(timedelta(seconds=found.seconds))}, at the speed of the last batch with this model"
        )
    return "\n".join([*lines, "  nothing stands in the way"])


def _size(found: Estimate) -> str:
    return "the number of records is not known" if found.records is None else plural(found.records, "record")
