"""The port between the words of the command line and the place where objects live: the state folder of this machine, or a cluster.

A word is written once, against `Target`. What differs between the places, down to how they want to be spoken of, is behind it.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from headrace.api.inferencebatch import InferenceBatch
from headrace.api.kinds import Kind, OurObject, OurStatus, StandingObject
from headrace.api.results import ResultsReport, Wanted
from headrace.api.worker import PlanReport
from headrace.cli.signals import Signals
from headrace.core.edits import Submission, Wish
from headrace.core.observed import Installation, Verdict
from headrace.shells.local.converge import Watcher
from headrace.shells.manifests import ConfigMap, LoadedBatch, Manifests
from headrace.shells.problems import Problem


class Ref(NamedTuple):
    """Which batch."""

    namespace: str
    name: str

    @classmethod
    def of(cls, batch: OurObject) -> Ref:
        """The one that this is."""
        return cls(batch.metadata.namespace, batch.metadata.name)


@dataclass(frozen=True, slots=True)
class Seen:
    """A batch as `get` shows it."""

    batch: OurObject
    state: str
    """What it is doing, as far as this place knows."""


@dataclass(frozen=True, slots=True)
class Deletion:
    """What has become of the output of a batch that was deleted."""

    output_deleted: bool = False
    output_kept: str | None = None
    """URI of an output that is still there."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How a place is spoken of."""

    flags: Mapping[str, str]
    """Options that a command needs in order to mean this place."""
    namespace: str
    """The one that need not be named."""
    stopping: str
    """What the first Ctrl-C does while a batch is worked on."""
    start_over: str
    """How to start over with a batch that has failed."""
    immutable: str
    """What to do when a field was changed that cannot be."""

    def command(self, words: str, ref: Ref, more: str = "") -> str:
        """A command about a batch, which can be pasted as it is."""
        return " ".join(filter(None, ("headrace", words, self.named(ref), more)))

    def named(self, ref: Ref) -> str:
        """A batch as the words of a command line."""
        flags = {**({} if ref.namespace == self.namespace else {"-n": ref.namespace}), **self.flags}
        return " ".join([ref.name, *(f"{flag} {shlex.quote(value)}" for flag, value in flags.items())])


class Target(Protocol):
    """A place where objects live. Whatever it refuses, it raises as a `CliError` or what `dispatch` makes one of."""

    manner: Manner
    namespace: str
    """Of objects that are named on the command line."""

    def manifests(self, files: Sequence[str]) -> Manifests:
        """The objects in some files, for this place. Raises `ManifestError`."""

    def lookup(self, ref: Ref) -> OurObject | None:
        """The batch of that name; None when there is none."""

    def find(self, ref: Ref) -> Seen:
        """The batch of that name. Raises when there is none."""

    def find_all(self, namespace: str | None, kind: Kind | None = None) -> list[Seen]:
        """The objects of a namespace, or of all of them, by name; of one kind, or of all."""

    def watch(self, namespace: str | None, name: str | None, kind: Kind) -> Iterator[Seen]:
        """Each object of a kind as it is now, and from then on whenever it has changed, for ever; the state of one that is gone says so."""

    def installation(self, batch: OurObject) -> Installation:
        """What the core has to know of this place in order to judge the batch."""

    def problems(self, loaded: LoadedBatch, given: Sequence[ConfigMap], submission: Submission) -> list[Problem]:
        """All that would keep the batch from running; `given` are ConfigMaps that come with it."""

    def read_input(
        self, batch: InferenceBatch, given: Sequence[ConfigMap], signals: Signals
    ) -> PlanReport | str | None:
        """What is in the input, or why it could not be read; None where nothing can be read without running it."""

    def verdict(self, batch: InferenceBatch, shards: int) -> Verdict | str | None:
        """What admission would say now of a batch of so many shards, or why that is not known; None where it lets everything in."""

    def standing(self, kind: Kind, namespace: str | None) -> Sequence[StandingObject]:
        """All objects of a kind that does not run itself, by name; of a namespace, or of all. Raises where there are none."""

    def keep(self, config_map: ConfigMap) -> None:
        """Create or replace a ConfigMap of the user."""

    def holding(self, ref: Ref) -> AbstractContextManager[None]:
        """Be the one process that works on the batch, where there must be one. Raises when there is another."""

    def submit(self, batch: OurObject, *, replace: bool) -> Submission:
        """Create the batch, or bring the one of that name to this spec."""

    def edit(self, ref: Ref, wish: Wish) -> None:
        """Do with a batch what somebody wants of it. Raises `EditRefused`."""

    def delete(self, ref: Ref) -> Deletion:
        """Delete a batch."""

    def runner(self, ref: Ref) -> str | None:
        """Who works on the batch besides this process, as the rest of a sentence; None when nobody does."""

    def drive(
        self,
        ref: Ref,
        watcher: Watcher,
        signals: Signals,
        until: Callable[[OurStatus], bool] | None = None,
    ) -> OurObject:
        """See a batch to its end, or until `until` holds, or until a signal comes. Hold it (`holding`)."""

    def stopped(self, refs: Sequence[Ref]) -> str:
        """What has become of these batches when a signal has ended `drive`, and how to go on."""

    def log(self, ref: Ref) -> str | None:
        """Where the log is of the worker that has failed last; None when none has."""

    def results(
        self, batch: OurObject, wanted: Wanted, limit: int | None, take: Callable[[bytes], None]
    ) -> ResultsReport:
        """Give away the lines of the output in the order of the input, as they come."""
