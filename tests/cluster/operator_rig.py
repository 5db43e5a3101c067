"""What a test of the operator stands on: a control plane with hollow pods, a namespace, a proxy, and operators to start and kill."""

from __future__ import annotations

import json
import secrets
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import pytest
from kubernetes.aio import client

from builders import BatchBuilder
from fanout_builders import FanOutBuilder
from headrace.api.base import JsonObject
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.labels import API_VERSION
from headrace.api.reasons import ConditionType
from headrace.core.election import LeaseTerms
from headrace.core.schedule.observed import SCHEDULED_TIMESTAMP
from headrace.shells.kube.api import Api
from headrace.shells.kube.errors import NotFound
from headrace.shells.kube.operator import load_configuration
from headrace.shells.kube.resources import BATCHES, EVENTS, FAN_OUTS, JOBS, NAMESPACES, PODS, SCHEDULES, Resource

from .control_plane import ControlPlane
from .hollow_kubelet import HollowKubelet
from .kubectl import Kubectl
from .messages import Say
from .operator_background import Background
from .operator_process import OperatorProcess, Setup
from .operator_workers import Script
from .processes import free_ports
from .proxy import Proxy, write_kubeconfig
from .waiting import PATIENCE_SECONDS, eventually

CRDS = Path(__file__).parents[2] / "crds"
RECORDS = [{"custom_id": f"r{n}", "text": f"Say {n}."} for n in range(10)]
PATIENT = LeaseTerms(lease_seconds=120, give_up_seconds=90, renew_seconds=2)
"""For operators that have no rival: a machine that stands still for ten seconds is no reason to end, and nothing would start them again."""
T = TypeVar("T")


def _established(crd: JsonObject) -> bool:
    conditions = crd.get("status", {}).get("conditions") or ()
    return any((it["type"], it["status"]) == ("Established", "True") for it in conditions)


class Plane:
    """A control plane of our own, without nodes but with pods that live, for all tests of a run."""

    def __init__(self, cluster: ControlPlane, background: Background) -> None:
        self.cluster, self.background = cluster, background
        self.metrics_port = free_ports(1)[0]
        self.configuration = background.run(load_configuration(cluster.kubeconfig))
        self.api = background.run(self._connect())
        self.kubelet = background.run(self._hollow_kubelet())
        background.start(self.kubelet.run())
        self.install_crds()

    @property
    def kubectl(self) -> Kubectl:
        """As the administrator."""
        return self.cluster.kubectl

    def install_crds(self) -> None:
        """Install crds/ as a user does, and wait until objects of their kinds can be made."""
        self.kubectl("apply", "--server-side", "--force-conflicts", f"--filename={CRDS}")
        eventually(lambda: all(map(_established, self.kubectl.get("crd")["items"])), "the CRDs are established")

    async def proxy(self) -> tuple[Proxy, str]:
        """A new proxy, and its URL."""
        found = self.configuration
        anonymous = ssl.create_default_context(cafile=found.ssl_ca_cert)
        proxy = Proxy(found.host, self._certificates(), anonymous)
        return proxy, await proxy.start()

    async def close(self) -> None:
        """Close the connections."""
        await self.api._client.close()
        await self._session.close()

    def _certificates(self) -> ssl.SSLContext:
        found = self.configuration
        context = ssl.create_default_context(cafile=found.ssl_ca_cert)
        context.load_cert_chain(found.cert_file, found.key_file)
        return context

    async def _connect(self) -> Api:
        return Api(client.ApiClient(self.configuration))

    async def _hollow_kubelet(self) -> HollowKubelet:
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self._certificates()))
        return HollowKubelet(self._session, self.configuration.host, self.metrics_port)


@contextmanager
def started_plane(folder: Path, say: Say) -> Iterator[Plane]:
    """A plane, inside the block."""
    with ControlPlane(folder, audit=False, say=say) as cluster, Background() as background:
        plane = Plane(cluster, background)
        try:
            yield plane
        finally:
            background.run(plane.close())


