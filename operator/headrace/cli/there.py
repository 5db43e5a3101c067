"""A cluster as a place where objects live: its API server keeps them, and its operator works on them."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from kubernetes.aio import client

from headrace.api.base import FieldError
from headrace.api.fanoutjob import FanOutJob
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.kinds import WORK_KINDS, Kind, OurObject, OurStatus, StandingObject
from headrace.api.results import ResultsReport, Wanted
from headrace.api.worker import PlanReport
from headrace.cli.exits import BAD_INPUT, CliError
from headrace.cli.follow import follow
from headrace.cli.options import Where
from headrace.cli.reading import interruptible, read
from headrace.cli.refusals import sentences
from headrace.cli.signals import Signals
from headrace.cli.steps import Steps
from headrace.cli.target import Deletion, Manner, Ref, Seen
from headrace.cli.text import remark
from headrace.core.admission.foresee import Picture, foresee
from headrace.core.check import spec_problems
from headrace.core.edits import Submission, Wish
from headrace.core.fanout.check import fan_out_problems
from headrace.core.observed import Installation, Verdict
from headrace.core.reader import Reader, reader
from headrace.shells.kube.api import Api
from headrace.shells.kube.changes import Change, Changes
from headrace.shells.kube.kubeconfig import BadKubeconfig, Context, load_context
from headrace.shells.kube.objects import FIELD_MANAGER, Objects, OtherVersion, parsed
from headrace.shells.kube.picture import standing, take_picture
from headrace.shells.kube.reader import ReaderPod
from headrace.shells.kube.resources import Resource, of_kind
from headrace.shells.kube.submission import in_a_cluster
from headrace.shells.local.converge import Watcher
from headrace.shells.manifests import ConfigMap, LoadedBatch, Manifests, load
from headrace.shells.problems import Problem

REQUEST_TIMEOUT_SECONDS = 20.0
SOMEWHERE = Installation(default_output="file:///somewhere")
"""What is known here of a cluster's installation: it may have a default output, and only its operator knows more."""
T = TypeVar("T")


@contextmanager
def open_cluster(where: Where) -> Iterator[There]:
    """The cluster that the options mean, while the block lasts. Raises `CliError`."""
    with asyncio.Runner() as runner:
        try:
            context = runner.run(load_context(where.kubeconfig, where.context))
        except BadKubeconfig as error:
            raise CliError("BadKubeconfig", str(error), BAD_INPUT) from error
        connection = runner.run(_connect(context))
        try:
            yield There(where, context, runner, connection)
        finally:
            runner.run(connection.close())


@dataclass(frozen=True)
class _Connection:
    api_client: client.ApiClient
    renewal: asyncio.Task[None]

    async def close(self) -> None:
        self.renewal.cancel()
        await self.api_client.close()


async def _connect(context: Context) -> _Connection:
    return _Connection(client.ApiClient(context.configuration), asyncio.create_task(context.renew_credentials()))


