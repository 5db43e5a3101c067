"""`headrace plan`: what a batch would take, without doing any of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from datetime import timedelta
from typing import Any

from pydantic.alias_generators import to_camel

from headrace.api.branches import Branch
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.kinds import OurObject
from headrace.api.meta import ObjectMeta
from headrace.api.worker import PlanReport
from headrace.cli.exits import BAD_INPUT, CliError
from headrace.cli.options import JsonOutput, Where
from headrace.cli.place import load_manifests, open_target
from headrace.cli.schedules import last_tick, with_runs
from headrace.cli.signals import Signals
from headrace.cli.target import Ref, Target
from headrace.cli.text import duration, number, plural, say, say_json
from headrace.core.admission.foresee import HOPELESS
from headrace.core.edits import ImmutableFields, Submission, submission
from headrace.core.estimate import Estimate, estimate
from headrace.core.fanout.children import branch_spec
from headrace.core.observed import Verdict
from headrace.shells.manifests import ConfigMap, LoadedBatch
from headrace.shells.problems import Problem


def plan(where: Where, files: list[str], output: JsonOutput, *, read: bool) -> int:
    """Show the estimates of all batches; the exit code is 2 when something would keep one from running."""
    estimates: list[tuple[InferenceBatch, Estimate]] = []
    with open_target(where) as target, Signals() as signals:
        manifests = with_runs(load_manifests(target, files), last_tick)
        for loaded in manifests.batches:
            blocked = tuple(map(str, _blocked(target, loaded, manifests.config_maps)))
            for batch in _batches_of(target, loaded.batch):
                found: PlanReport | str | None = None
                if read and not blocked and batch.spec.input.inline is None:
                    found = target.read_input(batch, manifests.config_maps, signals)
                if signals.requested:
                    raise CliError("Interrupted", "interrupted", signals.exit_code)
                estimates.append((batch, _estimate(target, batch, found, blocked)))
    _show(estimates, output)
    return BAD_INPUT if any(found.blocked_by for _, found in estimates) else 0


def _batches_of(target: Target, wanted: OurObject) -> list[InferenceBatch]:
    """The batch itself; of a fan-out, those of its branches."""
    if isinstance(wanted, InferenceBatch):
        return [wanted]
    place = target.installation(wanted)
    named = [
        (wanted.child_name(branch), branch_spec(wanted, place, _at_worst(branch))) for branch in wanted.spec.branches
    ]
    return [
        InferenceBatch(metadata=ObjectMeta(name=name, namespace=wanted.metadata.namespace), spec=spec)
        for name, spec in named
    ]


def _blocked(target: Target, loaded: LoadedBatch, given: Sequence[ConfigMap]) -> list[Problem]:
    """What keeps the batch from running, whether or not there is one of its name already."""
    try:
        planned = submission(target.lookup(Ref.of(loaded.batch)), loaded.batch, replace=False)
    except ImmutableFields:
        planned = Submission.CHANGED  # which a server that judges by itself refuses, field by field
    return target.problems(loaded, given, planned)


def _at_worst(branch: Branch) -> Branch:
    """A branch when the stages before it settle nothing: it gets all records."""
    return branch.model_copy(update={"stage": 0})


def _estimate(
    target: Target, batch: InferenceBatch, found: PlanReport | str | None, blocked: tuple[str, ...]
) -> Estimate:
    report = found if isinstance(found, PlanReport) else None
    known = [seen.batch for seen in target.find_all(batch.metadata.namespace)]
    speed = _known_speed([it for it in known if isinstance(it, InferenceBatch)], batch)
    answer = estimate(batch, target.installation(batch), report, speed)
    if blocked:  # the same faults, with the lines that they are on
        return replace(answer, blocked_by=blocked)
    if isinstance(found, str):
        return replace(answer, blocked_by=(*answer.blocked_by, found))
    return answer if answer.blocked_by else _judged(answer, target.verdict(batch, answer.shards))


def _judged(answer: Estimate, verdict: Verdict | str | None) -> Estimate:
    """The estimate with what admission says; a batch that would wait for ever is as good as refused."""
    if isinstance(verdict, Verdict) and not verdict.admitted and verdict.reason in HOPELESS:
        answer = replace(answer, blocked_by=(f"{verdict.reason}: {verdict.message}",))
    return replace(answer, verdict=verdict)


def _known_speed(others: Iterable[InferenceBatch], batch: InferenceBatch) -> float | None:
    """Tokens a second of the last batch there that had the same model and engine; None when there was none."""
    speeds = []
    for other in others:
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
    values = {field.name: getattr(found, field.name) for field in fields(found)} | {"verdict": _verdict(found.verdict)}
    return names | {to_camel(name): value for name, value in values.items()}


def _verdict(verdict: Verdict | str | None) -> dict[str, Any] | None:
    if not isinstance(verdict, Verdict):
        return {"message": verdict} if verdict is not None else None
    start = verdict.estimated_start
    told = verdict._asdict() | {"estimated_start": f"{start:%Y-%m-%dT%H:%M:%SZ}" if start is not None else None}
    return {to_camel(name): value for name, value in told.items()}


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
    return "\n".join([*lines, f"  {_outlook(found.verdict)}"])


def _outlook(verdict: Verdict | str | None) -> str:
    """Whether it would start at once."""
    if verdict is None:
        return "nothing stands in the way"
    if isinstance(verdict, str):
        return verdict
    if verdict.admitted:
        return f"would be admitted now: {verdict.message}"
    place = f", at position {verdict.position}" if verdict.position is not None else ""
    start = verdict.estimated_start
    since = f", until about {start:%Y-%m-%d %H:%M:%SZ}" if start is not None else ""
    return f"would wait{place}{since}: {verdict.reason}: {verdict.message}"


def _size(found: Estimate) -> str:
    return "the number of records is not known" if found.records is None else plural(found.records, "record")
