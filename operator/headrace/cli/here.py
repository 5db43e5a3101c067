"""Here, on the machine of whoever types, as a place where objects live: files below the state folder, and this process to work on them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

from headrace.api.fanoutjob import FanOutJob
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.kinds import Kind, OurObject, OurStatus, StandingObject
from headrace.api.results import ResultsReport, Wanted
from headrace.api.worker import PlanReport
from headrace.cli.exits import BAD_INPUT, CliError
from headrace.cli.options import DEFAULT_STATE, Where
from headrace.cli.signals import Signals
from headrace.cli.target import Deletion, Manner, Ref, Seen
from headrace.cli.watch import Silent
from headrace.core.edits import Submission, Wish
from headrace.core.observed import Installation, Verdict
from headrace.shells.local import objects
from headrace.shells.local.converge import Watcher, utc_now
from headrace.shells.local.fanout import drive_of
from headrace.shells.local.place import installation, problems
from headrace.shells.local.podrecord import last_failure
from headrace.shells.local.preflight import read_input
from headrace.shells.local.results import take_results
from headrace.shells.local.state import BatchFolder, StateDir
from headrace.shells.localising import on_this_machine
from headrace.shells.manifests import ConfigMap, LoadedBatch, Manifests, load
from headrace.shells.problems import Problem

_INTERRUPTED = "Interrupted"
"""Shown for a batch that is not finished and that no process runs: a state of this machine, which the core knows nothing of."""
_AT_REST = ("Suspended",)
_LOOK_SECONDS = 0.5


class Here:
    """A `Target`."""

    def __init__(self, where: Where) -> None:
        """Raises `StateError` when the folder cannot be used."""
        self._where, self._state = where, StateDir(where.state_dir)
        self.namespace = where.namespace or "default"
        self.manner = Manner(
            flags={} if where.state_dir == DEFAULT_STATE else {"--state-dir": str(where.state_dir)},
            namespace="default",
            stopping="stopping: the workers put their work away; once more kills them",
            start_over="the same command with --replace",
            immutable="Choose a new metadata.name, or start over with --replace (what this batch has done so far is deleted).",
        )

    def manifests(self, files: Sequence[str]) -> Manifests:
        """The objects in some files, whose paths are those of this machine."""
        return load(files, self._where.namespace, on_this_machine)

    def lookup(self, ref: Ref) -> OurObject | None:
        """The batch of that name."""
        folder = self._folder(ref)
        return folder.load() if folder.exists else None

    def find(self, ref: Ref) -> Seen:
        """The batch of that name. Raises `StateError`."""
        folder = self._folder(ref)
        batch = folder.load()
        return Seen(batch, self._state_word(folder, batch))

    def find_all(self, namespace: str | None, kind: Kind | None = None) -> list[Seen]:
        """All objects of a namespace."""
        loaded = ((folder, folder.load()) for folder in self._state.batches(namespace))
        found = ((folder, it) for folder, it in loaded if kind is None or it.kind == kind.name)
        return [Seen(batch, self._state_word(folder, batch)) for folder, batch in found]

    def watch(self, namespace: str | None, name: str | None, kind: Kind) -> Iterator[Seen]:
        """Look every half second."""
        known: dict[Ref, Seen] = {}
        while True:
            found = {Ref.of(seen.batch): seen for seen in self.find_all(namespace, kind)}
            if name is not None:
                found = {ref: seen for ref, seen in found.items() if ref.name == name}
            yield from (seen for ref, seen in found.items() if known.get(ref) != seen)
            yield from (Seen(seen.batch, "Deleted") for ref, seen in known.items() if ref not in found)
            known = found
            time.sleep(_LOOK_SECONDS)

    def installation(self, batch: OurObject) -> Installation:
        """What this machine can do."""
        return installation(self._state, self._folder(Ref.of(batch)))

    def problems(self, loaded: LoadedBatch, given: Sequence[ConfigMap], submission: Submission) -> list[Problem]:
        """What the core says, and what is missing on this machine."""
        del submission  # nobody else judges here
        return [loaded.source.problem(error) for error in problems(loaded.batch, self._state, tuple(given))]

    def read_input(
        self, batch: InferenceBatch, given: Sequence[ConfigMap], signals: Signals
    ) -> PlanReport | str | None:
        """Let the worker's own `plan` role read it, in a state folder that is thrown away."""
        return read_input(batch, self._config_maps(batch, given), Silent(), signals)

    def verdict(self, batch: InferenceBatch, shards: int) -> Verdict | str | None:
        """Nobody else wants anything of this machine."""
        del batch, shards
        return None

    def standing(self, kind: Kind, namespace: str | None) -> Sequence[StandingObject]:
        """There are none on one machine."""
        del namespace
        message = f"a {kind.name} is known to a cluster alone: name one with --context or --kubeconfig"
        raise CliError("UnknownKind", message, BAD_INPUT)

    def keep(self, config_map: ConfigMap) -> None:
        """Write it into the state folder."""
        self._state.write_config_map(config_map)

    def holding(self, ref: Ref) -> AbstractContextManager[None]:
        """Hold the lock of the batch. Raises `StateError` naming the process that has it."""
        return self._state.running(self._folder(ref))

    def submit(self, batch: OurObject, *, replace: bool) -> Submission:
        """Write the object."""
        return objects.submit(self._state, batch, utc_now(), replace=replace)

    def edit(self, ref: Ref, wish: Wish) -> None:
        """Write the object anew."""
        objects.edit(self._state, self._folder(ref), wish)

    def delete(self, ref: Ref) -> Deletion:
        """Delete the batch with its default output; one that the user has named stays."""
        return Deletion(output_deleted=objects.delete(self._state, self._folder(ref)))

    def runner(self, ref: Ref) -> str | None:
        """The process that holds the batch."""
        holder = self._state.runner(self._folder(ref))
        return f"it is {holder}" if holder is not None else None

    def drive(
        self,
        ref: Ref,
        watcher: Watcher,
        signals: Signals,
        until: Callable[[OurStatus], bool] | None = None,
    ) -> OurObject:
        """Work on it, with processes for pods."""
        folder = self._folder(ref)
        return drive_of(self._state, folder).run(watcher, signals, until)

    def stopped(self, refs: Sequence[Ref]) -> str:
        """Nobody works on them any more."""
        del refs
        return "stopped; run the same command again to go on"

    def log(self, ref: Ref) -> str | None:
        """Path of the log."""
        found = last_failure(self._folder(ref).pods)
        if found is None and isinstance(obj := self._folder(ref).load(), FanOutJob):
            folders = (self._state.batch(ref.namespace, obj.child_name(branch)) for branch in obj.spec.branches)
            found = next(filter(None, (last_failure(folder.pods) for folder in folders)), None)
        return str(found) if found is not None else None

    def results(
        self, batch: OurObject, wanted: Wanted, limit: int | None, take: Callable[[bytes], None]
    ) -> ResultsReport:
        """Start the worker's own reader."""
        assert batch.status.output is not None
        return take_results(batch.status.output.uri, wanted, limit, take)

    def _folder(self, ref: Ref) -> BatchFolder:
        return self._state.batch(*ref)

    def _state_word(self, folder: BatchFolder, batch: OurObject) -> str:
        said = batch.status.summary.state
        if batch.status.finished or said in _AT_REST or self._state.runner(folder) is not None:
            return said
        return _INTERRUPTED

    def _config_maps(self, batch: InferenceBatch, given: Sequence[ConfigMap]) -> list[ConfigMap]:
        """The ConfigMap that the input is in, if it is in one: from the same files, or kept from earlier."""
        wanted, namespace = batch.spec.input.config_map_ref, batch.metadata.namespace
        if wanted is None:
            return []
        kept = self._state.config_map(namespace, wanted.name)
        named = [it for it in given if (it.metadata.namespace, it.metadata.name) == (namespace, wanted.name)]
        return named or [it for it in (kept,) if it is not None]
