"""`headrace run`: submit the objects of some files, and work on them until they are finished, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headrace.api.base import FieldError
from headrace.api.inferencebatch import InferenceBatch
from headrace.cli.app import JsonOutput, Where
from headrace.cli.dispatch import bad_input
from headrace.cli.driving import Signals, drive, show, stopped
from headrace.cli.exits import CliError, show_error
from headrace.cli.outcome import exit_code
from headrace.cli.place import load_manifests, open_state
from headrace.cli.text import remark, say, say_json
from headrace.shells.local.converge import utc_now
from headrace.shells.local.objects import ImmutableFields, Submission, plan_submission, submit
from headrace.shells.local.place import problems
from headrace.shells.local.state import StateDir
from headrace.shells.manifests import LoadedBatch, Manifests
from headrace.shells.problems import Problem


@dataclass(frozen=True, slots=True)
class _Run:
    """One `headrace run`."""

    state: StateDir
    signals: Signals
    output: JsonOutput
    quiet: bool
    replace: bool

    def work_on(self, batch: InferenceBatch) -> InferenceBatch:
        """Submit one batch and work on it."""
        folder = self.state.batch(batch.metadata.namespace, batch.metadata.name)
        with self.state.running(folder):
            submission = submit(self.state, batch, utc_now(), replace=self.replace)
            found = folder.load()
            self._remark(found, submission)
            return found if found.status.finished else drive(self.state, folder, self.signals, quiet=self.quiet)

    def _remark(self, batch: InferenceBatch, submission: Submission) -> None:
        if self.quiet:
            return
        name = batch.metadata.name
        if batch.status.finished:
            remark(f"{name} has finished already, this is how; --replace starts over")
        elif submission == Submission.UNCHANGED:
            remark(f"{name}: goes on where it stopped")
        else:
            remark(f"{name}: {submission}")
        if batch.spec.suspend:
            remark(f"{name} is suspended: `headrace resume {name}` in another terminal lets it go on")


def run(where: Where, files: list[str], output: JsonOutput, *, quiet: bool, replace: bool) -> int:
    """Run the objects of some files; returns the exit code of the worst. Raises `CliError`."""
    state, manifests = open_state(where), load_manifests(where, files)
    _check(state, manifests, replace=replace)
    for config_map in manifests.config_maps:
        state.write_config_map(config_map)
    if not manifests.batches:
        say(f"{len(manifests.config_maps)} ConfigMaps are kept for the inputs of batches")
        return 0
    with Signals(quiet=quiet) as signals:
        one_run = _Run(state, signals, output, quiet, replace)
        finished = [_work_on(one_run, loaded) for loaded in manifests.batches if not signals.requested]
    if signals.requested:
        raise stopped(signals)
    if output == JsonOutput.JSON:
        _show_json(state, finished)
    return max((exit_code(batch) for batch in finished), default=0)


def _work_on(one_run: _Run, loaded: LoadedBatch) -> InferenceBatch:
    batch = one_run.work_on(loaded.batch)
    if one_run.output == JsonOutput.TEXT and batch.status.finished:
        try:
            show(one_run.state.batch(batch.metadata.namespace, batch.metadata.name), batch, one_run.output)
        except CliError as refused:  # the batches after it are run all the same
            show_error(refused, ())
    return batch


def _show_json(state: StateDir, batches: Sequence[InferenceBatch]) -> None:
    if len(batches) == 1:
        (batch,) = batches
        show(state.batch(batch.metadata.namespace, batch.metadata.name), batch, JsonOutput.JSON)
    else:
        say_json({"apiVersion": "v1", "kind": "List", "items": [batch.to_object() for batch in batches]})


def _check(state: StateDir, manifests: Manifests, *, replace: bool) -> None:
    """Refuse everything before anything is done. Raises `CliError`."""
    found = [
        loaded.source.problem(error)
        for loaded in manifests.batches
        for error in problems(loaded.batch, state, manifests.config_maps)
    ]
    if found:
        raise bad_input(tuple(found))
    refused = [problem for loaded in manifests.batches for problem in _immutable(state, loaded, replace=replace)]
    if refused:
        raise bad_input(tuple(refused), "ImmutableFields", _IMMUTABLE_ADVICE)


_IMMUTABLE_ADVICE = (
    "Choose a new metadata.name, or start over with --replace (what this batch has done so far is deleted)."
)


def _immutable(state: StateDir, loaded: LoadedBatch, *, replace: bool) -> list[Problem]:
    try:
        plan_submission(state, loaded.batch, replace=replace)
    except ImmutableFields as error:
        why = f"cannot be changed: {loaded.batch.metadata.name} was created with another value"
        return [loaded.source.problem(FieldError(f"spec.{field}", why)) for field in error.fields]
    return []