class There:
    """A `Target`."""

    def __init__(self, where: Where, context: Context, runner: asyncio.Runner, connection: _Connection) -> None:
        self._where, self._context, self._runner = where, context, runner
        self._api_client = connection.api_client
        self._api = Api(self._api_client, REQUEST_TIMEOUT_SECONDS, manager=FIELD_MANAGER)
        self._objects = Objects(self._api)
        self._submitted: dict[Ref, OurObject] = {}
        """As each was when it was submitted: from then on is told what becomes of it."""
        self._picture: Picture | None = None
        self.namespace = where.namespace or context.namespace
        flags = {"--context": where.context, "--kubeconfig": where.kubeconfig}
        self.manner = Manner(
            flags={flag: str(value) for flag, value in flags.items() if value is not None},
            namespace=context.namespace,
            stopping="",
            start_over="the same manifest under another metadata.name",
            immutable="Choose a new metadata.name.",
        )

    def manifests(self, files: Sequence[str]) -> Manifests:
        """The objects in some files, none of which may mean a path of this machine."""
        return load(files, self._where.namespace, in_a_cluster, default_namespace=self._context.namespace)

    def lookup(self, ref: Ref) -> OurObject | None:
        """The batch of that name."""
        return self._do(self._objects.lookup(*ref))

    def find(self, ref: Ref) -> Seen:
        """The batch of that name."""
        return _seen(self._do(self._objects.find(*ref)))

    def find_all(self, namespace: str | None, kind: Kind | None = None) -> list[Seen]:
        """All objects of a namespace; one of another version is named and left out."""
        seen: list[Seen | None] = []
        for resource in (of_kind(one.name) for one in WORK_KINDS if kind in (None, one)):
            found = self._do(Changes(self._api, namespace, resource=resource).now())
            seen += [self._understood(Change(obj), resource) for obj in found]
        return [one for one in seen if one is not None]

    def watch(self, namespace: str | None, name: str | None, kind: Kind) -> Iterator[Seen]:
        """Watch."""
        resource = of_kind(kind.name)
        changes = Steps(Changes(self._api, namespace, name, resource).follow())
        try:
            while True:
                seen = self._understood(self._do(changes.next()), resource)
                if seen is not None:
                    yield seen
        finally:
            self._runner.run(changes.close())

    def installation(self, batch: OurObject) -> Installation:
        """Hardly anything is known."""
        del batch
        return SOMEWHERE

    def problems(self, loaded: LoadedBatch, given: Sequence[ConfigMap], submission: Submission) -> list[Problem]:
        """What the core says, and what the API server says when it is asked."""
        del given  # the server does not look whether an object that is named is there
        found = [*_problems(loaded.batch), *self._output_in_use(loaded.batch, submission)]
        known = {error.field for error in found}
        found += [e for e in self._do(self._objects.problems(loaded.batch, submission)) if e.field not in known]
        return [loaded.source.problem(error) for error in found]

    def read_input(
        self, batch: InferenceBatch, given: Sequence[ConfigMap], signals: Signals
    ) -> PlanReport | str | None:
        """The input is where only pods can read it."""
        del batch, given, signals
        return None

    def verdict(self, batch: InferenceBatch, shards: int) -> Verdict | str | None:
        """What the operator's own rules say to what there is now; Kueue's are not known here."""
        if batch.spec.queue_name is not None:
            return f"LocalQueue {batch.spec.queue_name} of Kueue decides when it starts, and cannot be asked beforehand"
        try:
            self._picture = self._picture or self._do(take_picture(self._api))
        except CliError as error:
            if error.reason != "Forbidden":
                raise
            return f"whether it would be admitted now is not known: {error.message}"
        return foresee(batch, shards, self._picture, datetime.now(UTC))

    def standing(self, kind: Kind, namespace: str | None) -> Sequence[StandingObject]:
        """Those of the cluster."""
        return self._do(standing(self._api, kind, namespace))

    def keep(self, config_map: ConfigMap) -> None:
        """Apply it."""
        self._do(self._objects.keep(config_map))

    def holding(self, ref: Ref) -> AbstractContextManager[None]:
        """The operator sees to it that only one replica acts."""
        del ref
        return nullcontext()

    def submit(self, batch: OurObject, *, replace: bool) -> Submission:
        """Apply it."""
        submission, made = self._do(self._objects.submit(batch, replace=replace))
        self._submitted[Ref.of(batch)] = made
        return submission

    def edit(self, ref: Ref, wish: Wish) -> None:
        """Patch it."""
        self._do(self._objects.edit(*ref, wish))

    def delete(self, ref: Ref) -> Deletion:
        """Delete it; its output is not the cluster's, and stays."""
        output = self._do(self._objects.delete(*ref)).status.output
        return Deletion(output_kept=output.uri if output is not None else None)

    def runner(self, ref: Ref) -> str | None:
        """The operator."""
        return f"the operator sees to it; look on with: {self.manner.command('get', ref, '--watch')}"

    def drive(
        self,
        ref: Ref,
        watcher: Watcher,
        signals: Signals,
        until: Callable[[OurStatus], bool] | None = None,
    ) -> OurObject:
        """Look on while the operator works."""
        before = self._submitted.pop(ref, None) or self.find(ref).batch

        def unseen() -> None:
            remark(f"{ref.name}: no operator has looked at it yet: is one running, and does it serve {ref.namespace}?")

        def ended(status: OurStatus) -> bool:
            return status.finished or (until is not None and until(status))

        changes = Changes(self._api, *ref, of_kind(before.kind))
        return self._do(follow(changes, before, watcher, signals, until=ended, unseen=unseen))

    def stopped(self, refs: Sequence[Ref]) -> str:
        """They go on without us."""
        lines = [
            f"{ref.name} goes on in the cluster; look on with `{self.manner.command('get', ref, '--watch')}`, "
            f"end it with `{self.manner.command('cancel', ref)}`"
            for ref in refs
        ]
        return "\n".join(lines) or "interrupted"

    def log(self, ref: Ref) -> str | None:
        """How to have kubectl show it."""
        pod = self._do(self._objects.failed_pod(*ref))
        return f"kubectl logs {self.manner.named(Ref(ref.namespace, pod))}" if pod is not None else None

    def results(
        self, batch: OurObject, wanted: Wanted, limit: int | None, take: Callable[[bytes], None]
    ) -> ResultsReport:
        """Read it in a pod of our own, which is deleted whatever happens."""
        made = self._reader(batch)
        pod = ReaderPod(self._api_client, self._api, made, remark)
        try:
            return self._do(interruptible(read(pod, made.command(wanted, limit), take)))
        finally:
            self._put_away(pod, made)

    def _reader(self, batch: OurObject) -> Reader:
        template = self._do(self._objects.pod_template(batch))
        image = template["spec"]["containers"][0]["image"] if template is not None else self._where.worker_image
        if image is None:
            why = f"the Jobs of {batch.metadata.name} are gone, and with them the name of the worker's image"
            raise CliError("NoWorkerImage", f"{why}: name it with --worker-image, or set HEADRACE_WORKER_IMAGE")
        return reader(batch, image, secrets.token_hex(2), template)

    def _put_away(self, pod: ReaderPod, made: Reader) -> None:
        """A pod that cannot be deleted now is no reason to hide what came of it."""
        try:
            self._do(pod.delete())
        except CliError as error:
            name = made.pod["metadata"]["name"]
            remark(f"the pod {name} could not be deleted, and ends by itself in two hours: {error.message}")

    def _output_in_use(self, batch: OurObject, submission: Submission) -> list[FieldError]:
        """An output belongs to one batch for good, and nobody here can empty it."""
        old = self.lookup(Ref.of(batch)) if submission == Submission.STARTED_OVER else None
        if old is None or old.status.output is None or old.spec.output.uri != batch.spec.output.uri:
            return []
        why = f"the output at {old.status.output.uri} stays with the batch that has written it"
        return [FieldError("spec.output.uri", f"{why}: choose a new metadata.name, or another output")]

    def _understood(self, change: Change, resource: Resource) -> Seen | None:
        try:
            batch = parsed(change.obj, resource)
        except OtherVersion as error:
            remark(str(error))
            return None
        return Seen(batch, "Deleted") if change.deleted else _seen(batch)

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        with sentences(self._context):
            return self._runner.run(work)


def _problems(wanted: OurObject) -> tuple[FieldError, ...]:
    """What the core says."""
    return fan_out_problems(wanted, SOMEWHERE) if isinstance(wanted, FanOutJob) else spec_problems(wanted, SOMEWHERE)


def _seen(batch: OurObject) -> Seen:
    return Seen(batch, batch.status.summary.state)