class Rig:
    """One namespace of a plane, with its own proxy, script and operators."""

    def __init__(self, plane: Plane, folder: Path, namespace: str = "") -> None:
        self.plane, self.folder, self.kubectl = plane, folder, plane.kubectl
        self.namespace = namespace or f"test-{secrets.token_hex(4)}"
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}}
        self.run(plane.api.create(NAMESPACES, self.namespace, body))
        self.script = Script(plane.background.loop)
        plane.kubelet.add_script(self.namespace, self.script)
        self._proxies: list[Proxy] = []
        self.proxy, self.url = self.another_proxy()
        self.kubeconfig = write_kubeconfig(folder / f"{self.namespace}.kubeconfig", self.url)
        self._operators: list[OperatorProcess] = []
        self.lease_terms = PATIENT

    def close(self) -> None:
        """End what was started. The namespace goes with the control plane: to empty it first takes longer than most tests."""
        for operator in self._operators:
            if operator.alive:
                operator.kill()
        for proxy in self._proxies:
            self.run(proxy.stop())

    def run(self, work: Any) -> Any:
        """Do some asynchronous work."""
        return self.plane.background.run(work)

    def another_proxy(self) -> tuple[Proxy, str]:
        """One more proxy, and its URL."""
        proxy, url = self.plane.background.run(self.plane.proxy())
        self._proxies.append(proxy)
        return proxy, url

    def operator(self, identity: str = "operator-1", **changes: Any) -> OperatorProcess:
        """An operator for this namespace, not started yet, that talks through the proxy."""
        setup: dict[str, Any] = {
            "kubeconfig": self.kubeconfig,
            "log": self.folder / f"{self.namespace}.{identity}.log",
            "identity": identity,
            "namespaces": (self.namespace,),
            "lease_namespace": self.namespace,
            "metrics_port": self.plane.metrics_port,
            "lease_terms": self.lease_terms,
        }
        operator = OperatorProcess(Setup(**setup | changes))
        self._operators.append(operator)
        return operator

    # objects, as the administrator sees and changes them

    def submit(self, batch: BatchBuilder) -> JsonObject:
        """Create a batch as a user does."""
        made: JsonObject = self.run(self.plane.api.create(BATCHES, self.namespace, manifest(batch)))
        return made

    def batch(self, name: str = "reviews") -> InferenceBatch:
        """The batch as it is now."""
        return InferenceBatch.parse(self.get(BATCHES, name))

    def get(self, resource: Resource, name: str) -> JsonObject:
        """An object as it is now."""
        found: JsonObject = self.run(self.plane.api.get(resource, self.namespace, name))
        return found

    def all(self, resource: Resource) -> list[JsonObject]:
        """All objects of the namespace."""
        found: list[JsonObject] = self.run(self._items(resource))
        return found

    def jobs(self) -> dict[str, JsonObject]:
        """All Jobs of the namespace by name."""
        return {job["metadata"]["name"]: job for job in self.all(JOBS)}

    def events(self, name: str = "reviews") -> list[JsonObject]:
        """The events so far about our objects of that name; they are posted some time after the status that they tell of."""
        regarding = ((event["regarding"], event) for event in self.all(EVENTS))
        return [event for it, event in regarding if (it.get("apiVersion"), it["name"]) == (API_VERSION, name)]

    def until_event(self, reason: str, *words: str, about: str = "reviews") -> JsonObject:
        """Wait for the event of that reason about an object, with those words in its note, and return it."""

        def told() -> JsonObject | None:
            found = [event for event in self.events(about) if event["reason"] == reason]
            return next((event for event in found if all(word in event["note"] for word in words)), None)

        found = self.eventually(told, f"the event {reason} about {about}, with {words or 'any words'}")
        assert found is not None
        return found

    def edit(self, name: str = "reviews", **spec: Any) -> None:
        """Change spec fields of a batch."""
        self.patch(name, {"spec": spec})

    def patch(self, name: str, body: JsonObject) -> None:
        """JSON merge patch of a batch."""
        self.run(self.plane.api.patch(BATCHES, self.namespace, name, body))

    def create(self, resource: Resource, body: JsonObject) -> None:
        """Create an object of any of our kinds as a user does."""
        self.run(self.plane.api.create(resource, self.namespace, body))

    def change(self, resource: Resource, name: str, body: JsonObject) -> None:
        """JSON merge patch of an object of any of our kinds."""
        self.run(self.plane.api.patch(resource, self.namespace, name, body))

    def state(self, resource: Resource, name: str) -> str:
        """What `kubectl get` shows of it; empty when there is nothing yet."""
        found: str = self.get(resource, name).get("status", {}).get("summary", {}).get("state", "")
        return found

    def delete(self, resource: Resource, name: str) -> None:
        """Delete an object; its dependants follow."""
        uid = self.get(resource, name)["metadata"]["uid"]
        self.run(self.plane.api.delete(resource, self.namespace, name, uid))

    def gone(self, resource: Resource, name: str) -> bool:
        """Whether there is no such object."""
        try:
            self.get(resource, name)
        except NotFound:
            return True
        return False

    def eventually(self, holds: Callable[[], T], what: str, seconds: float = PATIENCE_SECONDS) -> T:
        """Wait until something is true, and return it."""
        return eventually(holds, what, self.report, seconds)

    def until(self, holds: Callable[[InferenceBatch], Any], what: str, name: str = "reviews") -> InferenceBatch:
        """Wait until something is true of a batch, and return the batch."""

        def look() -> InferenceBatch | None:
            batch = self.batch(name)
            return batch if holds(batch) else None

        found = self.eventually(look, what)
        assert found is not None
        return found

    def until_state(self, state: str, name: str = "reviews") -> InferenceBatch:
        """Wait until `kubectl get` shows that state."""
        return self.until(lambda batch: batch.status.summary.state == state, f"state {state}", name)

    def until_at_work(self, pods: int) -> None:
        """Wait until so many pods run."""

        def enough() -> bool:
            running = [pod for pod in self.all(PODS) if pod["status"].get("phase") == "Running"]
            return len(running) == pods

        self.eventually(enough, f"{pods} pods at work")

    def report(self) -> str:
        """What there is, for a message."""
        found = [(resource.plural, it) for resource in (BATCHES, FAN_OUTS, SCHEDULES) for it in self.all(resource)]
        statuses = [f"{kind}/{it['metadata']['name']}: {json.dumps(it.get('status', {}))}" for kind, it in found]
        events = [f"{it['reason']} about {it['regarding']['name']}: {it.get('note', '')}" for it in self.all(EVENTS)]
        calls = [str(call) for call in self.proxy.calls[-30:]]
        logs = [operator.log[-3000:] for operator in self._operators]
        problems = [f"the hollow kubelet: {problem}" for problem in self.plane.kubelet.problems]
        return "\n".join([*statuses, *self.jobs(), *events, *calls, *logs, *problems])

    async def _items(self, resource: Resource) -> list[JsonObject]:
        return [item async for page in self.plane.api.pages(resource, self.namespace) for item in page["items"]]


