"""`headrace run`: submit the objects of some files, and see them to their end."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from headrace.api.base import FieldError
from headrace.api.kinds import OurObject
from headrace.api.tracing import TRACEPARENT
from headrace.cli.dispatch import bad_input
from headrace.cli.driving import drive, show, signals_for, stopped
from headrace.cli.exits import CliError, show_error
from headrace.cli.options import JsonOutput, Where
from headrace.cli.outcome import exit_code
from headrace.cli.place import load_manifests, open_target
from headrace.cli.signals import Signals
from headrace.cli.target import Ref, Target
from headrace.cli.text import plural, remark, say, say_json
from headrace.core.edits import ImmutableFields, Submission, submission
from headrace.core.tracing.context import submitted_in
from headrace.shells.manifests import LoadedBatch, LoadedSchedule, Manifests
from headrace.shells.problems import Problem


@dataclass(frozen=True, slots=True)
class _Run:
    """One `headrace run`."""

    target: Target
    signals: Signals
    output: JsonOutput
    quiet: bool
    replace: bool

    def submit(self, batch: OurObject) -> Ref:
        """Submit one batch. Hold it."""
        ref = Ref.of(batch)
        known = None if self.replace else self.target.lookup(ref)
        batch = submitted_in(batch, known, os.environ.get(TRACEPARENT, ""))
        came_to = self.target.submit(batch, replace=self.replace)
        if not self.quiet:
            self._remark(ref, self.target.find(ref).batch, came_to)
        return ref

    def finish(self, ref: Ref) -> OurObject:
        """See it to its end, and show what came of it."""
        found = self.target.find(ref).batch
        batch = found if found.status.finished else drive(self.target, ref, self.signals, quiet=self.quiet)
        if self.output == JsonOutput.TEXT and batch.status.finished:
            try:
                show(self.target, batch, self.output)
            except CliError as refused:  # those after it are seen to all the same
                show_error(refused, ())
        return batch

    def _remark(self, ref: Ref, batch: OurObject, came_to: Submission) -> None:
        if batch.status.finished:
            remark(f"{ref.name} has finished already, this is how; to start over: {self.target.manner.start_over}")
        elif came_to == Submission.UNCHANGED:
            remark(f"{ref.name}: goes on where it stopped")
        else:
            remark(f"{ref.name}: {came_to}")
        if batch.spec.suspend:
            go_on = self.target.manner.command("resume", ref)
            remark(f"{ref.name} is suspended: `{go_on}` in another terminal lets it go on")


def run(where: Where, files: list[str], output: JsonOutput, *, quiet: bool, replace: bool) -> int:
    """Run the objects of some files; returns the exit code of the worst. Raises `CliError`."""
    with open_target(where) as target:
        manifests = load_manifests(target, files)
        if manifests.schedules:
            raise bad_input(tuple(_no_time(loaded, in_cluster=where.in_cluster) for loaded in manifests.schedules))
        return run_manifests(target, manifests, output, quiet=quiet, replace=replace)


def run_manifests(target: Target, manifests: Manifests, output: JsonOutput, *, quiet: bool, replace: bool) -> int:
    """Run these objects, none of which is a schedule; returns the exit code of the worst. Raises `CliError`."""
    _check(target, manifests, replace=replace)
    for config_map in manifests.config_maps:
        target.keep(config_map)
    if not manifests.batches:
        return _show_config_maps(manifests, output)
    with signals_for(target, quiet=quiet) as signals, ExitStack() as held:
        one_run = _Run(target, signals, output, quiet, replace)
        for loaded in manifests.batches:
            held.enter_context(target.holding(Ref.of(loaded.batch)))
        refs = [one_run.submit(loaded.batch) for loaded in manifests.batches]
        finished = [one_run.finish(ref) for ref in refs if not signals.requested]
    if signals.requested:
        ended = {Ref.of(batch) for batch in finished if batch.status.finished}
        raise stopped(target, [ref for ref in refs if ref not in ended], signals)
    if output == JsonOutput.JSON:
        _show_json(target, finished)
    return max((exit_code(batch) for batch in finished), default=0)


def _no_time(loaded: LoadedSchedule, *, in_cluster: bool) -> Problem:
    here = "say --once for the run of the tick that has come last, or --watch to run each tick as it comes"
    there = "kubectl apply it: in a cluster its CronJob ticks"
    return loaded.source.problem(
        FieldError("kind", f"a ScheduledGeneration has no end: {there if in_cluster else here}")
    )


def _show_config_maps(manifests: Manifests, output: JsonOutput) -> int:
    if output == JsonOutput.JSON:
        kept = [{"namespace": it.metadata.namespace, "name": it.metadata.name} for it in manifests.config_maps]
        say_json({"configMaps": kept})
    else:
        say(f"{plural(len(manifests.config_maps), 'ConfigMap')} kept for the inputs of batches")
    return 0


def _show_json(target: Target, batches: Sequence[OurObject]) -> None:
    if len(batches) == 1:
        show(target, batches[0], JsonOutput.JSON)
    else:
        say_json({"apiVersion": "v1", "kind": "List", "items": [batch.to_object() for batch in batches]})


def _check(target: Target, manifests: Manifests, *, replace: bool) -> None:
    """Refuse everything before anything is done. Raises `CliError`."""
    refused: list[Problem] = []
    found: list[Problem] = []
    for loaded in manifests.batches:
        try:
            planned = submission(target.lookup(Ref.of(loaded.batch)), loaded.batch, replace=replace)
        except ImmutableFields as error:
            refused += _immutable(loaded, error)
        else:
            found += target.problems(loaded, manifests.config_maps, planned)
    if refused:
        raise bad_input(tuple(refused), "ImmutableFields", target.manner.immutable)
    if found:
        raise bad_input(tuple(found))


def _immutable(loaded: LoadedBatch, error: ImmutableFields) -> list[Problem]:
    why = f"cannot be changed: {loaded.batch.metadata.name} was created with another value"
    return [loaded.source.problem(FieldError(f"spec.{field}", why)) for field in error.fields]
