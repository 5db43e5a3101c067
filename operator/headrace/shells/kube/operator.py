"""The operator process: connect, check the schema, wait to lead, watch, converge, and stop in good order."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Coroutine, Hashable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kubernetes.aio import client, config

from headrace.core.election import Candidacy, LeaseTerms
from headrace.core.observed import Installation
from headrace.shells.kube.admission import TICK_SECONDS, Admission
from headrace.shells.kube.api import REQUEST_TIMEOUT_SECONDS, Api
from headrace.shells.kube.apply import Applier
from headrace.shells.kube.aside import Aside
from headrace.shells.kube.cache import Cache, Key, Parent
from headrace.shells.kube.converge import Converger, utc_now
from headrace.shells.kube.dependents import Dependents
from headrace.shells.kube.elector import Elector
from headrace.shells.kube.errors import ApiError, TransientFailure
from headrace.shells.kube.health import Health, serve
from headrace.shells.kube.hearing import Hearing
from headrace.shells.kube.intake import Intake
from headrace.shells.kube.kubeconfig import read_environment_once
from headrace.shells.kube.kueue import Kueue
from headrace.shells.kube.line import Urgency
from headrace.shells.kube.memory import tidy
from headrace.shells.kube.metrics import Metrics
from headrace.shells.kube.queue import WorkQueue
from headrace.shells.kube.recorder import Recorder
from headrace.shells.kube.reporters import Reporters
from headrace.shells.kube.resources import BATCHES, WATCHED
from headrace.shells.kube.schema import SchemaMismatch, check_schema
from headrace.shells.kube.source import EventSource, ListWatch, watch_optional
from headrace.tracing import Silent, Tracer

logger = logging.getLogger(__name__)

WORKERS = 16
AT_WORK_FOR_ONE = 4
"""Workers at most for one flow beside others: whoever is looked at works beside all that are, and a flood would slow all others down."""
DRAIN_SECONDS = 20.0
POD_NEWS_SECONDS = 0.2
"""How long news of pods may wait for more: a thousand pods that start or end at once are worth some looks, not a thousand."""
SCHEMA_SECONDS = 5.0
"""How often to look whether the right CRDs are there at last."""


@dataclass(frozen=True)
class Options:
    """How the operator is set up."""

    installation: Installation = field(default_factory=Installation)
    namespaces: tuple[str, ...] = ()
    """Namespaces to serve; none for all."""
    lease_namespace: str = "headrace-system"
    lease_terms: LeaseTerms = field(default_factory=LeaseTerms)
    kubeconfig: Path | None = None
    """None: the pod's own credentials, or KUBECONFIG."""
    host: str = "0.0.0.0"  # noqa: S104 - probes and Prometheus come from outside the pod
    port: int = 8080
    identity: str = field(default_factory=lambda: f"{socket.gethostname()}-{os.getpid()}")
    request_timeout_seconds: float = REQUEST_TIMEOUT_SECONDS
    """After which a request to the API server is given up, and made again."""
    tracer: Tracer = field(default_factory=Silent)
    """Who takes spans, where `installation.tracing` says that there are any. It is closed by whoever has opened it."""
    watch_with_kopf: bool = False
    """Let kopf watch, in place of our own lists and watches."""


async def run_operator(options: Options, stop: asyncio.Event | None = None) -> int:
    """Run until told to stop (0) or until the lease is lost (1: start again as a follower)."""
    stop = stop or _stop_on_signals()
    configuration = await load_configuration(options.kubeconfig)
    async with client.ApiClient(configuration) as api_client, _candidate(options) as elector:
        operator = Operator(api_client, elector, options)
        if options.watch_with_kopf:
            operator.source = _kopf_source(operator.api, configuration, options, stop)
        async with operator.serving():
            return await operator.run(stop)


@asynccontextmanager
async def _candidate(options: Options) -> AsyncIterator[Elector]:
    """The candidate for the Lease, with a loop and connections of its own."""
    async with Aside("lease") as aside:
        api_client = client.ApiClient(await load_configuration(options.kubeconfig))
        api = Api(api_client, options.request_timeout_seconds)
        try:
            yield Elector(api, options.lease_namespace, Candidacy(options.identity, options.lease_terms), aside)
        finally:
            await aside.run(api_client.close())


def _kopf_source(api: Api, configuration: client.Configuration, options: Options, stop: asyncio.Event) -> EventSource:
    from headrace.shells.kube.kopf_source import KopfSource  # noqa: PLC0415 - who does not want it need not have it

    return KopfSource(api, configuration, options.namespaces, stop.set)


async def load_configuration(kubeconfig: Path | None) -> client.Configuration:
    """Credentials: a kubeconfig that is named, the pod's service account, or what KUBECONFIG says."""
    configuration = client.Configuration()
    if kubeconfig is None and os.environ.get("KUBERNETES_SERVICE_HOST"):
        config.load_incluster_config(client_configuration=configuration)
    else:
        path = str(kubeconfig) if kubeconfig is not None else None
        await config.load_kube_config(config_file=path, client_configuration=configuration)
    read_environment_once(configuration)
    return configuration