def manifest(batch: BatchBuilder) -> JsonObject:
    """A batch as a user writes it."""
    head = {"apiVersion": BATCHES.api_version, "kind": BATCHES.kind, "metadata": {"name": batch.name}}
    return {**head, "spec": dict(batch.spec)}


def fan_out_manifest(fan_out: FanOutBuilder) -> JsonObject:
    """A fan-out as a user writes it."""
    head = {"apiVersion": FAN_OUTS.api_version, "kind": FAN_OUTS.kind, "metadata": {"name": fan_out.name}}
    return {**head, "spec": dict(fan_out.spec)}


def until_ticking(rig: Rig, name: str) -> None:
    """Wait until the CronJob of a schedule is there, and its ticks are let come."""

    def ticking() -> bool:
        found = rig.get(SCHEDULES, name).get("status", {}).get("conditions", ())
        return any((it["type"], it["status"]) == ("Ready", "True") for it in found)

    rig.eventually(ticking, f"{name} is ready")


def ask_for_run(rig: Rig, schedule: str, name: str) -> None:
    """Make a Job of the CronJob by hand, as a tick would."""
    rig.kubectl("create", "job", name, f"--from=cronjob/{schedule}", "--namespace", rig.namespace)


def second_operator(rig: Rig) -> tuple[OperatorProcess, Proxy]:
    """Another replica with a proxy of its own, so that it is known who did what; it waits for the lease."""
    proxy, url = rig.another_proxy()
    kubeconfig = write_kubeconfig(rig.folder / "second.kubeconfig", url)
    operator = rig.operator("operator-2", kubeconfig=kubeconfig).start()
    operator.wait_until(lambda health: health["ready"] and not health["leading"])
    return operator, proxy


def tick_job(cron: JsonObject, name: str, time: datetime) -> JsonObject:
    """The Job of a tick, as the CronJob controller makes it."""
    template, metadata = cron["spec"]["jobTemplate"], cron["metadata"]
    owner = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "labels": template["metadata"]["labels"],
            "annotations": {SCHEDULED_TIMESTAMP: f"{time:%Y-%m-%dT%H:%M:%SZ}"},
            "ownerReferences": [owner],
        },
        "spec": template["spec"],
    }


def failed_with(batch: InferenceBatch) -> str:
    """What the condition Failed says."""
    condition = batch.status.condition(ConditionType.FAILED)
    assert condition is not None
    return condition.message


_SHARED = pytest.StashKey[Plane]()


@pytest.fixture(scope="session")
def plane(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory, say: Say) -> Iterator[Plane]:
    """One plane for the whole run, also when several modules import this fixture."""
    if _SHARED in pytestconfig.stash:
        yield pytestconfig.stash[_SHARED]
        return
    with ExitStack() as stack:
        pytestconfig.stash[_SHARED] = stack.enter_context(started_plane(tmp_path_factory.mktemp("plane"), say))
        yield pytestconfig.stash[_SHARED]
        del pytestconfig.stash[_SHARED]


@pytest.fixture
def rig(plane: Plane, tmp_path: Path) -> Iterator[Rig]:
    """A namespace of this test's own."""
    if not plane.cluster.is_up:  # a test that ends a part of it may have failed before that was there again
        plane.cluster.up()
    made = Rig(plane, tmp_path)
    yield made
    made.close()