class Operator:
    """The parts, and how they hang together."""

    def __init__(self, api_client: client.ApiClient, elector: Elector, options: Options) -> None:
        self.options, self.elector = options, elector
        self.api = Api(api_client, options.request_timeout_seconds, may_write=lambda: self.elector.leads)
        self.source: EventSource = ListWatch(self.api)
        self.cache, self.metrics = Cache(), Metrics()
        self.queue: WorkQueue[Parent] = WorkQueue(self._flow_of, AT_WORK_FOR_ONE)
        self.intake = Intake(self.cache, self.queue.add, self._pods_changed, options.namespaces)
        self.recorder = Recorder(self.api, options.identity)
        self.reporters = Reporters(self.cache, options.installation.metrics_port, self._pods_changed)
        applier = Applier(self.api, self.cache, self.queue.add)
        self.admission = Admission(options.installation.worker_image, self._verdict_changed, applier.bulkhead_status)
        self.kueue = Kueue(self.cache)
        self.converger = Converger(
            self.cache,
            self.queue,
            applier,
            self.recorder,
            self.reporters,
            self.admission,
            self.kueue,
            options.installation,
            self.metrics,
            options.tracer,
        )
        self._schema_problem = "the installed CRDs have not been looked at yet"

    async def run(self, stop: asyncio.Event) -> int:
        """Lead when it is our turn; return when told to stop, or when the lease was lost."""
        await _first(self._await_schema(), stop)
        if not stop.is_set():
            logger.info("%s waits for the lease", self.options.identity)
            await _first(self.elector.acquire(), stop)
        if stop.is_set() and not self.elector.leads:
            return 0
        lost = False
        try:
            lost = await self._lead(stop)
        finally:
            if not lost:
                await self.elector.release()
        return int(lost)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """With the port for probes and metrics open."""
        runner = await serve(self.options.port, self.options.host, self.health, self._metrics_text)
        try:
            yield
        finally:
            await runner.cleanup()

    def _flow_of(self, key: Parent) -> Hashable:
        """Whose work it is: no namespace waits behind the flood of another, and in a namespace no bulkhead behind that of another."""
        return key.namespace, self.cache.bulkhead(key)

    def _pods_changed(self, key: Parent) -> None:
        self.queue.add_after(key, POD_NEWS_SECONDS, Urgency.NOW)

    def _verdict_changed(self, key: Key, urgency: Urgency) -> None:
        self.queue.add(Parent(BATCHES, *key), urgency)

    def health(self) -> Health:
        """How we are."""
        leading, now = self.elector.leads, asyncio.get_running_loop().time()
        problem = self._schema_problem or ("" if leading else self.elector.problem)
        return Health(
            leading=leading,
            ready=not problem and (not leading or self.intake.complete.is_set()),
            problem=problem,
            last_event_seconds=now - self.intake.last_event if self.intake.last_event else 0.0,
            stalled_seconds=self.queue.stalled_seconds,
            queue_seconds=self.queue.oldest_seconds,
            queue_depth=self.queue.depth,
            cached={resource.plural: self.cache.count(resource) for resource in WATCHED},
        )

    async def _await_schema(self) -> None:
        """Return once the CRDs are those of this operator: acting on others would lose what their owners wrote."""
        while self._schema_problem:
            try:
                await check_schema(self.api)
                problem = ""
            except (SchemaMismatch, TransientFailure, ApiError) as error:
                problem = str(error)
            if problem and problem != self._schema_problem:
                logger.error("nothing is touched: %s", problem)
            self._schema_problem = problem
            if problem:
                await asyncio.sleep(SCHEMA_SECONDS)

    async def _lead(self, stop: asyncio.Event) -> bool:
        """Act until told to stop (False) or no longer allowed to (True)."""
        acting, keeping = asyncio.create_task(self._act()), asyncio.create_task(self.elector.keep())
        stopping, recording = asyncio.create_task(stop.wait()), asyncio.create_task(self.recorder.run())
        try:
            done, _ = await asyncio.wait([acting, keeping, stopping], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # acting never ends by itself: what it raises is the news
            return keeping in done
        finally:
            await _cancel([acting, stopping])
            # Who has lost the lease may not write a word more; who only stops brings to an end what it has begun.
            await self._finish(DRAIN_SECONDS if self.elector.leads else 0.0)
            await _cancel([keeping, recording])

    async def _finish(self, seconds: float) -> None:
        """Bring to an end what has begun, within so many seconds."""
        ends = asyncio.get_running_loop().time() + seconds
        await self.converger.finish(seconds)
        with suppress(TimeoutError):
            async with asyncio.timeout_at(ends):
                await self.recorder.finish()

    async def _act(self) -> None:
        """Watch and converge until cancelled; work begins once everything has been listed."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.source.run(self.intake))
            group.create_task(watch_optional(self.api, self.intake))
            await self.intake.complete.wait()
            logger.info("%s acts; %s", self.options.identity, self.health().cached)
            Hearing(self.cache, self.admission, self.kueue, utc_now).begin()
            Dependents(self.cache, self.queue.add).begin()
            group.create_task(self._admit())
            group.create_task(self.reporters.run())
            group.create_task(tidy())
            for _ in range(WORKERS):
                group.create_task(self.converger.work())

    async def _admit(self) -> None:
        """Have admission notice that time passes."""
        while True:
            await self.admission.tick(utc_now())
            await asyncio.sleep(TICK_SECONDS)

    def _metrics_text(self) -> bytes:
        health = self.health()
        self.metrics.leading.set(health.leading)
        self.metrics.queue_depth.set(health.queue_depth)
        self.metrics.queue_age.set(health.queue_seconds)
        self.metrics.api_writes(self.api.writes)
        for resource, count in health.cached.items():
            self.metrics.objects.labels(resource).set(count)
        self.metrics.bulkheads(self.admission.bulkheads, self.admission.statuses, utc_now())
        return self.metrics.text()


async def _cancel(tasks: Iterable[asyncio.Task[Any]]) -> None:
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _first(work: Coroutine[Any, Any, None], stop: asyncio.Event) -> None:
    """Await some work, unless told to stop before it ends."""
    task = asyncio.create_task(work)
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([task, stopping], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
    finally:
        await _cancel([task, stopping])


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop
